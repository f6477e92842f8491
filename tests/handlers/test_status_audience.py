"""Watchers that share a feed are told what each would be told alone; the slow twin is a feed of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.bus import ALL
from server.events import ModelRetrying
from server.handlers.status_audience import AT_ONCE, AUDIENCES, Audience, Audiences, Known
from server.handlers.status_feed import Feed, RunFeed, TopicFeed
from server.handlers.status_texts import Item
from server.run_log import Runs
from server.settings import Runs as RunsSettings
from tests.behaviour.asking import until
from tests.handlers.status_client import client, numbers, text_of, told
from tests.scripted_runs import DRAFT, M1, M2, Script, site

TEXT = frozenset({"answer", "drafts"})
Open = Callable[[Script], Feed]


class Ear:
    """A watcher that writes down what it is told. Alone it pulls for itself."""

    def __init__(self, audiences: Audiences, feed: Feed, form: str = "any") -> None:
        self.form = form
        self.round = 0
        self.feed = feed
        self.begun_at = feed.place
        self.known = Known(feed.place, 0.0)
        self.audience: Audience | None = None
        self.items: list[Any] = []
        self.keeps_up = True
        self.is_over = self.has_failed = False
        self.bookmarks: list[int] = []
        self._audiences = audiences

    def framed(self, items: list[Item], bookmark: int | None, over: bool) -> bytes:
        told = [[item.place, item.json.decode()] for item in items]
        return json.dumps([told, bookmark, over]).encode()

    def hear(self, data: bytes, now: float) -> bool:
        assert not self.is_over
        items, bookmark, _over = json.loads(data)
        self.items += items
        self.bookmarks += [] if bookmark is None else [bookmark]
        return self.keeps_up

    def go_alone(self, feed: Feed, known: Known, until: float) -> None:
        self.audience = None
        self.feed, self.known = feed, known

    def over(self) -> None:
        self.audience, self.is_over = None, True

    def fail(self) -> None:
        self.audience, self.has_failed = None, True

    def pull(self) -> None:
        if self.audience is None and not self.is_over:
            items = self.feed.pull(asyncio.get_running_loop().time(), 64)
            self.hear(self.framed(items, None, self.feed.done), 0.0)
            if self.feed.done:
                self.feed.close()
                self.is_over = True

    def join(self) -> None:
        if self.audience is None and not self.is_over:
            self.audience = self._audiences.join(self, self.feed, self.known, 1024)

    def leave(self) -> None:
        if self.audience is not None and (left := self.audience.leave(self)) is not None:
            self.audience = None
            self.feed, self.known = left

    def drop(self) -> None:
        if self.audience is not None:
            self.audience.drop(self)
        elif not self.is_over:
            self.feed.close()

    @property
    def events(self) -> list[Any]:
        return [json.loads(told) for _place, told in self.items]

    @property
    def stored(self) -> dict[int, str]:
        return {place: told for place, told in self.items if place is not None}

    def text(self, lane: str) -> tuple[int | None, str]:
        """Where it began, and all of it; each piece has to begin where the one before ended."""
        begin, text = None, ""
        for event in self.events:
            if event["type"].endswith(".delta") and event.get("member", {"id": "summary"})["id"] == lane:
                offset = event["data"]["text_offset"]
                if begin is None:
                    begin = offset
                assert offset == begin + len(text)
                text += event["data"]["text"]
        return begin, text


def new_runs() -> Runs:
    return Runs(RunsSettings())


def of_the_run(script: Script) -> Feed:
    return RunFeed(script.run, script.run.head, include=TEXT, types=None, cursors=None)


def of_all(runs: Runs, **fields: Any) -> Feed:
    topic = runs.bus.topic(ALL)
    under_way = [run for run in runs._runs.values() if not run.ended]
    given: dict[str, Any] = {"include": TEXT, "types": None, "under_way": under_way}
    return TopicFeed(topic, runs, topic.head, **(given | fields))


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


OPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["come", "come", "join", "join", "leave", "slow", "say", "say", "tell", "pull", "turn", "tick"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


@pytest.mark.parametrize("is_topic", [False, True], ids=["run", "topic"])
@given(ops=OPS)
@hypothesis_settings(max_examples=60, deadline=None)
def test_whoever_joins_and_leaves_at_any_time_is_told_all_that_follows_once(
    is_topic: bool, ops: list[tuple[str, int]]
) -> None:
    async def play() -> None:
        runs, audiences = new_runs(), Audiences()
        script = Script(runs)
        script.begin()
        ears: list[tuple[Ear, int]] = []  # and how much text there was before it came

        def come() -> None:
            feed = of_all(runs) if is_topic else of_the_run(script)
            chars = script.run.lane("m1").chars["text"]
            ears.append((Ear(audiences, feed, str(len(ears) % 2)), chars))

        come()
        for op, number in ops:
            ear = ears[number % len(ears)][0]
            if op == "come":
                come()
            elif op == "say":
                script.say(M1, f"<{number}> ")
            elif op == "tell":
                script.run.tell(ModelRetrying("code", 500, number, 2, True), stage=DRAFT, member=M2)
            elif op == "turn":
                await turns(number)
            elif op == "tick":
                await asyncio.sleep(0.005 * number)
            elif op == "slow":
                ear.keeps_up = not ear.keeps_up
            else:
                {"join": ear.join, "leave": ear.leave, "pull": ear.pull}[op]()
        script.finish(M1)
        script.end()
        await turns(20)
        for ear, _chars in ears:
            ear.leave()
            ear.pull()
            ear.pull()
        said = script.run.lane("m1").text()
        log: dict[int, str] = {}
        for ear, chars in ears:
            assert not ear.has_failed
            assert list(ear.stored) == list(range(ear.begun_at + 1, script.run.head + 1))
            assert all(log.setdefault(place, told) == told for place, told in ear.stored.items())
            begin, text = ear.text("m1")
            assert said[chars:] == text
            assert begin in (None, chars)
            assert is_topic or ear.is_over
            ear.leave()
            ear.drop()
        assert len(audiences) == 0
        assert not script.run.text_watchers
        assert not script.run.sleepers.asleep
        assert not script.run.text_naps().asleep
        assert not runs.bus.topic(ALL).sleepers.asleep

    asyncio.run(play())


async def test_many_are_told_in_parts_and_who_leaves_in_between_misses_nothing() -> None:
    runs, audiences = new_runs(), Audiences()
    script = Script(runs)
    script.begin()
    ears = [Ear(audiences, of_the_run(script)) for _ in range(3 * AT_ONCE)]
    for ear in ears:
        ear.join()
    script.say(M2, "one")
    await turns(1)
    assert ears[0].events[0]["type"] == "model.first_token"
    assert not ears[-1].items, "the others have their turn after the loop's"
    ears[-1].leave()
    ears[-2].drop()
    script.say(M2, " two")
    await asyncio.sleep(0.1)
    ears[-1].pull()
    script.finish(M2)
    await turns(10)
    ears[-1].pull()
    assert {ear.text("m2") for ear in ears[:-2]} == {(0, "one two")}
    assert ears[-1].text("m2") == (0, "one two")
    assert ears[-1].stored == ears[0].stored
    assert not ears[-2].items
    for ear in ears[:-2]:
        ear.drop()
    ears[-1].drop()
    assert len(audiences) == 0


async def test_who_does_not_keep_up_goes_on_alone_and_the_others_stay() -> None:
    runs, audiences = new_runs(), Audiences()
    script = Script(runs)
    script.begin()
    fast, slow = Ear(audiences, of_the_run(script)), Ear(audiences, of_the_run(script))
    fast.join()
    slow.join()
    slow.keeps_up = False
    script.say(M1, "x")
    await turns()
    assert slow.audience is None
    assert fast.audience is not None
    script.finish(M1)
    await turns()
    slow.pull()
    assert slow.items == fast.items
    fast.drop()
    slow.drop()


async def test_each_subscription_of_a_connection_shares_with_its_like_and_misses_nothing() -> None:
    async with site() as shown:
        async with client(shown) as many, client(shown) as another:
            script = shown.script()
            run = script.begin()
            audiences = shown.app[AUDIENCES]
            asked: dict[str, dict[str, Any]] = {
                "all": {"topic": "self"},
                "run": {"topic": f"run:{run.id}", "include": ["drafts", "answer"]},
                "ends": {"topic": f"run:{run.id}", "types": ["*.finished", "run.*"]},
            }
            for watcher in (many, another):
                await watcher.begin()
                for id, fields in asked.items():
                    await watcher.subscribe(id=id, **fields)
            await until(lambda: len(audiences) == 3)
            script.say(M1, "draft of m1")
            script.finish(M1)
            await many.send("complete", id="all")
            await many.send("ping")
            heard = await many.until("pong")
            script.finish(M2)
            script.begin_summary()
            script.summarise("the answer")
            script.end()
            while sum(message["type"] == "complete" for message in heard) < 2:
                heard.append(await many.get())
            by_id = {id: [one for one in heard if one.get("id") == id] for id in asked}
            log = [event.sequence_number for event in run.events_after(5)]
            assert numbers(by_id["run"]) == log
            assert text_of(by_id["run"], "m1") == "draft of m1"
            assert text_of(by_id["run"], "summary") == "the answer"
            assert [event["type"] for event in told(by_id["ends"])] == [
                "model.finished",
                "model.finished",
                "stage.finished",
                "summary.finished",
                "stage.finished",
                "run.completed",
            ]
            assert set(numbers(by_id["all"])) <= set(log[:2])
            another.socket.transport.abort()  # it has read nothing
        await until(lambda: not len(audiences))


async def test_only_those_who_may_see_the_same_share() -> None:
    runs, audiences = new_runs(), Audiences()
    script = Script(runs)
    script.begin()
    run, nothing = script.run, frozenset[str]()
    feeds: list[Feed] = [
        RunFeed(run, run.head, include=nothing, types=None),
        RunFeed(run, run.head, include=frozenset({"answer"}), types=None),
        RunFeed(run, run.head, include=frozenset({"channels"}), types=None),
        RunFeed(run, run.head, include=nothing, types=frozenset({"run.completed"})),
        of_all(runs, include=nothing),
        of_all(runs, include=nothing, conversation_id="talk"),
        TopicFeed(runs.bus.topic("key:ann"), runs, 0, include=nothing, types=None),
    ]
    ears = [Ear(audiences, feed) for feed in feeds]
    for ear in ears:
        ear.join()
    assert len({id(ear.audience) for ear in ears}) == len(feeds) == len(audiences)
    of_its_own_rhythm = Ear(audiences, RunFeed(run, run.head, include=frozenset({"progress"}), types=None))
    of_its_own_rhythm.join()
    assert of_its_own_rhythm.audience is None
    for ear in [*ears, of_its_own_rhythm]:
        ear.drop()
    assert len(audiences) == 0


async def test_who_claims_another_place_of_a_text_is_not_taken_in_and_reads_on_alone() -> None:
    runs, audiences = new_runs(), Audiences()
    script = Script(runs)
    run = script.begin()
    script.say(M1, "four")
    first = Ear(audiences, of_the_run(script))
    boaster = Ear(audiences, RunFeed(run, run.head, include=TEXT, types=None, cursors={"m1": 1000}))
    first.join()
    boaster.join()
    await turns()
    assert first.audience is not None
    assert boaster.audience is None
    script.finish(M1)
    await turns()
    boaster.pull()
    assert boaster.stored == first.stored
    assert boaster.text("m1") == (None, "")
    first.drop()
    boaster.drop()


class BrokenEar(Ear):
    def framed(self, items: list[Item], bookmark: int | None, over: bool) -> bytes:
        raise ValueError("a bug")


async def test_a_bug_costs_the_connections_and_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs, audiences = new_runs(), Audiences()
    script = Script(runs)
    script.begin()
    ears = [BrokenEar(audiences, of_the_run(script)) for _ in range(2)]
    for ear in ears:
        ear.join()
    script.finish(M1)
    await turns()
    assert all(ear.has_failed for ear in ears)
    assert len(audiences) == 0
    assert not script.run.text_watchers
    assert "an audience failed" in caplog.text
