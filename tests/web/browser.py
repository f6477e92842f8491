"""A real browser, headless, for tests of the page; and what it saw that it should not have seen.

Needs the package ``playwright`` and a Chromium of the system (Debian: ``apt-get install chromium``), or
one that ``ANTIPHON_CHROMIUM`` names. Without one these tests are skipped, and fail where ``CI`` is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import ConsoleMessage, Locator, Page, WebError, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("ANTIPHON_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE_S = 60.0
"""A browser on a busy machine takes its time."""

LOST_LINE = "WebSocket connection to"
CUT_ANSWER = "net::ERR_INCOMPLETE_CHUNKED_ENCODING"

# A violation of the content security policy is told as an error on the console by some browsers only.
WATCH = """addEventListener("securitypolicyviolation", (event) =>
    console.error(`POLICY ${event.violatedDirective} ${event.blockedURI}`));"""

expect.set_options(timeout=PATIENCE_S * 500)


class Visit:
    """A page that is open. ``faults`` is what went wrong in it; ``addresses`` all that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.addresses: list[str] = []
        page.on("console", self._heard)
        page.on("request", lambda request: self.addresses.append(request.url))
        page.on("websocket", lambda socket: self.addresses.append(socket.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def failed(self, error: WebError) -> None:
        self.faults.append(str(error.error))

    def run(self, at: int = 0) -> Locator:
        """The card of a run; 0 is the newest."""
        return self.page.locator("article.run").nth(at)

    def lane(self, name: str, at: int = 0) -> Locator:
        return self.run(at).locator(f'[data-lane="{name}"]')

    @property
    def reader(self) -> Locator:
        return self.page.locator(".reader")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def ask(self, model: str, prompt: str = "hello") -> None:
        await self.page.get_by_label("Model").select_option(model)
        await self.page.get_by_label("Prompt").fill(prompt)
        await self.button("Ask").click()

    async def is_live(self) -> None:
        await expect(self.page.locator('[data-phase="live"]')).to_be_visible()

    async def reads(self, module: str, code: str, argument: Any = None) -> Any:
        """What ``code``, a function of a module of the page and ``argument``, returns."""
        script = f"""async (argument) => {{
            const base = document.querySelector("script[type=module]").src;
            return ({code})(await import(new URL({module!r}, base)), argument);
        }}"""
        return await self.page.evaluate(script, argument)


@asynccontextmanager
async def visit(url: str, *allowed: str, init: str = "", **context: Any) -> AsyncIterator[Visit]:
    """Open the page at ``url`` until the end of the block, and then see that nothing went wrong in it.

    ``allowed``: faults with these words are none. ``init``: a script that runs before the page's own.
    """
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "no Chromium: .ci/run installs one"
        pytest.skip("THE PAGE IS NOT TESTED: no Chromium here (Debian: apt-get install chromium)")
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    async with (
        async_playwright() as driver,
        await driver.chromium.launch(executable_path=CHROMIUM, args=arguments) as browser,
        await browser.new_context(
            **{"viewport": {"width": 1300, "height": 900}, "locale": "en-GB", **context}
        ) as session,
    ):
        await session.add_init_script(WATCH + init)
        seen = Visit(await session.new_page())
        session.on("weberror", seen.failed)
        await seen.page.goto(url)
        yield seen
        assert [fault for fault in seen.faults if not any(words in fault for words in allowed)] == []
