"""The page for everybody: two languages, light and dark, by keyboard alone, small and full."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from server.events import MemberRef, ModelFirstToken, ModelStarted, PlannedMember, RunCreated, StageStarted
from server.settings import Settings
from tests.behaviour.running import QUIET
from tests.scripted_runs import DRAFT, M1, Site, site
from tests.web.browser import PATIENCE_S, visit

SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => {
    for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifted += one.value;
}).observe({type: "layout-shift", buffered: true});"""


@pytest.fixture
async def shown() -> AsyncIterator[Site]:
    async with site(Settings(logging=QUIET), patience_s=PATIENCE_S) as started:
        yield started


def address(shown: Site) -> str:
    return f"http://127.0.0.1:{shown.port}/"


async def paper(page: Page) -> str:
    colour: str = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return colour


async def test_it_speaks_the_language_of_the_browser_and_the_chosen_one(shown: Site) -> None:
    shown.script().whole()
    async with visit(address(shown), locale="zh-CN") as seen:
        await expect(seen.page.locator("html")).to_have_attribute("lang", "zh")
        await expect(seen.run().locator(".status")).to_have_text("完成")
        await expect(seen.button("提问")).to_be_visible()
        await seen.button("English").click()
        await expect(seen.run().locator(".status")).to_have_text("completed")
        await seen.page.reload()
        await expect(seen.button("Ask")).to_be_visible()
        await seen.button("中文").click()
        await expect(seen.button("提问")).to_be_visible()


async def test_both_languages_have_every_word(shown: Site) -> None:
    async with visit(address(shown)) as seen:
        code = """({LANGUAGES}) => Object.entries(LANGUAGES).map(([name, table]) =>
            [name, Object.entries(table).map(([word, text]) =>
                word + (text.match(/\\{\\d\\}/g) ?? []).sort().join("")).sort()])"""
        tables = dict(await seen.reads("strings.js", code))
        assert set(tables) == {"en", "zh"}
        assert tables["en"] == tables["zh"]


async def test_it_is_light_or_dark_as_the_system_or_as_chosen(shown: Site) -> None:
    async with visit(address(shown), color_scheme="light") as seen:
        await seen.is_live()
        light = await paper(seen.page)
        await seen.page.emulate_media(color_scheme="dark")
        dark = await paper(seen.page)
        assert light != dark
        await seen.button("Theme: as the system").click()
        await expect(seen.button("Theme: light")).to_be_visible()
        assert await paper(seen.page) == light
        await seen.button("Theme: light").click()
        await expect(seen.button("Theme: dark")).to_be_visible()
        await seen.page.emulate_media(color_scheme="light")
        assert await paper(seen.page) == dark
        await seen.page.reload()
        await seen.is_live()
        assert await paper(seen.page) == dark


async def test_everything_can_be_done_by_keyboard(shown: Site) -> None:
    script = shown.script()
    script.begin()
    script.say(M1, "words")
    async with visit(address(shown)) as seen:
        await expect(seen.lane("m1")).to_have_attribute("data-state", "writing")
        press = seen.page.keyboard.press
        await press("/")
        await expect(seen.page.get_by_label("Prompt")).to_be_focused()
        await press("/")  # now a letter like any other
        await expect(seen.page.get_by_label("Prompt")).to_have_value("/")
        await press("Escape")
        await press("ArrowDown")
        await expect(seen.lane("m1")).to_be_focused()
        await press("ArrowDown")
        await expect(seen.lane("m2")).to_be_focused()
        await press("ArrowUp")
        await press("Enter")
        await expect(seen.reader.locator(".text")).to_have_text("words")
        await press("Escape")
        await expect(seen.reader.locator(".text")).to_have_count(0)
        await expect(seen.lane("m1")).to_be_focused()
        await press("Shift+Tab")
        await expect(seen.button("Cancel")).to_be_focused()
        await press("Enter")
        await expect(seen.button("Cancelling…")).to_be_disabled()


async def test_fifty_lanes_begin_and_end_without_anything_moving(shown: Site) -> None:
    members = [MemberRef(f"m{number}", f"model-{number}") for number in range(50)]
    async with visit(address(shown), init=SHIFTS) as seen:
        await seen.is_live()
        run = shown.script().run
        planned = tuple(PlannedMember(one.id, one.model) for one in members)
        run.tell(
            RunCreated(
                response_id="r",
                model="crowd",
                strategy="synthesize",
                stream=True,
                members=planned,
                summary="s",
            )
        )
        run.tell(StageStarted(tuple(one.id for one in members)), stage=DRAFT)
        await expect(seen.run().locator(".lane")).to_have_count(51)
        before = await seen.lane("summary").bounding_box()
        await seen.page.evaluate("window.shifted = 0")
        for member in members:
            run.tell(ModelStarted(), stage=DRAFT, member=member)
            run.tell(ModelFirstToken(5), stage=DRAFT, member=member)
            run.lane(member.id, stage=DRAFT, member=member).add("text", "word " * 400)
        await expect(seen.run().locator('[data-state="writing"]')).to_have_count(50)
        run.close_open("deadline")
        await expect(seen.run().locator('.lane[data-state="cancelled"]')).to_have_count(50)
        assert await seen.page.evaluate("window.shifted") < 0.01
        assert await seen.lane("summary").bounding_box() == before


async def test_a_phone_shows_no_less_than_who_does_what(shown: Site) -> None:
    script = shown.script()
    script.begin()
    script.say(M1, "words")
    async with visit(address(shown), viewport={"width": 360, "height": 700}) as seen:
        await expect(seen.lane("m1").locator(".state")).to_be_visible()
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not await seen.page.evaluate(wide)
        await seen.lane("m1").click()
        await expect(seen.reader.locator(".text")).to_be_in_viewport()


async def test_what_can_be_pressed_has_a_name_and_what_is_said_is_announced(shown: Site) -> None:
    shown.script().whole()
    async with visit(address(shown)) as seen:
        await seen.run().get_by_role("button", name="Show the lanes").click()
        nameless = """() => [...document.querySelectorAll("button, input, select, textarea")].filter((one) =>
            !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length)).length"""
        assert await seen.page.evaluate(nameless) == 0
        label = "m1 deepseek-flash, finished, First 5 ms · ~3 tokens · 9 ms"
        await expect(seen.page.get_by_role("button", name=label)).to_be_visible()
        shown.script().whole()
        await expect(seen.page.locator("[aria-live=polite]")).to_have_text(
            "The run of parallel ended: completed."
        )
