"""The page and its line: keys, lines that break, servers that start again."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import WebSocketRoute, expect

from server.auth import Principal
from server.settings import Access, AccessKey, Runs, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.program import program
from tests.behaviour.running import QUIET, antiphon, channel
from tests.scripted_runs import KEYS, M1, M2, Site, site
from tests.scripted_runs import Script as Told
from tests.web.browser import LOST_LINE, PATIENCE_S, Visit, visit

OPEN = Settings(logging=QUIET)
KEYED = Settings(logging=QUIET, access=KEYS)


class Line:
    """The page's websockets, through our hands, so that they can be cut."""

    def __init__(self) -> None:
        self.open: list[WebSocketRoute] = []
        self.said: list[str] = []

    async def watch(self, seen: Visit) -> None:
        """From the next connection on; the page is loaded anew."""
        await seen.page.route_web_socket("**/v1/events", self._connected)
        await seen.page.reload()
        await seen.is_live()

    def _connected(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        self.open.append(route)

        def forward(message: str | bytes) -> None:
            self.said.append(str(message))
            server.send(message)

        route.on_message(forward)

    async def cut(self) -> None:
        await self.open[-1].close(code=4408, reason="cut")


async def test_after_a_cut_the_page_goes_on_where_it_was() -> None:
    line = Line()
    async with site(OPEN, patience_s=PATIENCE_S) as shown, visit(address(shown)) as seen:
        await line.watch(seen)
        script = shown.script()
        script.begin()
        script.say(M1, "before 🎈 ")
        await seen.lane("m1").click()
        await expect(seen.reader.locator(".text")).to_have_text("before 🎈 ")
        await line.cut()
        script.say(M1, "meanwhile ")
        script.say(M2, "quick")
        script.finish(M2)
        await expect(seen.lane("m2")).to_have_attribute("data-state", "finished")
        script.say(M1, "after")
        await expect(seen.reader.locator(".text")).to_have_text("before 🎈 meanwhile after")
        await seen.is_live()
        await expect(seen.page.locator("[data-note]")).to_have_count(0)
        assert any('"cursors":{"m1":9' in said for said in line.said)
        assert len(line.open) == 2


async def test_more_missed_than_the_server_keeps_is_told() -> None:
    line = Line()
    few = Settings(logging=QUIET, runs=Runs(max_topic_events=10))
    async with site(few, patience_s=PATIENCE_S) as shown, visit(address(shown)) as seen:
        await line.watch(seen)
        script = shown.script()
        script.begin()
        await expect(seen.run()).to_have_attribute("data-status", "in_progress")
        await line.cut()
        finish(script)
        shown.script().whole()
        await expect(seen.page.locator('[data-note="gap"]')).to_be_visible()
        for at in (0, 1):  # and what can still be asked for is asked for
            await expect(seen.run(at)).to_have_attribute("data-status", "completed")
        await expect(seen.page.locator("article.run")).to_have_count(2)


async def test_after_a_restart_the_page_is_live_again_and_says_what_is_gone(tmp_path: Path) -> None:
    slow = Script(text="and so on " * 400, chunks=400, stall_after=40, pace_ms=20)
    quick = Script(text="All of it.")
    async with (
        OpenAISimulator(models={"slow": slow}, default=quick) as sim,
        AsyncExitStack() as stack,
    ):
        config = tmp_path / "config.yaml"
        config.write_text(
            f"channels: [{{name: sim, kind: openai, base_url: '{sim.base_url}', models: [quick, slow]}}]\n"
        )
        first = await stack.enter_async_context(program(config))
        async with visit(first.url, LOST_LINE, "net::ERR_") as seen:
            await seen.is_live()
            await seen.ask("quick")
            await expect(seen.run()).to_have_attribute("data-status", "completed")
            await seen.ask("slow")
            await expect(seen.lane("m1")).to_have_attribute("data-state", "writing")
            await expect(seen.reader.locator(".text")).to_contain_text("and so on " * 9)
            first.process.kill()
            await first.process.wait()
            await expect(seen.page.locator('[data-phase="waiting"]')).to_contain_text("Line lost")
            async with program(config, "--port", str(first.port)):
                await seen.is_live()
                note = seen.page.locator('[data-note="restarted"]')
                await expect(note).to_contain_text("The server has restarted")
                await expect(seen.run(0)).to_have_attribute("data-status", "lost")
                await expect(seen.lane("m1")).to_have_attribute("data-state", "lost")
                seen_last = await seen.lane("m1").locator(".part.text").bounding_box()
                assert seen_last is not None
                assert seen_last["width"] > 20  # its bar stays as long as it was
                await expect(seen.run(1)).to_have_attribute("data-status", "completed")
                await expect(seen.run(1)).to_contain_text("before the restart")
                for name in ("Replay", "Cancel"):
                    await expect(seen.button(name)).to_have_count(0)
                await expect(seen.reader.locator(".text")).to_contain_text("and so on and so on")
                await seen.ask("quick")
                await expect(seen.page.locator("article.run")).to_have_count(3)
                await expect(seen.run(0)).to_have_attribute("data-status", "completed")
                await note.get_by_role("button").click()
                await expect(note).to_have_count(0)


async def test_a_key_is_asked_for_and_kept_for_the_tab_alone() -> None:
    async with (
        site(KEYED, patience_s=PATIENCE_S) as shown,
        visit(address(shown)) as seen,
    ):
        field = seen.page.get_by_label("Access key", exact=True)
        await expect(field).to_be_focused()
        await field.fill("not-a-key")
        await field.press("Enter")
        await expect(seen.page.get_by_role("alert")).to_have_text("The server does not take this key.")
        await field.fill("key-of-ann")
        await seen.button("Watch").click()
        await seen.is_live()
        await expect(seen.page.get_by_text("runs of this key")).to_be_visible()
        shown.script(Principal("bob")).whole()
        shown.script(Principal("ann")).whole()
        await expect(seen.page.locator("article.run")).to_have_count(1)
        await seen.lane("m1").click()
        await seen.page.reload()
        await seen.is_live()  # the tab still has it
        await expect(seen.run()).to_have_attribute("data-status", "completed")
        assert not any("key-of-ann" in one for one in seen.addresses)
        kept = "() => [JSON.stringify(localStorage), document.cookie, document.documentElement.outerHTML]"
        assert not any("key-of-ann" in one for one in await seen.page.evaluate(kept))
        await seen.button("Forget the key").click()
        await expect(field).to_be_focused()
        assert await seen.page.evaluate("sessionStorage.length") == 0


async def test_a_key_that_may_have_no_runs_in_the_background_is_told_so_and_asked_no_more() -> None:
    keys = Access(keys=(AccessKey(name="ann", key="key-of-ann", background=False),))
    async with (
        OpenAISimulator() as sim,
        antiphon(Settings(access=keys, channels=(channel(sim),), logging=QUIET)) as server,
        visit(server.url, "403") as seen,
    ):
        await seen.page.locator("#key").fill("key-of-ann")
        await seen.button("Watch").click()
        await seen.is_live()
        await seen.page.get_by_label("Go on when this page is closed").check()
        await seen.ask("m", "Why?")
        await expect(seen.page.locator(".ask .why")).to_contain_text("background")
        await expect(seen.page.get_by_label("Prompt")).to_have_value("Why?")
        await expect(seen.page.get_by_label("Go on when this page is closed")).to_have_count(0)
        await seen.button("Ask").click()
        await expect(seen.run()).to_have_attribute("data-status", "completed")


async def test_an_admin_sees_the_runs_of_all_keys() -> None:
    async with site(KEYED, patience_s=PATIENCE_S) as shown, visit(address(shown)) as seen:
        await seen.page.get_by_label("Access key", exact=True).fill("key-of-root")
        await seen.button("Watch").click()
        await expect(seen.page.get_by_text("runs of all keys")).to_be_visible()
        for name in ("ann", "bob"):
            shown.script(Principal(name)).whole()
        await expect(seen.page.locator("article.run")).to_have_count(2)


def address(shown: Site) -> str:
    return f"http://127.0.0.1:{shown.port}/"


def finish(script: Told) -> None:
    for member in (M1, M2):
        script.say(member, "x")
        script.finish(member)
    script.begin_summary()
    script.summarise("y")
    script.end()
