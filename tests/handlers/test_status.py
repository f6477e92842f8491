"""The status channel as its watchers see it, through a strict websocket client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from server.errors import RunCancelled
from server.events import TEXT_TYPES, ModelRetrying, decode
from server.handlers.status import WATCHERS, close_watchers
from server.handlers.websocket import FAREWELL_S
from server.run_check import RunChecker, check_run
from server.run_log import Run
from server.settings import Runs as RunsSettings
from server.settings import Settings
from tests.schemas import check_message
from tests.scripted_runs import DRAFT, KEYS, M1, M2, Script, Site, site

EVENTS = Subprotocol("antiphon.events.v1")
KEYED = Settings(access=KEYS)


def code_of(error: ConnectionClosed) -> int:
    """With what the server closed; 1006 if without a close frame."""
    return error.rcvd.code if error.rcvd is not None else 1006


class Client:
    """A watcher. Every wait fails after ten seconds."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def get(self, type: str | None = None) -> Any:
        async with asyncio.timeout(10):
            message = json.loads(await self.socket.recv())
        check_message(message)
        assert type is None or message["type"] == type, message
        return message

    async def until(self, type: str) -> list[Any]:
        """All messages up to and with the first of this type."""
        messages = [await self.get()]
        while messages[-1]["type"] != type:
            messages.append(await self.get())
        return messages

    async def begin(self, **fields: Any) -> Any:
        await self.send("connection_init", **fields)
        return await self.get("connection_ack")

    async def subscribe(self, topic: str, id: str = "1", **fields: Any) -> Any:
        await self.send("subscribe", id=id, topic=topic, **fields)
        return await self.get("subscribed")

    async def closed(self) -> int:
        """Read on until the server closes; the code."""
        try:
            async with asyncio.timeout(10):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as error:
            return code_of(error)


@asynccontextmanager
async def client(shown: Site, key: str | None = None, **options: Any) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    protocols = options.pop("subprotocols", [EVENTS])
    address = f"ws://127.0.0.1:{shown.port}/v1/events{options.pop('query', '')}"
    async with connect(
        address, subprotocols=protocols, additional_headers=headers, proxy=None, compression=None, **options
    ) as socket:
        yield Client(socket)


@asynccontextmanager
async def watching(settings: Settings | None = None, **events: Any) -> AsyncIterator[tuple[Site, Client]]:
    async with site(settings, **events) as shown, client(shown) as watcher:
        await watcher.begin()
        yield shown, watcher


def told(messages: list[Any]) -> list[Any]:
    return [message["event"] for message in messages if message["type"] == "next"]


def numbers(messages: list[Any]) -> list[int]:
    return [event["sequence_number"] for event in told(messages) if "volatile" not in event]


def text_of(messages: list[Any], lane: str) -> str:
    """The text of a lane; each delta has to begin where the one before ended."""
    text = ""
    for event in told(messages):
        if event["type"] in TEXT_TYPES and event.get("member", {"id": "summary"})["id"] == lane:
            assert event["data"]["text_offset"] == len(text)
            text += event["data"]["text"]
    return text


def check(messages: list[Any], *, joined: bool) -> None:
    checker = RunChecker(joined=joined)
    for event in told(messages):
        decoded = decode(json.dumps(event).encode())
        assert decoded is not None
        checker.apply(decoded)
    assert checker.finish() == []


# Joining, following, coming back


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


# Who may


async def test_a_key_may_come_in_each_of_three_ways() -> None:
    coded = base64.urlsafe_b64encode(b"key-of-ann").rstrip(b"=").decode()
    bearer = Subprotocol(f"base64url.bearer.authorization.antiphon.{coded}")
    async with site(KEYED) as shown:
        async with client(shown, "key-of-ann") as watcher:
            await watcher.begin()
        async with client(shown, subprotocols=[EVENTS, bearer]) as watcher:
            assert watcher.socket.subprotocol == EVENTS
            await watcher.begin()
        async with client(shown) as watcher:
            await watcher.begin(token="key-of-ann")
        async with client(shown) as watcher:
            await watcher.send("connection_init", token="wrong")
            assert await watcher.closed() == 4401
        async with client(shown) as watcher:
            await watcher.send("connection_init")
            assert await watcher.closed() == 4401


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


async def test_a_foreign_run_is_like_an_absent_one_and_an_admin_sees_all() -> None:
    async with site(KEYED) as shown, client(shown, "key-of-bob") as bob:
        run = shown.script(Viewer("ann")).begin()
        await bob.begin()
        for id, name in (("1", run.id), ("2", "run_" + "0" * 32)):
            await bob.send("subscribe", id=id, topic=f"run:{name}")
            assert await bob.get() == {"type": "complete", "id": id, "reason": "not_found"}
        await bob.send("subscribe", id="3", topic="all")
        assert (await bob.get("error"))["code"] == "not_allowed"
        await bob.send("control", id="4", verb="cancel_run", run_id=run.id)
        assert (await bob.get("error"))["code"] == "run_not_found"
        assert not run.is_cancelled()
        assert (await bob.subscribe("self", id="5"))["snapshot"]["data"] == []
        async with client(shown, "key-of-root") as root:
            await root.begin()
            subscribed = await root.subscribe("all", include=["channels"])
            assert [one["id"] for one in subscribed["snapshot"]["data"]] == [run.id]
            await root.subscribe(f"run:{run.id}", id="2", starting_after=3, include=["channels"])
            assert (await root.get("next"))["event"]["data"] == {"channel": "secret-channel"}


class Viewer:
    def __init__(self, name: str, admin: bool = False) -> None:
        self.name = name
        self.admin = admin


async def test_connections_and_subscriptions_are_limited() -> None:
    async with watching(max_connections=1, max_subscriptions=2) as (shown, watcher):
        async with client(shown) as second:
            await second.send("connection_init")
            assert await second.closed() == 4429
        for id in ("1", "2"):
            await watcher.subscribe("self", id=id)
        await watcher.send("subscribe", id="3", topic="self")
        assert (await watcher.get("error"))["code"] == "too_many_subscriptions"
        await watcher.send("complete", id="1")
        await watcher.subscribe("self", id="3")


async def test_a_conversation_is_a_topic_of_its_own_key() -> None:
    ann, bob = Viewer("ann"), Viewer("bob")
    async with site(KEYED) as shown, client(shown, "key-of-ann") as watcher:
        await watcher.begin()
        early = shown.script(ann, conversation_id="c1")
        early.begin()
        subscribed = await watcher.subscribe("conversation:c1", include=["drafts"])
        assert [one["id"] for one in subscribed["snapshot"]["data"]] == [early.run.id]
        others = [shown.script(ann), shown.script(ann, conversation_id="c2")]
        others.append(shown.script(bob, conversation_id="c1"))
        for other in others:
            other.begin()
            other.say(M1, "not for this watcher")
            other.run.close()
        late = shown.script(ann, conversation_id="c1")
        late.whole()
        early.run.close()
        seen: list[Any] = []
        while not seen or seen[-1]["run_id"] != early.run.id or seen[-1]["type"] != "run.failed":
            message = await watcher.get()
            seen += [message["event"]] if message["type"] == "next" else []
        assert {event["run_id"] for event in seen} == {early.run.id, late.run.id}
        assert {event["conversation_id"] for event in seen} == {"c1"}


# Control


async def carry_out(run: Run, started: asyncio.Event) -> str:
    try:
        with run.scope():
            started.set()
            await asyncio.Event().wait()
    except RunCancelled as error:
        return error.code
    return "not cancelled"


async def test_cancel_run_is_answered_once_it_took_effect_and_is_idempotent() -> None:
    async with watching() as (shown, watcher), asyncio.TaskGroup() as group:
        run = shown.script().begin()
        started = asyncio.Event()
        task = group.create_task(carry_out(run, started))
        await started.wait()
        await watcher.send("control", id="c", verb="cancel_run", run_id=run.id)
        result = await watcher.get("result")
        assert (result["id"], result["effect"], result["status"]) == ("c", True, "cancelled")
        assert await task == "run_cancelled"
        await watcher.send("control", id="d", verb="cancel_run", run_id=run.id)
        assert (await watcher.get("result"))["effect"] is False
        events = run.events_after(0)
        assert [event.type for event in events[5:]] == [
            "run.control",
            "model.cancelled",
            "model.cancelled",
            "stage.finished",
            "run.cancelled",
        ]
        assert check_run(events) == []


async def test_a_command_that_cannot_be_carried_out_is_refused_and_the_connection_lives() -> None:
    async with watching() as (shown, watcher):
        run = shown.script().begin()
        await watcher.send("control", id="c", verb="cancel_member", run_id=run.id)
        refused = await watcher.get("error")
        assert (refused["id"], refused["code"]) == ("c", "invalid_value")
        await watcher.send("control", id="d", verb="cancel_member", run_id=run.id, member="m9")
        assert (await watcher.get("error"))["code"] == "member_not_found"
        await watcher.send("control", id="e", verb="cancel_member", run_id=run.id, member="m1")
        assert (await watcher.get("result"))["effect"] is False
        await watcher.send("control", id="f", verb="answer_now", run_id=run.id)
        result = await watcher.get("result")
        assert (result["effect"], result["status"]) == (False, "in_progress")
        run.close()


# Closing


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (['{"type":"subscribe","id":"1","topic":"self"}'], 4400),
        (['{"type":"connection_init"}', '{"type":"connection_init"}'], 4400),
        (['{"type":"connection_init"}', '{"type":"fly"}'], 4400),
        (['{"type":"connection_init"}', "[]"], 4400),
        (['{"type":"connection_init"}', '{"type":"subscribe","id":1,"topic":"self"}'], 4400),
        (['{"type":"connection_init"}', '{"type":"control","id":"1","verb":"fly","run_id":"x"}'], 4400),
        (['{"type":"connection_init"}', *['{"type":"subscribe","id":"1","topic":"self"}'] * 2], 4409),
        (['{"type":"connection_init"}', *['{"type":"ping"}'] * 300], 4429),
        (['{"type":"connection_init"}', '{"type":"refresh","token":"x"}', '{"type":"nonsense"}'], 4400),
        (["[" * 30000], 4400),
    ],
)
async def test_each_misuse_has_its_close_code(messages: list[str], code: int) -> None:
    async with site() as shown, client(shown) as watcher:
        try:
            for message in messages:
                await watcher.socket.send(message)
        except ConnectionClosed:
            pass
        assert await watcher.closed() == code


async def test_a_pong_that_comes_before_the_clock_ticks_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    fine = loop.time
    monkeypatch.setattr(loop, "time", lambda: fine() // 0.05 * 0.05)  # as uvloop's, but more
    async with watching(idle_ping_s=0.3, ping_s=0.3, pong_timeout_s=0.1) as (_, watcher):
        for _ in range(4):
            await watcher.get("ping")
            await watcher.send("pong")


async def test_without_the_subprotocol_without_init_or_without_a_pong_it_is_closed() -> None:
    async with site(init_timeout_s=0.05, idle_ping_s=0.1, pong_timeout_s=0.1) as shown:
        async with client(shown, subprotocols=None) as watcher:
            assert await watcher.closed() == 4406
        async with client(shown) as watcher:
            assert await watcher.closed() == 4408
        async with client(shown) as watcher:
            await watcher.begin()
            await watcher.get("ping")
            assert await watcher.closed() == 4408


async def test_who_answers_pings_stays() -> None:
    async with watching(idle_ping_s=0.05, pong_timeout_s=0.3, ping_s=0.05) as (_, watcher):
        for _ in range(12):
            await watcher.get("ping")
            await watcher.send("pong")


async def test_mistakes_in_a_subscription_are_told_and_the_connection_lives_on() -> None:
    async with watching() as (_, watcher):
        mistakes: list[dict[str, Any]] = [
            {"topic": "weather"},
            {"topic": "self", "types": ["no.such"]},
            {"topic": "self", "include": ["all"]},
        ]
        for at, wrong in enumerate(mistakes):
            await watcher.send("subscribe", id=str(at), **wrong)
            error = await watcher.get("error")
            assert (error["id"], error["retryable"]) == (str(at), False)
        await watcher.send("ping")
        await watcher.get("pong")


async def test_a_watcher_that_does_not_read_is_cut_off_and_the_run_goes_on() -> None:
    async with watching(outbox_events=50) as (shown, watcher):
        script = shown.script()
        run = script.begin()
        await watcher.subscribe(f"run:{run.id}")
        watcher.socket.transport.pause_reading()
        blob = "x" * 20_000
        while len(shown.app[WATCHERS]) == 1:
            run.tell(ModelRetrying(blob, 500, 1, 2, True), stage=DRAFT, member=M1)
            await asyncio.sleep(0)
        assert not run.ended
        # It may be away for longer than others have for the closing handshake, and still learns why.
        await asyncio.sleep(FAREWELL_S + 0.2)
        watcher.socket.transport.resume_reading()
        assert await watcher.closed() == 1013


async def test_who_brings_no_key_and_cannot_bring_one_later_is_refused_in_the_handshake() -> None:
    async with site(KEYED) as shown:
        with pytest.raises(InvalidStatus) as refused:
            async with client(shown, subprotocols=None):
                pass
        assert refused.value.response.status_code == 401
        assert b'"missing_api_key"' in (refused.value.response.body or b"")
        async with client(shown, "key-of-ann", subprotocols=None) as watcher:
            assert await watcher.closed() == 4406
        async with client(shown) as watcher:
            await watcher.begin(token="key-of-ann")


async def test_at_shutdown_watchers_are_told_to_come_back_and_closed() -> None:
    async with watching() as (shown, watcher):
        await close_watchers(shown.app)
        goaway = await watcher.get("goaway")
        assert goaway["reason"] == "shutdown"
        assert goaway["reconnect_after_ms"] >= 1000
        assert await watcher.closed() == 1001


async def test_a_watcher_that_leaves_abruptly_leaves_nothing_behind() -> None:
    async with site() as shown:
        run = shown.script().begin()
        async with client(shown) as watcher:
            await watcher.begin()
            await watcher.subscribe(f"run:{run.id}", include=["drafts"])
            await watcher.subscribe("self", id="2", include=["drafts"])
            watcher.socket.transport.abort()
        async with asyncio.timeout(10):
            while len(shown.app[WATCHERS]):  # noqa: ASYNC110  # the server tells nobody of it
                await asyncio.sleep(0.001)
        assert not run.sleepers.asleep
        assert not run.text_naps().asleep
        Script.say(ScriptOf(run), M1, "the run goes on")


class ScriptOf(Script):
    def __init__(self, run: Run) -> None:
        self.run = run


# Nonsense

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["subscribe", "control", "complete", "ping", "pong", "refresh", "connection_init"]
        )
    },
    optional={
        "id": st.sampled_from(["1", "2", ""]) | JSON,
        "topic": st.sampled_from(["self", "all", "run:", "run:x"]) | JSON,
        "types": st.lists(st.sampled_from(["*", "model.*", "***", "run.failed"]), max_size=3) | JSON,
        "include": st.lists(st.sampled_from(["answer", "drafts", "progress", "channels"])) | JSON,
        "starting_after": st.integers() | JSON,
        "cursors": st.dictionaries(st.sampled_from(["m1", "m1:reasoning", ":"]), st.integers()) | JSON,
        "offset": st.sampled_from(["0", "5", "x", "-1"]) | JSON,
        "verb": st.sampled_from(["cancel_run", "cancel_member", "answer_now"]) | JSON,
        "run_id": st.text(max_size=40) | JSON,
        "token": JSON,
    },
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=st.lists(FIELDS.map(json.dumps) | st.text(max_size=40) | st.binary(max_size=40), max_size=8))
def test_nonsense_costs_one_connection_and_never_the_server(sent: list[str | bytes]) -> None:
    codes: list[int] = []

    async def throw() -> None:
        async with site() as shown:
            shown.script().whole()
            async with client(shown) as watcher:
                await watcher.begin()
                try:
                    for message in sent:
                        await watcher.socket.send(message)
                    await watcher.send("complete", id="none")
                    await watcher.send("ping")
                    await watcher.until("pong")
                except ConnectionClosed as error:
                    codes.append(code_of(error))
            async with client(shown) as watcher:
                await watcher.begin()

    asyncio.run(throw())
    assert set(codes) <= {4400, 4401, 4403, 4409, 4429}
