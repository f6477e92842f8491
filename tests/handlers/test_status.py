"""The status channel as its watchers see it: control, closing, misuse, and watchers who leave."""

from __future__ import annotations

import asyncio
import json
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from server.errors import RunCancelled
from server.events import ModelRetrying
from server.handlers.status import WATCHERS, close_watchers
from server.handlers.status_texts import PROGRESS_S
from server.handlers.websocket import FAREWELL_S
from server.run_check import check_run
from server.run_log import Run
from tests.handlers.status_client import client, code_of, numbers, told, watching
from tests.scripted_runs import DRAFT, M1, Script, site

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


async def test_a_slow_line_is_told_how_much_progress_it_missed_and_misses_nothing_else() -> None:
    async with watching() as (shown, watcher):
        script = shown.script()
        run = script.begin()
        await watcher.subscribe(f"run:{run.id}", include=["drafts", "progress"])
        script.say(M1, "first ")
        assert (await watcher.until("next"))[-1]["event"]["type"] == "model.first_token"
        watcher.socket.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, 65_536)
        watcher.socket.transport.pause_reading()
        loop = asyncio.get_running_loop()
        until, said = loop.time() + 4 * PROGRESS_S, len("first ")
        while loop.time() < until:
            script.say(M1, "x" * 8_000)
            said += 8_000
            await asyncio.sleep(0.02)
        script.finish(M1)
        watcher.socket.transport.resume_reading()
        messages = await watcher.until("lagged")
        lagged = messages[-1]
        assert (lagged["volatile_only"], lagged["dropped"] >= 1) == (True, True)
        while messages[-1].get("event", {}).get("type") != "model.finished":
            messages.append(await watcher.get())
        texts = [one["data"]["text"] for one in told(messages) if one["type"] == "model.delta"]
        assert sum(map(len, texts)) == said
        heads = numbers(messages)
        assert heads == list(range(heads[0], heads[0] + len(heads)))
        run.close()


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
