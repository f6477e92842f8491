from __future__ import annotations

import orjson
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from bench.check import Expected, check_stream
from bench.relay import create_app, rewritten
from bench.scenarios import MODELS, WHOLE
from tests.bench.programs import mock


def body(model: str, **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "[ask 17] hi"}], **fields}


def test_a_chunk_gets_the_public_name_and_keeps_the_rest() -> None:
    assert orjson.loads(rewritten(b'{"id":"x","model":"inner","n":[1]}', "public")) == {
        "id": "x",
        "model": "public",
        "n": [1],
    }


async def test_it_relays_streams_and_whole_answers() -> None:
    async with mock() as upstream, TestServer(create_app(f"http://127.0.0.1:{upstream}")) as server:
        async with ClientSession(server.make_url("/")) as client:
            async with client.post("/v1/chat/completions", json=body(WHOLE)) as answer:
                text = (await answer.json())["choices"][0]["message"]["content"]
                assert text.startswith("[17] w0 ")
                assert len(text.split()) == MODELS[WHOLE].words + 1
            asked = body("rig-short", stream=True, stream_options={"include_usage": True})
            async with client.post("/v1/chat/completions", json=asked) as answer:
                # The client has taken the chunks apart: put the body back behind a plain head.
                content = await answer.read()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
        check_stream([(0, head + content)], Expected(17, MODELS["rig-short"].words))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_passes_through(stream: bool) -> None:
    async with (
        mock() as upstream,
        TestServer(create_app(f"http://127.0.0.1:{upstream}")) as server,
        ClientSession(server.make_url("/")) as client,
        client.post("/v1/chat/completions", json=body("unknown", stream=stream)) as answer,
    ):
        assert answer.status == 404
        assert "no model unknown" in await answer.text()
