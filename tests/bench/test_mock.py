from __future__ import annotations

import asyncio
import json

import pytest

from bench.check import Expected, check_stream, check_whole
from bench.scenarios import MODELS, WHOLE
from tests.bench.programs import mock

PATH = "/v1/chat/completions"


def request(
    model: str, *, nonce: int = 17, path: str = PATH, framing: str = "length", **fields: object
) -> bytes:
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": f"[ask {nonce}] hi"}], **fields}
    ).encode()
    if framing == "chunks":
        cut = len(body) // 2
        parts = [body[:cut], body[cut:], b""]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        head = "transfer-encoding: chunked"
    else:
        head = f"content-length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode() + body


async def answer(port: int, sent: bytes, end: bytes) -> bytes:
    """What comes until it ends with ``end``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    got = b""
    while not got.endswith(end):
        more = await reader.read(65536)
        assert more, got
        got += more
    writer.close()
    await writer.wait_closed()
    return got


async def test_streams_are_what_the_check_expects() -> None:
    async with mock() as port:
        for model in ("rig-burst", "rig-short"):
            sent = request(model, stream=True, stream_options={"include_usage": True})
            got = await answer(port, sent, b"0\r\n\r\n")
            seen = check_stream([(0, got)], Expected(17, MODELS[model].words))
            assert seen.sent_us == sorted(seen.sent_us)


async def test_a_paced_stream_takes_its_time() -> None:
    async with mock() as port:
        got = await answer(port, request("rig-short", stream=True), b"0\r\n\r\n")
        seen = check_stream([(0, got)], Expected(17, 20, usage=False))
        assert seen.sent_us[-1] - seen.sent_us[0] >= 19 * 5000 - 2000


async def test_usage_comes_only_when_it_is_asked_for() -> None:
    async with mock() as port:
        got = await answer(port, request("rig-burst", stream=True), b"0\r\n\r\n")
        check_stream([(0, got)], Expected(17, 100, usage=False))
        assert b'"usage"' not in got


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_whole_answers_are_what_the_check_expects(framing: str) -> None:
    async with mock() as port:
        got = await answer(port, request(WHOLE, framing=framing), b'"fp_rig"}')
        check_whole([(0, got)], Expected(17, MODELS[WHOLE].words))


async def test_a_connection_serves_one_request_after_another() -> None:
    async with mock() as port:
        sent = request(WHOLE, nonce=1) + request("rig-burst", nonce=2, stream=True)
        got = await answer(port, sent, b"0\r\n\r\n")
        cut = got.index(b"HTTP/1.1", 1)
        check_whole([(0, got[:cut])], Expected(1, MODELS[WHOLE].words))
        check_stream([(0, got[cut:])], Expected(2, 100, usage=False))


async def test_what_it_does_not_play_is_refused() -> None:
    async with mock() as port:
        for sent, status in (
            (request("gpt-9"), b"404"),
            (request(WHOLE, path="/v1/embeddings"), b"404"),
            (request(WHOLE).replace(b"[ask 17]", b"whatever"), b"404"),
            (request(WHOLE).replace(b'"model"', b'"modal"'), b"400"),
            (request(WHOLE, framing="chunks").replace(b"\r\n\r\n", b"\r\n\r\nz", 1), b"400"),
        ):
            got = await answer(port, sent, b"}}")
            assert got.startswith(b"HTTP/1.1 " + status), got
