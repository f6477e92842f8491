"""The simulator as a whole: how its behaviour is chosen, what it shows, how it lives and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from pathlib import Path
from typing import Any

import openai
import pytest

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.raw_http import PATIENCE_S, Answer, connect
from tests.simulators.asking import answer, asked, chat_body, get, post

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"


async def send(sim: OpenAISimulator, request: bytes) -> Answer:
    async with connect(sim.host, sim.port) as client:
        await client.send(request)
        return await client.answer()


async def said(sim: OpenAISimulator, *, headers: str = "", **fields: Any) -> str:
    got = await answer(sim, headers=headers, stream=False, **fields)
    text: str = got.json()["choices"][0]["message"]["content"]
    return text


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# ── how a behaviour is chosen ──


async def test_without_a_script_the_last_user_message_is_echoed(sim: OpenAISimulator) -> None:
    assert await said(sim, messages=user("good morning")) == "You said: good morning"


async def test_a_queue_comes_before_a_header_before_a_name_before_a_message() -> None:
    async with OpenAISimulator(default=Script(text="default"), models={"named": Script(text="named")}) as sim:
        sim.script(Script(text="queue"))
        header, line = 'x-sim: {"text": "header"}\r\n', user('x\nsim: {"text": "line"}')
        assert await said(sim, headers=header, model="sim-c2", messages=line) == "queue"
        assert await said(sim, headers=header, model="sim-c2", messages=line) == "header"
        assert await said(sim, model="sim-c2", messages=line) == "word1 word2"
        assert await said(sim, model="named", messages=line) == "named"
        assert await said(sim, model="sim", messages=line) == "line"
        assert await said(sim) == "default"


async def test_a_queued_script_may_be_for_a_model_or_a_route(sim: OpenAISimulator) -> None:
    sim.script(Script(status=503), route="models")
    sim.script(Script(text="for b"), model="b", times=2)
    sim.script(Script(text="for any"))
    assert [await said(sim, model=m) for m in ("b", "a", "b")] == ["for b", "for any", "for b"]
    assert sim.stats()["queued"] == 1
    assert (await send(sim, get("/v1/models"))).status == 503
    assert sim.stats()["queued"] == 0


async def test_a_queue_is_bounded(sim: OpenAISimulator) -> None:
    with pytest.raises(ValueError, match="at most"):
        sim.script(Script(), times=10_001)


async def test_a_queue_is_filled_and_emptied_over_http(sim: OpenAISimulator) -> None:
    scripts = b'[{"text": "one"}, {"text": "two"}]'
    assert (await send(sim, post(scripts, "/sim/script?times=2"))).json() == {"queued": 4}
    assert [await said(sim) for _ in range(3)] == ["one", "two", "one"]
    got = await send(sim, b"DELETE /sim/script HTTP/1.1\r\n\r\n")
    assert got.json() == {"queued": 0}
    await send(sim, post(b'{"status": 500}', "/sim/script?for=embeddings&model=e"))
    assert (await send(sim, post(b'{"model": "e", "input": "a"}', "/v1/embeddings"))).status == 500


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"{", "/sim/script"),
        post(b'{"unheard": 1}', "/sim/script"),
        post(b"{}", "/sim/script?for=images"),
        post(b"{}", "/sim/script?times=0"),
        post(b"{}", "/sim/script?times=99999"),
        post(chat_body(), headers="x-sim: {oops}\r\n"),
        post(chat_body(model="sim-w5")),
        post(chat_body(messages=user('sim: {"chunks": "many"}'))),
    ],
)
async def test_a_bad_script_is_told(sim: OpenAISimulator, request_bytes: bytes) -> None:
    got = await send(sim, request_bytes)
    assert got.status == 400
    assert got.json()["error"]["code"] == "invalid_script"


async def test_a_request_that_openai_refuses_is_refused_before_any_script(sim: OpenAISimulator) -> None:
    sim.script(Script(text="kept"))
    got = await answer(sim, messages=[])
    assert (got.status, got.json()["error"]["param"]) == (400, "messages")
    assert await said(sim) == "kept"


async def test_a_script_may_refuse_a_field(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(refuse_fields=("seed",), error_form="detail"), seed=1)
    assert (got.status, got.json()["detail"][0]["loc"]) == (400, ["body", "seed"])


# ── routes ──


@pytest.mark.parametrize("base", ["", "/v1", "/api/paas/v4", "/openai/v1"])
async def test_any_base_path_is_served(sim: OpenAISimulator, base: str) -> None:
    assert (await send(sim, post(chat_body(stream=False), f"{base}/chat/completions"))).status == 200
    assert (await send(sim, get(f"{base}/models"))).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/v1/chat/completions"), 405),
        (post(b"{}", "/v1/models"), 405),
        (get("/"), 404),
        (post(b"{}", "/v1/completions"), 404),
        (get("/sim/nothing"), 404),
        (get("/v1/models/unknown"), 404),
    ],
)
async def test_other_requests_get_openais_errors(
    sim: OpenAISimulator, request_bytes: bytes, status: int
) -> None:
    got = await send(sim, request_bytes)
    assert got.status == status
    assert set(got.json()["error"]) == {"message", "type", "param", "code"}


async def test_named_models_are_listed() -> None:
    async with OpenAISimulator(models={"a/b c": Script()}) as sim:
        assert [m["id"] for m in (await send(sim, get("/v1/models"))).json()["data"]] == ["sim", "a/b c"]
        assert (await send(sim, get("/v1/models/a%2Fb%20c"))).json()["id"] == "a/b c"


async def test_embeddings_depend_on_their_text_alone(sim: OpenAISimulator) -> None:
    async with openai.AsyncOpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as client:
        packed = await client.embeddings.create(model="e", input=["a", "b", "a"])  # as base64
        plain = await client.embeddings.create(model="e", input="a", encoding_format="float", dimensions=8)
        tokens = await client.embeddings.create(model="e", input=[1, 2, 3], dimensions=3)
    first, second, third = (item.embedding for item in packed.data)
    assert first == third == plain.data[0].embedding
    assert first != second
    assert (len(tokens.data), len(tokens.data[0].embedding), tokens.usage.prompt_tokens) == (1, 3, 3)


@pytest.mark.parametrize("body", [b"{}", b'{"model": "e"}', b'{"model": "e", "input": []}', b"["])
async def test_bad_embedding_requests_are_refused(sim: OpenAISimulator, body: bytes) -> None:
    assert (await send(sim, post(body, "/v1/embeddings"))).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Authorization: Bearer sk-right\r\n", 200),
        ("authorization: bearer sk-right\r\n", 200),
        ("Authorization: Bearer sk-wrong\r\n", 401),
        ("Authorization: Basic sk-right\r\n", 401),
        ("", 401),
    ],
)
async def test_a_key_may_be_required(headers: str, status: int) -> None:
    async with OpenAISimulator(api_key="sk-right") as sim:
        got = await answer(sim, headers=headers)
        assert got.status == status
        assert b"sk-" not in got.body
        assert (await send(sim, get("/sim/stats"))).status == 200


async def test_the_official_client_is_content(sim: OpenAISimulator) -> None:
    async with openai.AsyncOpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="sim-c3-t1",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(
                model="sim-e429", messages=[{"role": "user", "content": "hi"}]
            )
        with pytest.raises(openai.APIError, match="had an error"):
            _ = [c async for c in await client.chat.completions.create(
                model="sim-x1", messages=[{"role": "user", "content": "hi"}], stream=True)]  # fmt: skip


# ── what it shows ──


async def test_requests_and_counters_are_shown_over_http(sim: OpenAISimulator) -> None:
    await answer(sim, headers="Authorization: Bearer sk-secret\r\n")
    async with asked(sim, Script(chunks=4, stall_after=2)):
        await sim.wait_until(lambda: sim.requests[-1].sent_chunks == 2)
        stats = (await send(sim, get("/sim/stats"))).json()
        assert (stats["requests_total"], stats["live"], stats["streams_live"]) == (2, 1, 1)
        assert stats["whole_total"] == 1
    got = await send(sim, get("/sim/requests?last=2"))
    assert b"sk-secret" not in got.body
    assert [shown["connection"] for shown in got.json()] == [1, 2]
    assert json.loads(got.json()[0]["body"])["model"] == "m"
    await send(sim, b"DELETE /sim/requests HTTP/1.1\r\n\r\n")
    assert sim.requests == []


async def test_the_help_is_served(sim: OpenAISimulator) -> None:
    got = await send(sim, get("/sim/help"))
    assert got.headers["content-type"].startswith("text/plain")
    assert b"sim-c20-d10-f100" in got.body


async def test_clearing_forgets_requests_and_scripts(sim: OpenAISimulator) -> None:
    await answer(sim)
    sim.script(Script())
    sim.clear()
    assert (sim.requests, sim.stats()["queued"], sim.stats()["requests_total"]) == ([], 0, 1)


# ── how it lives and ends ──


async def test_leaving_the_block_closes_whatever_is_open() -> None:
    async with OpenAISimulator() as sim, connect(sim.host, sim.port) as idle, asked(sim, Script(silent=True)):
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
        before = asyncio.all_tasks()
        await sim.__aexit__(None, None, None)
        assert sim.stats()["connections_open"] == 0
        assert len(asyncio.all_tasks()) == len(before) - 2
        assert await idle.rest() == b""
    assert sim.requests[0].outcome == "stopped"


async def test_connections_are_refused_and_taken_again_at_the_same_port(sim: OpenAISimulator) -> None:
    port = sim.port
    async with asked(sim, Script(delay_ms=1), stream=False) as client:
        await sim.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(sim.host, port)
        assert (await client.answer()).status == 200  # what was open stays so
    await sim.listen()
    assert sim.port == port
    assert (await answer(sim)).status == 200


async def test_a_connection_may_be_left_unread(sim: OpenAISimulator) -> None:
    sim.accept_delay_s = 3600
    async with asked(sim) as client:
        await sim.wait_until(lambda: sim.stats()["connections_open"] == 1)
        assert sim.requests == []
        client.writer.close()
        await sim.wait_until(lambda: sim.stats()["connections_open"] == 0)


async def test_a_bug_ends_its_own_connection_and_is_told(
    sim: OpenAISimulator, caplog: pytest.LogCaptureFixture
) -> None:
    sim.models["broken"] = Script(text=3)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        async with asked(sim, model="broken") as client:
            assert await client.rest() == b""
    assert "the simulator failed on connection 1" in caplog.text
    assert (await answer(sim)).status == 200


async def test_many_streams_at_once_stay_apart(sim: OpenAISimulator) -> None:
    async def one(number: int) -> None:
        assert await said(sim, messages=user(f"number {number}")) == f"You said: number {number}"

    await asyncio.gather(*(one(number) for number in range(50)))
    await sim.wait_until(lambda: sim.stats()["connections_open"] == 0)
    assert sim.stats()["connections_total"] == 50


async def test_run_serves_until_it_is_cancelled() -> None:
    ready: asyncio.Future[OpenAISimulator] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(PATIENCE_S):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(OpenAISimulator().serve(ready.set_result))
            sim = await ready
            assert sim.url == f"http://127.0.0.1:{sim.port}"
            assert (await answer(sim)).status == 200
            task.cancel()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(sim.host, sim.port)


async def test_a_taken_port_is_told(sim: OpenAISimulator) -> None:
    with pytest.raises(OSError, match="in use"):
        await OpenAISimulator(sim.port).serve()


async def test_it_may_speak_tls() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with OpenAISimulator(ssl_context=context) as sim:
        assert sim.url.startswith("https://127.0.0.1:")
        sim.script(Script(chunks=2, stall_after=1))
        reader, writer = await asyncio.open_connection(sim.host, sim.port, ssl=trusting)
        writer.write(post(chat_body()))
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await sim.wait_until(lambda: sim.requests[0].sent_chunks == 1)
        writer.transport.abort()
        await sim.wait_until(lambda: sim.requests[0].aborted)


async def test_a_client_that_comes_while_it_stops_is_refused_or_closed_and_never_left_waiting() -> None:
    async def reads_to_the_end(port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    for turns in range(8):
        async with OpenAISimulator() as sim, asyncio.TaskGroup() as clients:
            for _ in range(10):
                clients.create_task(reads_to_the_end(sim.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            await sim.stop_listening()
            await sim.drop_connections()
