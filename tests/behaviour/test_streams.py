"""How a stream looks from its first byte to its last, and to a reader that is slow."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import msgspec
import pytest

from server.settings import Combination, Member, Server, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    data_lines,
    error_of,
    post,
    text_of,
)
from tests.behaviour.running import QUIET, ask, channel
from tests.raw_http import PATIENCE_S, RawClient


def settings(sim: OpenAISimulator, **server: Any) -> Settings:
    patient = {"connect_s": 5, "first_token_s": 0, "idle_s": 0, "total_s": 0}
    timeouts = msgspec.convert(patient, type(channel(sim).timeouts))
    panel = Combination(
        name="panel", members=(Member(model="m"),), summary=Summary(model="m"), quorum=1, commit_after_s=60
    )
    return Settings(
        server=Server(**{"commit_after_s": 60, **server}),
        channels=(channel(sim, "m", timeouts=timeouts),),
        combinations=(panel,),
        logging=QUIET,
    )


async def until(raw: RawClient, words: bytes) -> bytes:
    """The body up to ``words``, which come in chunks of a chunked body."""
    body = b""
    while words not in body:
        chunk = await raw.chunk()
        assert chunk, f"the stream ended without {words!r}: {body!r}"
        body += chunk
    return body


# The head


async def test_a_streams_head_says_what_it_is_and_forbids_to_store_it() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, ask(stream=True))
        assert answer.status == 200
        told = answer.headers
        assert told["content-type"].startswith("text/event-stream")
        assert told["cache-control"] == "no-cache"
        assert told["x-accel-buffering"] == "no"
        assert "content-length" not in told
        assert "content-encoding" not in told
        assert told["x-request-id"]
        assert told["x-run-id"].startswith("run_")
        assert float(told["x-antiphon-overhead-ms"]) >= 0


@pytest.mark.parametrize("wish", [{}, {"stream": False}, {"stream": None}])
async def test_a_stream_is_never_sent_unasked(wish: dict[str, Any]) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(answer_as="sse"))
        answer = await post(server, ask(**wish), "Accept: text/event-stream")
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["object"] == "chat.completion"


async def test_a_stream_is_not_compressed() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, ask(stream=True), "Accept-Encoding: gzip, deflate, br")
        assert "content-encoding" not in answer.headers
        assert chunks_of(answer.body)


async def test_to_http_1_0_a_stream_is_not_chunked_and_ends_by_close() -> None:
    async with both(settings) as (server, _sim):
        request = chat_request(ask(stream=True), "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
        async with asked(server, request) as raw:
            answer = await raw.answer()
            assert "transfer-encoding" not in answer.headers
            assert text_of(chunks_of(answer.body))
            assert await raw.rest() == b""


# The chunks


async def test_all_chunks_share_id_time_and_model_and_each_choice_opens_and_ends_once() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(ids="changing", role="every", finish_form="last", no_finish="empty", chunks=4))
        chunks = chunks_of((await post(server, ask(stream=True, n=2))).body)
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        for index in (0, 1):
            mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
            assert ["role" in choice["delta"] for choice in mine] == [True] + [False] * (len(mine) - 1)
            ends = [choice["finish_reason"] for choice in mine]
            assert ends[-1] == "stop"
            assert set(ends[:-1]) == {None}


@pytest.mark.parametrize("usage", ["asked", "always", "every", "with_finish", "zero"])
async def test_without_a_wish_for_usage_there_is_none_and_no_empty_choices(usage: Any) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(usage=usage, filter_first=True))
        for chunk in chunks_of((await post(server, ask(stream=True))).body):
            assert chunk["choices"]
            assert "usage" not in chunk or chunk["usage"] is None


@pytest.mark.parametrize("usage", ["asked", "always", "every", "with_finish", "never"])
async def test_usage_asked_for_is_one_chunk_before_the_end(usage: Any) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(usage=usage))
        wish = ask(stream=True, stream_options={"include_usage": True})
        *chunks, last = chunks_of((await post(server, wish)).body)
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0
        assert last["usage"].get("estimated", False) is (usage == "never")
        for chunk in chunks:
            assert chunk["choices"]
            assert chunk["usage"] is None


async def test_no_line_of_a_stream_is_anything_but_data_and_comments() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(event_ids=True, event_name="chunk", retry=5, comments_between=True, line_end="cr"))
        assert chunks_of((await post(server, ask(stream=True))).body)  # which looks at every line


async def test_text_and_reasoning_never_share_a_delta() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(mixed=True, reasoning=("a", "b"), text="c d"))
        for chunk in chunks_of((await post(server, ask(stream=True))).body):
            for choice in chunk["choices"]:
                assert not (choice["delta"].get("content") and choice["delta"].get("reasoning_content"))


@pytest.mark.parametrize("done", [0, 1, 2])
async def test_a_complete_stream_ends_with_one_done_and_nothing_after_it(done: int) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(done=done, after_done='data: {"choices":[]}\n\n' if done else ""))
        body = (await post(server, ask(stream=True))).body
        assert body.count(b"[DONE]") == 1
        assert body.endswith(b"data: [DONE]\n\n")


async def test_each_frame_leaves_before_the_next_one_comes() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("first", "second"), stall_after=1))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            assert b"second" not in await until(raw, b"first")


# Failures


async def test_an_early_failure_is_a_real_status() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=400, error_message="No, my friend.", error_param="top_p", error_code="bad"))
        error = error_of(await post(server, ask(stream=True)), 400)
        assert (error["message"], error["param"], error["code"]) == ("No, my friend.", "top_p", "bad")


@pytest.mark.parametrize(
    "script",
    [
        Script(chunks=9, cut_after=3),
        Script(chunks=9, cut_after=3, cut="rst"),
        Script(chunks=9, cut_after=3, cut="clean"),
        Script(chunks=9, error_after=3),
        Script(chunks=9, error_after=3, error_done=True),
        Script(chunks=9, error_after=3, error_form="chunk"),
    ],
    ids=["fin", "reset", "in good order", "error", "error and done", "error chunk"],
)
async def test_a_cut_stream_ends_with_an_error_and_never_looks_whole(script: Script) -> None:
    async with both(settings) as (server, sim):
        sim.script(script)
        answer = await post(server, ask(stream=True, stream_options={"include_usage": True}))
        assert answer.status == 200
        *chunks, last = [json.loads(line) for line in data_lines(answer.body)]
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert text_of(chunks)
        assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
        assert (await post(server, ask(stream=True))).status == 200
        assert_nothing_left(server)


# Waiting


async def test_the_head_leaves_with_a_comment_at_the_commit_time_and_the_answer_follows() -> None:
    async with both(lambda sim: settings(sim, commit_after_s=0.05)) as (server, sim):
        sim.script(Script(stall_after=0, stall_ms=300, text="late"))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            head = await raw.head()
            assert head.status == 200
            assert (await raw.chunk()).startswith(b":")
            assert sim.requests[-1].sent_chunks == 0
            body = b""
            while chunk := await raw.chunk():
                body += chunk
            assert text_of(chunks_of(body)) == "late"


async def test_a_failure_after_the_commit_is_an_error_event() -> None:
    async with both(lambda sim: settings(sim, commit_after_s=0.05)) as (server, sim):
        sim.script(Script(delay_ms=300, status=400, error_message="No."))
        answer = await post(server, ask(stream=True))
        assert answer.status == 200
        (last,) = data_lines(answer.body)
        assert json.loads(last)["error"]["message"] == "No."


async def test_a_commit_at_once_is_a_stream_like_any_other() -> None:
    async with both(lambda sim: settings(sim, commit_after_s=0)) as (server, _sim):
        for _ in range(5):
            assert text_of(chunks_of((await post(server, ask(stream=True))).body)).startswith("You said")


async def test_silence_is_filled_with_comments_between_events() -> None:
    async with both(lambda sim: settings(sim, heartbeat_s=0.05)) as (server, sim):
        sim.script(Script(pieces=("first", "second"), stall_after=1))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            await until(raw, b"first")
            assert [await raw.chunk() for _ in range(3)] == [b": keep-alive\n\n"] * 3
        await sim.wait_until(lambda: sim.requests[-1].aborted)


async def test_heartbeats_to_http_1_0_are_not_framed() -> None:
    async with both(lambda sim: settings(sim, heartbeat_s=0.05)) as (server, sim):
        sim.script(Script(pieces=("first", "second"), stall_after=1, stall_ms=400))
        request = chat_request(ask(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0")
        async with asked(server, request) as raw:
            answer = await raw.answer()
            assert b": keep-alive\n\n" in answer.body
            assert text_of(chunks_of(answer.body)) == "firstsecond"


# Slow readers


HUGE = Script(pieces=tuple("y" * 1000 for _ in range(20_000)))


async def slow_reader(port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that takes little unread, and has sent ``request``."""
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mine.setblocking(False)
    await asyncio.get_running_loop().sock_connect(mine, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=mine, limit=1024)
    writer.write(request)
    return reader, writer


async def quiet_for_a_while(sim: OpenAISimulator) -> int:
    """How many bytes the simulator could send by the time when it can send no more."""
    last, same = -1, 0
    async with asyncio.timeout(PATIENCE_S):
        while same < 10:
            await asyncio.sleep(0.02)
            sent = sim.requests[-1].sent_bytes if sim.requests else 0
            same = same + 1 if sent == last and sent else 0
            last = sent
    return last


async def test_a_reader_that_reads_little_holds_the_upstream_back_and_loses_nothing() -> None:
    async with both(settings) as (server, sim):
        sim.script(HUGE)
        reader, writer = await slow_reader(server.port, chat_request(ask(stream=True)))
        for _ in range(50):
            assert len(await reader.readexactly(1)) == 1
        # Of the 20 MB, the socket buffers of two connections and little more can have left the upstream.
        assert await quiet_for_a_while(sim) < 12_000_000
        assert not sim.requests[-1].finished
        # Another one is not delayed by it.
        assert (await post(server, ask())).status == 200
        writer.close()
        await sim.wait_until(lambda: sim.requests[0].aborted)


async def test_a_reader_that_takes_nothing_is_cut_off_and_its_upstream_closed() -> None:
    async with both(lambda sim: settings(sim, write_timeout_s=0.3, heartbeat_s=0.1)) as (server, sim):
        sim.script(HUGE)
        _reader, writer = await slow_reader(server.port, chat_request(ask(stream=True)))
        await sim.wait_until(lambda: bool(sim.requests) and sim.requests[0].aborted)
        writer.close()
        assert (await post(server, ask())).status == 200
        assert_nothing_left(server)
