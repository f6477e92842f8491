"""The page to watch, in a real browser before the real server: what it shows, and what its buttons do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from playwright.async_api import expect

from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.scripted_runs import M1, M2, Site, site
from tests.web.browser import CUT_ANSWER, PATIENCE_S, visit

SPEAKS = Script(text="Blue light is scattered most.", chunks=6)
NEVER_ENDS = Script(text="and so on " * 400, chunks=400, stall_after=40)


@pytest.fixture
async def shown() -> AsyncIterator[Site]:
    async with site(Settings(logging=QUIET), patience_s=PATIENCE_S) as started:
        yield started


@asynccontextmanager
async def house(**scripts: Script) -> AsyncIterator[Antiphon]:
    """A server with a simulated model for each script, and ``panel`` of them, summarised by ``writer``."""
    async with AsyncExitStack() as stack:
        channels = []
        for name, script in {"writer": Script(text="The answer.", chunks=3), **scripts}.items():
            simulator = await stack.enter_async_context(OpenAISimulator(default=script))
            channels.append(channel(simulator, name, name=name))
        members = tuple(Member(id=name, model=name) for name in scripts)
        panel = Combination(
            name="panel",
            members=members,
            summary=Summary(model="writer"),
            quorum=len(members),
            grace_s=60,
            partial_min_chars=20,
        )
        settings = Settings(channels=tuple(channels), combinations=(panel,), logging=QUIET)
        yield await stack.enter_async_context(antiphon(settings, patience_s=PATIENCE_S))


def address(shown: Site) -> str:
    return f"http://127.0.0.1:{shown.port}/"


async def test_a_run_appears_as_it_happens_lane_by_lane(shown: Site) -> None:
    async with visit(address(shown)) as seen:
        await expect(seen.page.get_by_text("Nothing has run yet")).to_be_visible()
        script = shown.script()
        script.begin()
        await expect(seen.run()).to_have_attribute("data-status", "in_progress")
        await expect(seen.lane("m1")).to_have_attribute("data-state", "connecting")
        await expect(seen.lane("summary")).to_have_attribute("data-state", "pending")
        script.say(M1, "first words")
        await expect(seen.lane("m1")).to_have_attribute("data-state", "writing")
        await expect(seen.lane("m2")).to_have_attribute("data-state", "connecting")
        script.finish(M1)
        script.say(M2, "other words")
        script.finish(M2)
        await expect(seen.lane("m1")).to_have_attribute("data-state", "finished")
        script.begin_summary()
        script.summarise("so")
        await expect(seen.lane("summary")).to_have_attribute("data-state", "writing")
        script.end()
        await expect(seen.run()).to_have_attribute("data-status", "completed")
        await expect(seen.lane("summary")).to_contain_text("★")
        await expect(seen.button("Cancel")).to_have_count(0)


async def test_a_member_that_fails_shows_why_and_the_others_go_on() -> None:
    refusal = Script(status=429, error_message="No credit is left on this account.")
    async with house(good=SPEAKS, broke=refusal) as server, visit(server.url) as seen:
        await seen.is_live()
        async with server.client.post(f"{server.url}/v1/chat/completions", json=ask("panel")) as response:
            assert response.status == 200
        await expect(seen.lane("broke")).to_have_attribute("data-state", "failed")
        await expect(seen.lane("broke")).to_contain_text("429")
        await expect(seen.lane("broke").locator(".note")).to_contain_text("rate_limit_exceeded: ")
        await expect(seen.lane("good")).to_have_attribute("data-state", "finished")
        await seen.lane("broke").click()
        await expect(seen.reader.locator(".why")).to_contain_text("429")


async def test_a_click_on_a_lane_opens_its_text_which_grows(shown: Site) -> None:
    async with visit(address(shown)) as seen:
        await seen.is_live()
        script = shown.script()
        script.begin()
        script.say(M1, "Once ")
        await seen.lane("m1").click()
        await expect(seen.reader.locator(".text")).to_have_text("Once ")
        for word in ("upon ", "a time 🎈 ", "there was"):
            script.say(M1, word)
        await expect(seen.reader.locator(".text")).to_have_text("Once upon a time 🎈 there was")
        await seen.lane("m2").click()
        await expect(seen.reader.get_by_text("Nothing said yet.")).to_be_visible()
        await expect(seen.lane("m1")).to_have_attribute("aria-pressed", "false")
        await seen.lane("m1").click()
        await expect(seen.reader.locator(".text")).to_have_text("Once upon a time 🎈 there was")
        script.run.cancel("shutdown")


async def test_calls_of_tools_are_read_like_a_text() -> None:
    calls = Script(tools=(ToolCall("get_weather", '{"city": "Oslo"}'), ToolCall("get_time", "{}")))
    async with house(caller=calls) as server, visit(server.url) as seen:
        await seen.is_live()
        await seen.ask("caller")
        await expect(seen.lane("m1")).to_contain_text("calls tools")
        said = seen.reader.locator(".calls")
        await expect(said).to_contain_text('get_weather {"city": "Oslo"}')
        assert (await said.inner_text()).splitlines()[1] == "get_time {}"


async def test_what_a_model_says_is_shown_as_text_and_never_obeyed(shown: Site) -> None:
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    async with visit(address(shown)) as seen:
        await seen.is_live()
        script = shown.script()
        script.begin()
        script.say(M1, evil)
        await seen.lane("m1").click()
        await expect(seen.reader.locator(".text")).to_have_text(evil)
        assert await seen.page.locator(".reader img, .reader script").count() == 0
        assert "Antiphon" in await seen.page.title()


async def test_a_prompt_starts_a_run_whose_answer_is_read_at_once() -> None:
    thinks = Script(text="It is the air.", chunks=4, reasoning=("Light ", "and air."))
    async with house(good=SPEAKS, thinker=thinks) as server, visit(server.url) as seen:
        await seen.is_live()
        await expect(seen.page.get_by_label("Model").locator("option")).to_have_text(
            ["panel", "writer", "good", "thinker"]
        )
        await seen.ask("panel", "Why is the sky blue?")
        await expect(seen.run()).to_have_attribute("data-status", "completed")
        await expect(seen.reader.locator("h2")).to_contain_text("summary")
        await expect(seen.reader.locator(".text")).to_have_text("The answer.")
        await expect(seen.page.get_by_label("Prompt")).to_have_value("")
        for place in (seen.run(), seen.reader):  # the page alone knows what it asked
            await expect(place.get_by_text("Why is the sky blue?")).to_be_visible()
        await seen.ask("thinker")
        await expect(seen.reader.locator(".body > .text")).to_have_text("It is the air.")
        await seen.reader.locator("summary").click()
        await expect(seen.reader.locator(".reasoning .text")).to_have_text("Light and air.")


async def test_a_run_that_is_to_go_on_outlives_its_page() -> None:
    async with house(slow=NEVER_ENDS) as server:
        async with visit(server.url) as seen:
            await seen.is_live()
            await seen.page.get_by_label("Go on when this page is closed").check()
            await seen.ask("panel")
            await expect(seen.lane("slow")).to_have_attribute("data-state", "writing")
            await seen.page.goto("about:blank")
        async with visit(server.url) as seen:
            await expect(seen.run()).to_have_attribute("data-status", "in_progress")
            await seen.run().get_by_role("button", name="Cancel").click()
            await expect(seen.run()).to_have_attribute("data-status", "cancelled")


async def test_who_wins_a_race_is_read_whoever_was_read_before() -> None:
    async with AsyncExitStack() as stack:
        mute = await stack.enter_async_context(OpenAISimulator(default=Script(stall_after=0)))
        quick = await stack.enter_async_context(OpenAISimulator(default=SPEAKS))
        race = Combination(
            name="race", strategy="race", members=(Member(model="mute"), Member(model="quick"))
        )
        channels = (channel(mute, "mute", name="mute"), channel(quick, "quick", name="quick"))
        settings = Settings(channels=channels, combinations=(race,), logging=QUIET)
        server = await stack.enter_async_context(antiphon(settings, patience_s=PATIENCE_S))
        async with visit(server.url) as seen:
            await seen.is_live()
            await seen.ask("race")
            await expect(seen.run()).to_have_attribute("data-status", "completed")
            await expect(seen.reader.locator("h2")).to_contain_text("quick")
            await expect(seen.reader.locator(".text")).to_have_text("Blue light is scattered most.")


async def test_a_summary_that_nobody_reads_is_counted(shown: Site) -> None:
    async with visit(address(shown)) as seen:
        await seen.is_live()
        script = shown.script()
        script.begin()
        for member in (M1, M2):
            script.say(member, "x")
            script.finish(member)
        script.begin_summary()
        await expect(seen.lane("summary")).to_have_attribute("data-state", "connecting")
        script.summarise("four" * 25)
        await expect(seen.lane("summary").locator(".number").nth(1)).to_have_text("~25")
        script.summarise("four" * 25)
        await expect(seen.lane("summary").locator(".number").nth(1)).to_have_text("~50")
        await expect(seen.reader).to_contain_text("Choose a lane")


async def test_cancel_ends_the_run_for_everybody() -> None:
    async with house(slow=NEVER_ENDS) as server, visit(server.url, CUT_ANSWER) as seen:
        await seen.is_live()
        await seen.ask("panel")
        await expect(seen.lane("slow")).to_have_attribute("data-state", "writing")
        await seen.run().get_by_role("button", name="Cancel").click()
        await expect(seen.run()).to_have_attribute("data-status", "cancelled")
        await expect(seen.run().locator(".status")).to_have_text("cancelled by a watcher")
        await expect(seen.lane("summary")).to_have_attribute("data-state", "unneeded")
        async with server.client.get(f"{server.url}/v1/runs") as response:
            assert [run["status"] for run in (await response.json())["data"]] == ["cancelled"]


async def test_answer_now_has_the_summary_written_from_what_is_there() -> None:
    async with house(good=SPEAKS, slow=NEVER_ENDS) as server, visit(server.url) as seen:
        await seen.is_live()
        await seen.ask("panel")
        await expect(seen.lane("good")).to_have_attribute("data-state", "finished")
        await expect(seen.lane("slow")).to_have_attribute("data-state", "writing")
        await seen.button("Answer now").click()
        await expect(seen.run()).to_have_attribute("data-status", "completed")
        await expect(seen.lane("slow")).to_have_attribute("data-state", "cancelled")
        await expect(seen.lane("slow").locator(".note")).to_contain_text("answer now")
        await expect(seen.run().locator(".bill")).to_contain_text("answer now at")


async def test_a_command_that_is_refused_says_so_and_the_run_goes_on() -> None:
    async with house(mute=Script(stall_after=0)) as server, visit(server.url, "410") as seen:
        await seen.is_live()
        await seen.ask("panel")
        await seen.button("Answer now").click()
        await expect(seen.page.locator('[data-note="command_failed"]')).to_contain_text("too little")
        await expect(seen.run()).to_have_attribute("data-status", "in_progress")
        await seen.button("Dismiss").click()
        await expect(seen.page.locator("[data-note]")).to_have_count(0)
        await seen.run().get_by_role("button", name="Cancel").click()
        await expect(seen.run()).to_have_attribute("data-status", "cancelled")


async def test_one_member_can_be_cancelled_from_its_text() -> None:
    async with house(good=SPEAKS, slow=NEVER_ENDS) as server, visit(server.url) as seen:
        await seen.is_live()
        await seen.ask("panel")
        await expect(seen.lane("slow")).to_have_attribute("data-state", "writing")
        await seen.lane("slow").click()
        await seen.button("Cancel this member").click()
        await expect(seen.lane("slow")).to_have_attribute("data-state", "cancelled")
        await expect(seen.run()).to_have_attribute("data-status", "completed")


async def test_who_comes_late_sees_what_runs_and_what_has_ended(shown: Site) -> None:
    shown.script().whole()
    under_way = shown.script()
    under_way.begin()
    under_way.say(M1, "said before")
    under_way.finish(M1)
    async with visit(address(shown)) as seen:
        await expect(seen.run(0)).to_have_attribute("data-status", "in_progress")
        await expect(seen.lane("m1")).to_have_attribute("data-state", "finished")
        await expect(seen.lane("m1").locator(".part.text")).to_have_count(1)
        await expect(seen.lane("m2")).to_have_attribute("data-state", "connecting")
        await expect(seen.run(1)).to_have_attribute("data-status", "completed")
        await expect(seen.lane("m1", 1)).to_have_count(0)  # what has ended is folded
        await seen.run(1).get_by_role("button", name="Show the lanes").click()
        await expect(seen.lane("m1", 1)).to_have_attribute("data-state", "finished")
        await seen.lane("m1").click()
        await expect(seen.reader.locator(".text")).to_have_text("said before")
        under_way.say(M2, "said after")
        await expect(seen.lane("m2")).to_have_attribute("data-state", "writing")


async def test_a_recent_run_is_replayed_from_its_beginning(shown: Site) -> None:
    script = shown.script()
    script.begin()
    script.say(M1, "x" * 50)
    await asyncio.sleep(1.5)  # the length of what is to be replayed
    script.finish(M1)
    script.say(M2, "y")
    script.finish(M2)
    script.begin_summary()
    script.summarise("z")
    script.end()
    async with visit(address(shown)) as seen:
        await seen.button("Replay").click()
        await expect(seen.lane("summary")).to_have_attribute("data-state", "pending")
        await expect(seen.run()).to_have_attribute("data-status", "in_progress")
        await expect(seen.run()).to_have_attribute("data-status", "completed")
        await expect(seen.lane("summary")).to_have_attribute("data-state", "finished")
        await seen.button("Stop the replay").click()
        await expect(seen.button("Replay")).to_be_visible()
