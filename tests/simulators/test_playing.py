"""Faults of HTTP and of the connection, seen byte by byte from outside."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.raw_http import PATIENCE_S, RawClient, connect
from tests.simulators.asking import answer, asked, chat_body, deltas, events, post, raw


async def reset(client: RawClient) -> bytes:
    """All that comes until a reset; fails if the connection ends in good order."""
    read = b""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - what came before the reset is wanted too
            while data := await client.reader.read(65536):
                read += data
    return read


async def test_a_stream_is_chunked_and_whole(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(text="a b"))
    assert (got.status, got.version) == (200, "HTTP/1.1")
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in got.headers
    assert "".join(delta.get("content") or "" for delta in deltas(got.body)) == "a b"
    assert events(got.body)[-1] == "[DONE]"


async def test_each_event_is_an_http_chunk_of_its_own(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(chunks=2)) as client:
        await client.head()
        told = [await client.chunk() for _ in range(6)]
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in told[:5])
    assert told[5] == b""


async def test_a_connection_is_used_again(sim: OpenAISimulator) -> None:
    async with connect(sim.host, sim.port) as client:
        for stream in (True, False, True):
            await client.send(post(chat_body(stream=stream)))
            assert (await client.answer()).status == 200
    assert [request.connection for request in sim.requests] == [1, 1, 1]


async def test_a_plain_answer_has_its_length(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(text="a b"), stream=False)
    assert got.headers["content-type"] == "application/json"
    assert int(got.headers["content-length"]) == len(got.body)
    assert got.json()["choices"][0]["message"]["content"] == "a b"


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_stream_is_cut_after_a_chunk(sim: OpenAISimulator, how: str) -> None:
    script = Script(chunks=5, cut_after=3, cut="fin" if how == "fin" else "rst")
    async with asked(sim, script) as client:
        body = await client.rest() if how == "fin" else await reset(client)
    assert b" word3" in body
    assert b" word4" not in body
    assert not body.endswith(b"0\r\n\r\n")
    await sim.wait_until(lambda: sim.stats()["connections_open"] == 0)
    assert (sim.requests[0].outcome, sim.requests[0].sent_chunks) == ("cut", 3)


async def test_a_cut_may_keep_http_in_order(sim: OpenAISimulator) -> None:
    async with connect(sim.host, sim.port) as client:
        for _ in range(2):  # the connection can be used again
            sim.script(Script(chunks=5, cut_after=3, cut="clean"))
            await client.send(post(chat_body()))
            body = (await client.answer()).body
            assert [delta.get("content") for delta in deltas(body)] == ["", "word1", " word2", " word3"]
    assert {request.outcome for request in sim.requests} == {"cut"}


async def test_a_cut_at_any_byte_of_the_body_leaves_half_a_frame(sim: OpenAISimulator) -> None:
    full = (await answer(sim, Script(text="é", ids="absent"))).body
    for at in range(0, len(full), 7):
        async with asked(sim, Script(text="é", ids="absent", cut_at_byte=at)) as client:
            await client.head()
            framed = await client.rest()
        body = b""
        while framed:
            size, _, framed = framed.partition(b"\r\n")
            body, framed = body + framed[: int(size, 16)], framed[int(size, 16) + 2 :]
        assert body == full[:at]
        assert sim.requests[-1].sent_bytes == at


async def test_a_plain_body_is_cut_short_of_its_length(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(cut_at_byte=10), stream=False) as client:
        head = await client.head()
        assert int(head.headers["content-length"]) > 10
        assert len(await client.rest()) == 10


async def test_a_length_may_promise_too_much(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(length_extra=5), stream=False) as client:
        head = await client.head()
        body = await client.rest()
    assert int(head.headers["content-length"]) == len(body) + 5
    assert json.loads(body)


async def test_a_length_may_promise_too_little(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(length_extra=-5), stream=False) as client:
        head = await client.head()
        assert len(await client.rest()) == int(head.headers["content-length"]) + 5


async def test_the_last_http_chunk_may_be_missing(sim: OpenAISimulator) -> None:
    body = await raw(sim, Script(final_chunk=False))
    assert body.endswith(b"data: [DONE]\n\n\r\n")


@pytest.mark.parametrize("at", [0, 1, 9, 40])
async def test_the_head_is_cut(sim: OpenAISimulator, at: int) -> None:
    assert await raw(sim, Script(cut_head_at=at)) == (await head_of(sim))[:at]


async def head_of(sim: OpenAISimulator) -> bytes:
    async with asked(sim) as client:
        return await client.reader.readuntil(b"\r\n\r\n")


async def test_the_connection_is_reset_before_an_answer(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(cut_head_at=0, cut="rst")) as client:
        assert await reset(client) == b""


async def test_a_stall_sends_what_comes_before_and_then_nothing(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(chunks=3, stall_after=2)) as client:
        await client.head()
        for _ in range(3):
            last = await client.chunk()
        assert b" word2" in last
        await sim.wait_until(lambda: sim.requests[0].sent_chunks == 2)
        assert sim.stats()["streams_live"] == 1


async def test_headers_may_be_followed_by_silence(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(stall_at_byte=0)) as client:
        assert (await client.head()).status == 200
        assert not client.reader._buffer  # type: ignore[attr-defined]
        assert sim.requests[0].sent_bytes == 0


async def test_a_stall_within_a_frame_goes_on_after_its_time(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(text="a b", stall_at_byte=50, stall_ms=5))
    assert events(got.body)[-1] == "[DONE]"


async def test_no_answer_at_all(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(silent=True)) as client:
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
        client.writer.close()
        await sim.wait_until(lambda: sim.requests[0].aborted)
    assert sim.requests[0].sent_bytes == 0


@pytest.mark.parametrize(
    "script",
    [
        Script(silent=True),
        Script(delay_ms=60_000),
        Script(drip_ms=60_000),
        Script(stall_at_byte=0),
        Script(stall_after=2),
        Script(first_ms=60_000, keep_alive_ms=60_000),
        Script(chunks=9, pace_ms=60_000),
        Script(huge_bytes=50_000_000),
        Script(split_at=9, split_ms=60_000),
    ],
    ids=lambda script: "-".join(
        f for f in Script.__struct_fields__ if getattr(script, f) != getattr(Script(), f)
    ),
)
@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_leaves_is_noticed_at_once(
    sim: OpenAISimulator, script: Script, politely: bool
) -> None:
    async with asked(sim, script) as client:
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
        if politely:
            client.writer.close()
        else:
            client.writer.transport.abort()
        await sim.wait_until(lambda: sim.requests[0].aborted)
    await sim.wait_until(lambda: sim.stats()["connections_open"] == 0)
    assert sim.stats()["aborted_total"] == 1
    assert sim.stats()["streams_live"] == 0


async def test_a_client_that_only_closes_its_side_is_taken_for_gone(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(stall_after=1)) as client:
        await client.head()
        client.writer.write_eof()
        await sim.wait_until(lambda: sim.requests[0].aborted)


async def test_a_slow_reader_is_waited_for(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(huge_bytes=100), stream=False) as client:
        await client.answer()
    sim.script(Script(status=500, body_bytes=100_000_000))
    async with connect(sim.host, sim.port) as client:
        await client.send(post(chat_body()))
        head = await client.head()
        assert head.headers["content-length"] == "100000000"
        await sim.wait_until(lambda: sim.requests[-1].sent_bytes > 0)
        await asyncio.sleep(0)
        assert sim.requests[-1].sent_bytes < 50_000_000  # the rest is not made before it is taken
        left = 100_000_000
        async with asyncio.timeout(PATIENCE_S):
            while left:
                left -= len(await client.reader.read(1 << 20))
    assert sim.requests[-1].finished


async def test_the_head_drips(sim: OpenAISimulator) -> None:
    assert (await answer(sim, Script(drip_ms=0.01))).status == 200


async def test_writes_are_split_every_n_bytes(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(text="é", split_at=5)) as client:
        await client.head()
        chunks = [await client.chunk() for _ in range(30)]
    assert {len(chunk) for chunk in chunks[:20]} == {5}


async def test_writes_are_split_at_given_bytes_of_the_body(sim: OpenAISimulator) -> None:
    whole = (await answer(sim, Script(text="é"))).body
    at = whole.index("é".encode()) + 1
    async with asked(sim, Script(text="é", split_at=(at, 3))) as client:
        await client.head()
        assert len(await client.chunk()) == 3
        before = b""
        while len(before) < at - 3:
            before += await client.chunk()
        assert before.endswith(b"\xc3")
        assert (await client.chunk()).startswith(b"\xa9")


async def test_parts_of_a_split_are_reads_of_their_own_on_the_same_loop(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(body="abcdef", split_at=2, framing="close")) as client:
        await client.head()
        async with asyncio.timeout(PATIENCE_S):
            assert [await client.reader.read(100) for _ in range(4)] == [b"ab", b"cd", b"ef", b""]


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15)])
async def test_a_body_may_be_compressed(sim: OpenAISimulator, encoding: str, wbits: int) -> None:
    script = Script(text="a b", encoding="gzip" if encoding == "gzip" else "deflate")
    streamed = await answer(sim, script)
    assert streamed.headers["content-encoding"] == encoding
    assert events(zlib.decompress(streamed.body, wbits))[-1] == "[DONE]"
    plain = await answer(sim, script, stream=False)
    assert json.loads(zlib.decompress(plain.body, wbits))["object"] == "chat.completion"


async def test_a_compressed_event_can_be_read_when_it_has_come(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(chunks=2, encoding="gzip", stall_after=1)) as client:
        await client.head()
        unpack = zlib.decompressobj(31)
        assert b"assistant" in unpack.decompress(await client.chunk())
        assert b"word1" in unpack.decompress(await client.chunk())
    cut = await raw(sim, Script(chunks=2, encoding="gzip", cut_after=1, framing="close"))
    with pytest.raises(EOFError):
        gzip.decompress(cut.partition(b"\r\n\r\n")[2])


async def test_http_1_0_has_no_framing(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(http="1.0", text="a"))
    assert got.version == "HTTP/1.0"
    assert not {"transfer-encoding", "content-length"} & set(got.headers)
    assert events(got.body)[-1] == "[DONE]"


@pytest.mark.parametrize("connection", ["close", "drop"])
async def test_a_connection_is_closed_after_the_answer(sim: OpenAISimulator, connection: str) -> None:
    script = Script(connection="close" if connection == "close" else "drop")
    async with asked(sim, script, stream=False) as client:
        got = await client.answer()
        assert ("connection" in got.headers) == (connection == "close")
        assert await client.rest() == b""
    assert sim.requests[0].finished


async def test_a_client_may_ask_for_the_close(sim: OpenAISimulator) -> None:
    async with asked(sim, headers="Connection: close\r\n") as client:
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.rest() == b""


async def test_interim_answers_come_before_the_real_one(sim: OpenAISimulator) -> None:
    async with asked(sim, Script(interim=(100, 103)), stream=False) as client:
        assert [(await client.head()).status for _ in range(2)] == [100, 103]
        assert (await client.answer()).status == 200


async def test_the_first_line_may_be_garbage(sim: OpenAISimulator) -> None:
    assert (await raw(sim, Script(status_line="HTTP/9.9 abc", connection="drop"))).startswith(
        b"HTTP/9.9 abc\r\n"
    )


async def test_headers_are_added_replaced_and_left_out(sim: OpenAISimulator) -> None:
    script = Script(
        headers={"Server": "nginx", "x-request-id": None, "set-cookie": "a=b"}, content_type="text/x"
    )
    got = await answer(sim, script)
    assert (got.headers["server"], got.headers["set-cookie"]) == ("nginx", "a=b")
    assert "x-request-id" not in got.headers
    assert got.headers["content-type"] == "text/x"
    assert "content-type" not in (await answer(sim, Script(content_type=""))).headers


async def test_a_redirect_is_sent(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(redirect="http://127.0.0.1:1/x"))
    assert (got.status, got.headers["location"], got.body) == (307, "http://127.0.0.1:1/x", b"")
    assert (await answer(sim, Script(redirect="/x", status=302))).status == 302


async def test_json_comes_instead_of_a_stream_and_a_stream_instead_of_json(sim: OpenAISimulator) -> None:
    assert (await answer(sim, Script(answer_as="json"))).json()["object"] == "chat.completion"
    got = await answer(sim, Script(answer_as="sse"), stream=False)
    assert got.headers["content-type"].startswith("text/event-stream")
    assert events(got.body)[-1] == "[DONE]"


async def test_the_body_may_be_given_exactly(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(body="data: 1\n\n"))
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.body == b"data: 1\n\n"
    got = await answer(sim, Script(body="<html>", status=502, content_type="text/html"))
    assert (got.status, got.body, got.headers["content-length"]) == (502, b"<html>", "6")
    assert (await answer(sim, Script(body=""))).body == b""


async def test_signs_of_life_fill_a_wait(sim: OpenAISimulator) -> None:
    streamed = await answer(sim, Script(first_ms=20, keep_alive_ms=5))
    assert streamed.body.startswith(b": keep-alive\n\n")
    plain = await answer(sim, Script(first_ms=20, keep_alive_ms=5), stream=False)
    assert plain.body.startswith(b"\n")
    assert plain.json()["object"] == "chat.completion"


async def test_one_line_may_be_huge(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(huge_bytes=1_000_000))
    assert max(map(len, got.body.split(b"\n"))) > 1_000_000
