"""Watchers of the status channel who join, follow, come back, or wait for a run that has not begun."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.events import ModelRetrying, decode
from server.run_check import check_run
from server.settings import Runs as RunsSettings
from server.settings import Settings
from tests.handlers.status_client import KEYED, Viewer, check, client, numbers, text_of, told, watching
from tests.scripted_runs import DRAFT, M1, M2, site


async def test_a_watcher_gets_the_snapshot_then_all_that_follows_and_the_end() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        subscribed = await watcher.subscribe(f"run:{run.id}")
        assert (subscribed["head"], subscribed["recovered"], subscribed["was_recovering"]) == (
            5,
            False,
            False,
        )
        snapshot = subscribed["snapshot"]
        assert (snapshot["object"], snapshot["id"], snapshot["head"]) == ("run", run.id, 5)
        assert [member["state"] for member in snapshot["members"]] == ["started", "started"]
        for member in (M1, M2):
            script.say(member, "text that nobody asked to see")
            script.finish(member)
        script.begin_summary()
        script.summarise("nor this")
        script.end()
        messages = await watcher.until("complete")
        assert messages[-1] == {"type": "complete", "id": "1", "reason": "run_ended"}
        assert numbers(messages) == list(range(6, run.head + 1))
        assert "text that" not in json.dumps(messages)
        assert "secret-channel" not in json.dumps(messages)
        check(messages, joined=True)


async def test_text_is_joined_and_complete_before_its_member_ends() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        script.say(M1, "Häll")
        subscribed = await watcher.subscribe(f"run:{run.id}", include=["drafts", "answer"])
        assert subscribed["snapshot"]["members"][0]["text"] == "Häll"
        for piece in ("o ", "wörld", " 🎉"):
            script.say(M1, piece)
        script.finish(M1)
        for count in range(100):
            script.say(M2, f"{count} ")
            if count % 10 == 0:
                await asyncio.sleep(0)
        script.finish(M2)
        script.begin_summary()
        script.summarise("the ")
        script.summarise("answer")
        script.end()
        messages = await watcher.until("complete")
        assert (
            "Häll"
            + "".join(
                event["data"]["text"]
                for event in told(messages)
                if event["type"] == "model.delta" and event["member"]["id"] == "m1"
            )
            == "Hällo wörld 🎉"
        )
        assert text_of(messages, "m2") == "".join(f"{count} " for count in range(100))
        assert text_of(messages, "summary") == "the answer"
        types = [(event["type"], event.get("member", {}).get("id")) for event in told(messages)]
        assert max(at for at, one in enumerate(types) if one == ("model.delta", "m1")) < types.index(
            ("model.finished", "m1")
        )
        check(messages, joined=True)


async def test_watchers_of_one_run_are_sent_the_same_bytes_shared_or_alone() -> None:
    async with watching() as (shown, first), client(shown) as second, client(shown) as alone:
        script = shown.script()
        topic = f"run:{script.begin().id}"
        for watcher in (second, alone):
            await watcher.begin()
        for watcher in (first, second, alone):
            await watcher.subscribe(topic, include=["drafts", "answer"])
        await alone.subscribe("conversation:silent", id="2")  # two subscriptions have a writer of their own
        script.say(M1, "text ")
        await asyncio.sleep(0.1)
        script.say(M1, "and more")
        script.finish(M1)
        script.begin_summary()
        script.summarise("the answer")
        script.end()
        frames: list[list[str | bytes]] = []
        for watcher in (first, second, alone):
            frames.append([])
            while not frames[-1] or '"type":"complete"' not in str(frames[-1][-1]):
                async with asyncio.timeout(10):
                    frames[-1].append(await watcher.socket.recv())
        assert frames[0] == frames[1]
        stored = [[one for one in told if '"volatile"' not in str(one)] for told in frames]
        assert stored[0] == stored[2]
        texts = [text_of([json.loads(one) for one in told], "m1") for told in frames]
        assert texts == ["text and more"] * 3


async def test_answer_opens_only_the_answer() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        await watcher.subscribe(f"run:{run.id}", include=["answer"])
        script.say(M1, "hidden draft")
        script.finish(M1)
        script.say(M2, "chosen")
        script.run.lane("m2").answer = True  # the winner is known late
        script.say(M2, " draft")
        script.finish(M2)
        script.begin_summary()
        script.end()
        messages = await watcher.until("complete")
        assert text_of(messages, "m1") == ""
        assert text_of(messages, "m2") == "chosen draft"


async def test_a_watcher_resumes_without_gap_or_double() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        script.say(M1, "0123456789")
        epoch = shown.runs.bus.epoch
        subscribed = await watcher.subscribe(
            f"run:{run.id}", starting_after=3, epoch=epoch, include=["drafts"], cursors={"m1": 4}
        )
        assert (subscribed["recovered"], subscribed["was_recovering"]) == (True, True)
        assert "snapshot" not in subscribed
        script.finish(M1)
        script.finish(M2)
        script.begin_summary()
        script.end()
        messages = await watcher.until("complete")
        assert numbers(messages) == list(range(4, run.head + 1))
        deltas = [event["data"] for event in told(messages) if event["type"] == "model.delta"]
        assert deltas == [{"kind": "text", "text": "456789", "text_offset": 4}]


@pytest.mark.parametrize(
    "place", [{"starting_after": 2}, {"starting_after": 99}, {"starting_after": 9, "epoch": "x"}]
)
async def test_what_cannot_be_resumed_whole_begins_anew(place: dict[str, Any]) -> None:
    async with watching(Settings(runs=RunsSettings(max_events=8))) as (shown, watcher):
        run = shown.script().whole()
        subscribed = await watcher.subscribe(f"run:{run.id}", **place)
        assert (subscribed["recovered"], subscribed["was_recovering"]) == (False, True)
        assert subscribed["snapshot"]["status"] == "completed"
        assert (await watcher.get("complete"))["reason"] == "run_ended"


async def test_a_topic_tells_of_every_run_and_is_resumed_by_offset() -> None:
    async with watching() as (shown, watcher):
        before = shown.script().begin()
        subscribed = await watcher.subscribe("self")
        assert [run["id"] for run in subscribed["snapshot"]["data"]] == [before.id]
        run = shown.script().whole()
        messages = [await watcher.get("next") for _ in range(run.head)]
        assert numbers(messages) == list(range(1, run.head + 1))
        assert check_run(decode(json.dumps(event).encode()) for event in told(messages)) == []  # type: ignore[misc]
        async with client(shown) as again:
            ack = await again.begin()
            offset = messages[4]["offset"]
            resumed = await again.subscribe("all", offset=offset, epoch=ack["epoch"])
            assert resumed["recovered"] is True
            rest = [await again.get("next") for _ in range(run.head - 5)]
            assert numbers(rest) == list(range(6, run.head + 1))
            anew = await again.subscribe("all", id="2", offset=offset, epoch="another")
            assert (anew["recovered"], anew["was_recovering"]) == (False, True)


async def test_a_topic_carries_text_of_each_run() -> None:
    async with watching() as (shown, watcher):
        await watcher.subscribe("self", include=["drafts", "answer"])
        script = shown.script()
        script.begin()
        messages = [await watcher.get("next")]
        for member in (M1, M2):
            script.say(member, f"draft of {member.id}")
            script.finish(member)
        script.begin_summary()
        script.summarise("the answer")
        script.end()
        while "run.completed" not in [event["type"] for event in told(messages)]:
            messages.append(await watcher.get("next"))
        assert text_of(messages, "m1") == "draft of m1"
        assert text_of(messages, "m2") == "draft of m2"
        assert text_of(messages, "summary") == "the answer"


async def test_types_are_chosen_at_the_server_and_a_bookmark_tells_the_place() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        await watcher.subscribe(f"run:{run.id}", types=["*.finished", "run.completed"])
        for member in (M1, M2):
            script.say(member, "x")
            script.finish(member)
        types = {event["type"] for event in told([await watcher.get(), await watcher.get()])}
        assert types == {"model.finished"}
        script.run.tell(ModelRetrying("x", 500, 1, 2, True), stage=DRAFT, member=M1)
        bookmark = await watcher.get("bookmark")  # five seconds later
        assert bookmark["offset"] == str(run.head)


async def test_progress_is_told_without_text() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        await watcher.subscribe(f"run:{run.id}", include=["progress"])
        script.say(M1, "x" * 100)
        messages = await watcher.until("next")
        while told(messages)[-1]["type"] != "model.progress":
            messages += await watcher.until("next")
        progress = told(messages)[-1]
        assert progress["volatile"] is True
        assert progress["data"] == {"chars": 100, "tokens_estimated": 25}
        assert "xxx" not in json.dumps(messages)


@pytest.mark.parametrize("late", [False, True])
async def test_of_a_member_that_has_ended_no_progress_is_told(late: bool) -> None:
    """A watcher that counts by progress would go back from the exact number to an estimate."""
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        if not late:
            await watcher.subscribe(f"run:{run.id}", include=["progress"])
        script.say(M1, "x" * 100)
        script.finish(M1)
        if late:
            await watcher.subscribe(f"run:{run.id}", include=["progress"])
        script.say(M2, "y" * 100)
        messages = await watcher.until("next")
        while told(messages)[-1]["type"] != "model.progress":
            messages += await watcher.until("next")
        progress = [event for event in told(messages) if event["type"] == "model.progress"]
        assert [event["member"]["id"] for event in progress] == ["m2"]


RUN_ID = "run_" + "a" * 32


async def test_a_run_is_subscribed_to_before_it_begins_and_nothing_is_missed() -> None:
    async with watching() as (shown, watcher):
        await watcher.send(
            "subscribe", id="1", topic=f"run:{RUN_ID}", wait=True, include=["answer", "drafts"]
        )
        await watcher.send("ping")
        await watcher.get("pong")
        run = shown.script(run_id=RUN_ID).whole()
        subscribed = await watcher.get("subscribed")
        assert (subscribed["id"], subscribed["recovered"]) == ("1", True)
        messages = await watcher.until("complete")
        assert numbers(messages) == list(range(1, run.head + 1))
        assert text_of(messages, "summary") == "the answer"
        check(messages, joined=False)
        late = await watcher.subscribe(f"run:{RUN_ID}", wait=True)
        assert late["recovered"]
        assert numbers(await watcher.until("complete")) == list(range(1, run.head + 1))


async def test_a_run_that_does_not_begin_is_not_found_after_a_while() -> None:
    async with watching(expect_s=0.05) as (shown, watcher):
        await watcher.send("subscribe", id="1", topic=f"run:{RUN_ID}", wait=True)
        assert await watcher.get() == {"type": "complete", "id": "1", "reason": "not_found"}
        shown.script(run_id=RUN_ID).whole()
        await watcher.send("ping")
        await watcher.get("pong")
        await watcher.subscribe(f"run:{RUN_ID}", wait=True, starting_after=0)
        assert numbers(await watcher.until("complete"))[0] == 1


async def test_a_run_of_somebody_else_is_not_the_one_that_is_waited_for() -> None:
    async with site(KEYED, expect_s=0.3) as shown, client(shown, "key-of-bob") as bob:
        await bob.begin()
        begun = shown.script(Viewer("ann")).begin()
        await bob.send("subscribe", id="1", topic=f"run:{RUN_ID}", wait=True)
        await bob.send("subscribe", id="2", topic=f"run:{begun.id}", wait=True)
        await bob.send("ping")
        await bob.get("pong")
        shown.script(Viewer("ann"), run_id=RUN_ID).whole()
        for id in ("1", "2"):
            assert await bob.get() == {"type": "complete", "id": id, "reason": "not_found"}


async def test_who_waits_for_a_run_may_give_up_and_its_id_is_free_again() -> None:
    async with watching(max_subscriptions=1) as (_, watcher):
        await watcher.send("subscribe", id="1", topic=f"run:{RUN_ID}", wait=True)
        await watcher.send("subscribe", id="2", topic="self")
        assert (await watcher.get("error"))["code"] == "too_many_subscriptions"
        await watcher.send("complete", id="1")
        await watcher.subscribe("self", id="1")
        await watcher.send("complete", id="1")
        await watcher.send("subscribe", id="1", topic=f"run:{RUN_ID}", wait=True)
        await watcher.send("subscribe", id="1", topic="self")
        assert await watcher.closed() == 4409
