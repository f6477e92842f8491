"""The client of the status channel: against the server, and against one that does what servers seldom do."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from server.cli.refusals import CannotWatch
from server.cli.watching import Happened, Heard, Notice, Pace, Snapshot, StatusClient
from server.handlers.status import WATCHERS
from server.settings import Runs, Settings
from tests.cli.talking import Line, hear, refuse_with, talking
from tests.cli.told import RUN, event_json
from tests.scripted_runs import KEYS, M1, M2, site

KEEPING = Settings(runs=Runs(keep_text=True))
AT_ONCE = Pace(first_s=0.001, most_s=0.001)


def types(heard: list[Heard]) -> list[str]:
    return [one.event.type for one in heard if isinstance(one, Happened) and one.event is not None]


def ends(heard: Heard) -> bool:
    return isinstance(heard, Happened) and heard.event is not None and heard.event.data.terminal


def text_of(heard: list[Heard]) -> str:
    deltas = [one.event.data for one in heard if isinstance(one, Happened) and one.event is not None]
    return "".join(getattr(data, "text", "") for data in deltas)


# The real server


async def test_a_run_is_heard_from_its_first_event_even_after_its_end() -> None:
    async with site() as shown:
        run = shown.script().whole()
        heard = await hear(StatusClient(f"http://127.0.0.1:{shown.port}", topic=f"run:{run.id}"))
    assert types(heard)[0] == "run.created"
    assert types(heard)[-1] == "run.completed"
    assert len(types(heard)) == run.head


async def test_without_a_topic_an_open_server_shows_all_runs() -> None:
    async with site(KEEPING) as shown:
        client = StatusClient(f"127.0.0.1:{shown.port}", include=("answer",))

        def tell(heard: Heard) -> bool:
            if isinstance(heard, Snapshot):
                shown.script().whole()
            return ends(heard)

        heard = await hear(client, tell)
    assert client.topic == "all"
    assert heard[0] == Snapshot((), gone=False)
    assert text_of(heard) == "the answer"


async def test_a_key_that_is_no_admins_watches_its_own_runs() -> None:
    async with site(Settings(access=KEYS)) as shown:
        client = StatusClient(f"http://127.0.0.1:{shown.port}/v1/", key="key-of-ann")
        await hear(client, lambda heard: isinstance(heard, Snapshot))
    assert client.topic == "self"


async def test_who_asks_for_all_runs_without_being_an_admin_is_refused() -> None:
    async with site(Settings(access=KEYS)) as shown:
        client = StatusClient(f"http://127.0.0.1:{shown.port}", key="key-of-ann", topic="all")
        with pytest.raises(CannotWatch, match="refuses: Only an admin"):
            await hear(client)


@pytest.mark.parametrize("key", [None, "no-such-key"])
async def test_a_missing_or_wrong_key_is_named_and_never_shown(key: str | None) -> None:
    async with site(Settings(access=KEYS)) as shown:
        with pytest.raises(
            CannotWatch, match="needs a key: give --key, or better set ANTIPHON_KEY"
        ) as refused:
            await hear(StatusClient(f"http://127.0.0.1:{shown.port}", key=key))
    assert "no-such-key" not in str(refused.value)


async def test_an_unknown_run_is_named() -> None:
    async with site() as shown:
        with pytest.raises(CannotWatch, match=f"No run {RUN} at http://127.0.0.1"):
            await hear(StatusClient(f"http://127.0.0.1:{shown.port}", topic=f"run:{RUN}"))


async def test_a_topic_that_there_is_not_is_refused_with_the_servers_words() -> None:
    async with site() as shown:
        with pytest.raises(CannotWatch, match="refuses: Topics are"):
            await hear(StatusClient(f"http://127.0.0.1:{shown.port}", topic="weather"))


async def test_after_each_cut_the_rest_is_heard_and_nothing_twice() -> None:
    async with site(KEEPING) as shown:
        script = shown.script()
        run = script.begin()
        client = StatusClient(
            f"http://127.0.0.1:{shown.port}", topic=f"run:{run.id}", include=("answer",), pace=AT_ONCE
        )
        heard: list[Heard] = []

        def step(one: Heard) -> bool:
            heard.append(one)
            if types([one]) == ["model.started"] and len(types(heard)) == run.head:
                cut(shown.app)
                for member in (M1, M2):
                    script.say(member, "draft")
                    script.finish(member)
                script.begin_summary()
                script.summarise("both ")
            elif text_of([one]) == "both ":
                cut(shown.app)
                script.summarise("agree")
                script.end()
            return False

        await hear(client, step)
        assert text_of(heard) == "both agree"
        stored = [one.event.sequence_number for one in heard if is_stored(one)]  # type: ignore[union-attr]
        assert stored == list(range(1, run.head + 1))
        assert [one.text for one in heard if isinstance(one, Notice) and one.connected] == [
            "connected again"
        ] * 2


def cut(app: Any) -> None:
    """Send every watcher away, as a server does that goes."""
    for watcher in list(app[WATCHERS]._by_watcher):
        watcher._socket.abort()


def is_stored(heard: Heard) -> bool:
    return isinstance(heard, Happened) and heard.event is not None and not heard.event.volatile


# A server that is told what to do


async def test_a_topic_is_resumed_at_the_last_place_that_was_told() -> None:
    async def first(line: Line) -> None:
        asked = await line.welcome()
        assert "offset" not in asked
        assert asked["include"] == ["progress"]
        await line.tell(1, "8")
        await line.say("bookmark", id="1", offset="12")
        await line.close(1013, "slow_consumer")

    async def second(line: Line) -> None:
        asked = await line.welcome(head="99", recovered=True, was_recovering=True)
        assert (asked["offset"], asked["epoch"]) == ("12", "e1")
        await line.tell(2, "13")

    async with talking(first, second) as url:
        client = StatusClient(url, include=("progress",), pace=AT_ONCE)
        heard = await hear(
            client, lambda one: isinstance(one, Happened) and b'"sequence_number": 2' in one.json
        )
    assert [one for one in heard if not isinstance(one, Happened)] == [
        Snapshot((), gone=False),
        Notice("the server closed the connection with 1013 (slow_consumer); coming back", connected=False),
        Notice("connected again"),
    ]


async def test_a_server_that_cannot_tell_what_was_missed_is_believed() -> None:
    async def first(line: Line) -> None:
        await line.welcome()
        await line.say("goaway", reason="restart", reconnect_after_ms=1)

    async def second(line: Line) -> None:
        await line.welcome(
            epoch="e2", was_recovering=True, snapshot={"object": "list", "data": [{"id": "x"}]}
        )

    async with talking(first, second) as url:
        client = StatusClient(url, pace=AT_ONCE)
        heard = await hear(client, lambda one: isinstance(one, Snapshot) and one.gone)
    assert heard[-1] == Snapshot(({"id": "x"},), gone=True)


async def test_a_run_is_resumed_by_number_and_with_what_is_had_of_its_texts() -> None:
    events = [
        event_json("run.created", 1, 0, {"response_id": "c", "model": "m", "strategy": "s", "stream": True}),
        {
            **event_json("summary.delta", 1, 5, {"kind": "text", "text": "Grüße", "text_offset": 3}),
            "volatile": True,
        },
    ]

    async def first(line: Line) -> None:
        asked = await line.welcome(head=1, recovered=True, was_recovering=True)
        assert asked["starting_after"] == 0
        assert not {"epoch", "cursors"} & set(asked)
        for one in events:
            await line.say("next", id="1", event=one)
        await line.close(1011)

    async def second(line: Line) -> None:
        asked = await line.welcome(head=1, recovered=True, was_recovering=True)
        assert (asked["starting_after"], asked["epoch"], asked["cursors"]) == (1, "e1", {"summary": 8})
        await line.say("complete", id="1", reason="run_ended")

    async with talking(first, second) as url:
        heard = await hear(StatusClient(url, topic=f"run:{RUN}", pace=AT_ONCE))
    assert types(heard) == ["run.created", "summary.delta"]


async def test_a_run_that_the_restarted_server_does_not_know_ends_the_watch() -> None:
    async def first(line: Line) -> None:
        await line.welcome(head=1, recovered=True)
        await line.close(1012)

    async def second(line: Line) -> None:
        await line.get("connection_init")
        await line.say("connection_ack", epoch="e2")
        await line.get("subscribe")
        await line.say("complete", id="1", reason="not_found")

    async with talking(first, second) as url:
        with pytest.raises(CannotWatch, match="no longer knows the run"):
            await hear(StatusClient(url, topic=f"run:{RUN}", pace=AT_ONCE))


async def test_pings_are_answered() -> None:
    async def talk(line: Line) -> None:
        await line.get("connection_init")
        await line.say("ping")
        await line.get("pong")
        await line.say("connection_ack", epoch="e")
        await line.get("subscribe")
        await line.say("subscribed", id="1", head="0")
        await line.say("ping")
        await line.get("pong")
        await line.tell(1)

    async with talking(talk) as url:
        await hear(StatusClient(url), lambda one: isinstance(one, Happened))


async def test_events_and_messages_of_a_later_version_are_passed_over() -> None:
    async def talk(line: Line) -> None:
        await line.welcome(colour="red")
        await line.say("weather", sun=True)
        await line.tell(1, "1", type="run.dreamt", data={"of": "sheep"})
        await line.tell(2, "2", mood="new")

    async with talking(talk) as url:
        heard = await hear(StatusClient(url), lambda one: isinstance(one, Happened) and one.event is not None)
    assert isinstance(heard[1], Happened)
    assert heard[1].event is None
    assert b"run.dreamt" in heard[1].json


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type":"next","id":"1","event":{"type":"x"}}', b"\xff"])
async def test_what_is_not_the_protocol_ends_the_watch(text: str | bytes) -> None:
    async def talk(line: Line) -> None:
        await line.welcome()
        await line.raw(text)

    async with talking(talk) as url:
        with pytest.raises(CannotWatch):
            await hear(StatusClient(url))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4401, "needs a key: .* (expired)"),
        (4403, "does not allow this"),
        (4400, "did not understand"),
        (4406, "does not speak antiphon.events.v1"),
        (1009, "message too large"),
    ],
)
async def test_some_closes_are_final(code: int, words: str) -> None:
    async def talk(line: Line) -> None:
        await line.welcome()
        await line.close(code, "expired")

    async with talking(talk) as url:
        with pytest.raises(CannotWatch, match=words.replace("(", r"\(").replace(")", r"\)")):
            await hear(StatusClient(url))


@pytest.mark.parametrize("reason", ["revoked", "expired"])
async def test_a_key_that_is_taken_back_ends_the_watch(reason: str) -> None:
    async def talk(line: Line) -> None:
        await line.welcome()
        await line.say("complete", id="1", reason=reason)

    async with talking(talk) as url:
        with pytest.raises(CannotWatch, match=f"no longer good .*{reason}"):
            await hear(StatusClient(url))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"error":{"code":"expired_api_key"}}', r"needs a key: .* \(expired_api_key\)\.$"),
        (401, b'{"error":{"code":"\x1b[2J"}}', r"needs a key: give --key, or better set ANTIPHON_KEY\.$"),
        (403, b"[]", r"does not allow this\.$"),
        (404, b"", "answers 404: is it an Antiphon server"),
    ],
)
async def test_a_refused_handshake_says_why(status: int, body: bytes, words: str) -> None:
    async def never(line: Line) -> None:
        raise AssertionError

    server = await refuse_with(status, never, body)
    port = next(iter(server.sockets)).getsockname()[1]
    async with server:
        with pytest.raises(CannotWatch, match=words):
            await hear(StatusClient(f"http://127.0.0.1:{port}"))


async def test_a_server_that_is_busy_is_tried_again() -> None:
    async def welcome(line: Line) -> None:
        await line.welcome()

    server = await refuse_with(503, welcome)
    port = next(iter(server.sockets)).getsockname()[1]
    async with server:
        client = StatusClient(f"http://127.0.0.1:{port}", pace=AT_ONCE)
        heard = await hear(client, lambda one: isinstance(one, Snapshot))
    assert heard[0] == Notice("the server answers 503; coming back", connected=False)


async def test_where_there_is_no_server_it_says_how_to_start_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(CannotWatch, match=f"No server at {address}; start one with 'make run'"):
        await hear(StatusClient(address))


async def test_what_does_not_speak_http_is_no_server() -> None:
    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(garble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CannotWatch, match="does not speak HTTP"):
            await hear(StatusClient(f"http://127.0.0.1:{port}"))


async def test_a_server_that_has_gone_is_awaited() -> None:
    async def leave(line: Line) -> None:
        await line.welcome()
        await line.close(1001)

    heard: list[Heard] = []
    async with asyncio.timeout(20):
        async with talking(leave) as url:
            listening = StatusClient(url, pace=AT_ONCE).listen()
            heard.append(await anext(listening))
        heard.append(await anext(listening))
        port = int(url.rpartition(":")[2])
        async with aclosing(listening):
            waiting = asyncio.ensure_future(anext(listening))
            await asyncio.wait({waiting}, timeout=0.05)
            assert not waiting.done()

            async def welcome(connection: ServerConnection) -> None:
                await Line(connection, 0).welcome()
                await connection.wait_closed()

            async with serve(
                welcome, "127.0.0.1", port, subprotocols=[Subprotocol("antiphon.events.v1")], reuse_port=True
            ):
                assert await waiting == Notice("connected again")
                assert await anext(listening) == Snapshot((), gone=True)


def test_waits_grow_up_to_a_bound_and_are_never_the_same_for_all() -> None:
    pace = Pace(first_s=1, most_s=10)
    for tries, longest in ((1, 1), (2, 2), (3, 4), (5, 10), (5000, 10)):
        waits = {pace.wait_s(tries) for _ in range(20)}
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(waits) > 1
