"""Forms with files on their way through: transcriptions, translations, pictures to edit."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from server.app_keys import METRICS, RUNS, UPLOADS
from server.config import load
from server.settings import Channel, ChannelModel, Server, Settings, Uploads
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked, assert_nothing_left, both, chat_request, error_of, get, post, until
from tests.behaviour.program import program
from tests.behaviour.running import QUIET, Antiphon, antiphon, channel
from tests.raw_http import PATIENCE_S, Answer, connect

Pair = tuple[Antiphon, OpenAISimulator]
PATH = "/v1/audio/transcriptions"
TYPE = 'multipart/form-data; boundary="x"'
MEGABYTE = 1024 * 1024
EXAMPLE = Path(__file__).parents[2] / "conf" / "examples" / "surfaces.yaml"


def settings(sim: OpenAISimulator) -> Settings:
    models = {"w": ChannelModel(model="whisper-of-theirs"), "draw": ChannelModel(surfaces=("images",))}
    return Settings(
        server=Server(body_idle_s=5),
        uploads=Uploads(max_bytes=8 * MEGABYTE),
        channels=(
            Channel(name="sim", kind="openai", base_url=sim.base_url, models=models),
            channel(sim, "two", name="first", priority=1),
            channel(sim, "two", name="second"),
        ),
        logging=QUIET,
    )


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with both(settings) as (server, sim):
        yield server, sim


def field(name: str, value: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


def file(data: bytes, name: str = "file") -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="%b"; filename="a.mp3"\r\n' % name.encode()
    return head + b"Content-Type: audio/mpeg\r\n\r\n" + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


async def send(
    server: Antiphon, body: bytes, *headers: str, content_type: str | None = TYPE, path: str = PATH
) -> Answer:
    return await post(server, body, *headers, content_type=content_type, path=path)


def head_of(framing: str) -> bytes:
    """The head of a request whose form comes later."""
    return chat_request(b"", path=PATH, content_type=TYPE).replace(b"Content-Length: 0", framing.encode())


async def nothing_left(server: Antiphon) -> None:
    await until(lambda: not (server.app[RUNS].in_progress or server.app[METRICS].in_flight))
    assert_nothing_left(server)
    assert server.app[UPLOADS].taken == 0


async def test_transcriptions_through_the_official_client(pair: Pair) -> None:
    server, sim = pair
    sound = ("a.mp3", b"\0\r\n--\xff" * 1000)
    base = f"{server.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="k", max_retries=0, timeout=20) as client:

        async def heard(**options: Any) -> Any:
            return await client.audio.transcriptions.create(file=sound, model="w", **options)

        assert (await heard()).text == "a.mp3: 6000 bytes"
        assert await heard(response_format="text") == "a.mp3: 6000 bytes\n"
        assert "-->" in await heard(response_format="srt")
        assert (await heard(response_format="verbose_json")).segments[0].text == "a.mp3: 6000 bytes"
        told = [event.type async for event in await heard(stream=True)]
        assert told[-1] == "transcript.text.done"
        with pytest.deprecated_call():
            english = await client.audio.translations.create(file=sound, model="w")
        assert english.text == "a.mp3: 6000 bytes"
        edited = await client.images.edit(image=("a.png", b"png"), prompt="a dog")
        assert edited.data
    assert {one.model for one in sim.requests} == {"whisper-of-theirs", "draw"}
    await nothing_left(server)


@pytest.mark.parametrize("size", [10, 3 * MEGABYTE])
@pytest.mark.parametrize("model_first", [True, False])
async def test_a_form_goes_out_byte_for_byte_but_for_the_model(
    pair: Pair, size: int, model_first: bool
) -> None:
    server, sim = pair
    parts = [field("model", b"w"), file(b"\r\n--\0" * (size // 5))]
    body = (
        b"before\r\n" + form(*(parts if model_first else parts[::-1]), field("x", "é".encode())) + b"behind"
    )
    answer = await send(server, body)
    assert answer.status == 200
    assert answer.json()["text"].startswith("a.mp3: ")
    assert sim.requests[-1].body == body.replace(b"\r\nw\r\n", b"\r\nwhisper-of-theirs\r\n")
    assert sim.requests[-1].header("content-type") == TYPE
    assert sim.requests[-1].header("content-length") == str(len(sim.requests[-1].body))
    assert float(answer.headers["x-antiphon-overhead-ms"]) >= 0
    run = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
    assert (run["status"], run["model"]) == ("completed", "w")
    await nothing_left(server)


async def test_a_form_that_names_no_model_gets_one_where_that_is_allowed(pair: Pair) -> None:
    server, sim = pair
    body = form(file(b"png", "image"), field("prompt", b"a dog"))
    assert (await send(server, b"before\r\n" + body, path="/v1/images/edits")).status == 200
    assert sim.requests[-1].body == b"before\r\n" + field("model", b"draw") + body
    error = error_of(await send(server, form(file(b"abc"))), 400)
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")
    assert error_of(await send(server, form(field("model", b""), file(b""))), 400)["param"] == "model"


async def test_another_channel_gets_the_same_bytes(pair: Pair) -> None:
    server, sim = pair
    for script in (Script(status=500), Script(cut_head_at=0), Script(cut_at_byte=3)):
        sim.script(script, route="audio/transcriptions")
        answer = await send(server, form(field("model", b"two"), file(b"abc" * MEGABYTE)))
        assert answer.status == 200, answer.body
        one, other = sim.requests[-2:]
        assert one.body == other.body
    await nothing_left(server)


async def test_what_is_no_form_is_told(pair: Pair) -> None:
    server, sim = pair
    good = form(field("model", b"w"), file(b"abc"))
    for body, content_type, status, code in (
        (good[:-9], TYPE, 400, "invalid_form"),
        (good, "multipart/form-data", 400, "invalid_form"),
        (good, "multipart/form-data; boundary=y", 400, "invalid_form"),
        (b"", TYPE, 400, "invalid_form"),
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (good, None, 415, "unsupported_media_type"),
        (form(field("model", b"w"), field("model", b"v")), TYPE, 400, "duplicate_key"),
        (form(field("model", b"nobody"), file(b"abc")), TYPE, 404, "model_not_found"),
    ):
        assert error_of(await send(server, body, content_type=content_type), status)["code"] == code
    zipped = await send(server, gzip.compress(good), "Content-Encoding: gzip")
    assert error_of(zipped, 415)["code"] == "unsupported_media_type"
    assert error_of(await send(server, good, path="/v1/embeddings"), 415)
    assert error_of(await send(server, good, path="/v1/chat/completions"), 415)
    assert not sim.requests
    await nothing_left(server)


async def test_an_unknown_model_is_told_before_the_rest_of_the_form_has_come(pair: Pair) -> None:
    server, _ = pair
    body = field("model", b"nobody") + file(b"")
    head = chat_request(b"", path=PATH, content_type=TYPE).replace(
        b"Content-Length: 0", b"Content-Length: 5000000"
    )
    async with asked(server, head + body) as raw:
        assert error_of(await raw.answer(), 404)["code"] == "model_not_found"
    await nothing_left(server)


async def test_more_than_the_limit_is_refused_as_soon_as_it_is_known(pair: Pair) -> None:
    server, sim = pair
    async with asked(server, head_of("Content-Length: 9000000")) as raw:
        assert error_of(await raw.answer(), 413)["code"] == "request_too_large"
    async with asked(server, head_of("Transfer-Encoding: chunked")) as raw:
        piece = field("model", b"w") + file(b"a" * MEGABYTE)[:-2]
        for data in (piece, *(b"b" * MEGABYTE,) * 8):
            raw.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        assert error_of(await raw.answer(), 413)["code"] == "request_too_large"
    assert not sim.requests
    await nothing_left(server)


async def test_a_client_that_leaves_amid_its_upload_leaves_nothing(pair: Pair) -> None:
    server, sim = pair
    head = head_of("Content-Length: 8000000")
    async with asked(server, head + field("model", b"w") + file(b"a" * 3 * MEGABYTE)):
        await until(lambda: server.app[UPLOADS].taken)
    await nothing_left(server)
    assert sim.stats()["connections_total"] == 0, "no upstream is asked before the form is whole"


async def test_a_client_that_leaves_while_the_upstream_works_closes_its_connection(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(silent=True), route="audio/transcriptions")
    body = form(field("model", b"w"), file(b"a" * 3 * MEGABYTE))
    async with asked(server, chat_request(body, path=PATH, content_type=TYPE)):
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
    await sim.wait_until(lambda: sim.stats()["connections_open"] == 0)
    assert [one.outcome for one in sim.requests] == ["aborted"]
    await nothing_left(server)


async def test_sixty_departures_at_random_moments_leave_nothing(pair: Pair) -> None:
    server, sim = pair
    chance = random.Random(5)
    sound = form(file(b"a" * 2 * MEGABYTE), field("model", b"w"))
    speech = {"model": "w", "voice": "a", "input": "word " * 30}
    requests = (
        chat_request(sound, path=PATH, content_type=TYPE),
        chat_request(speech, path="/v1/audio/speech"),
        chat_request({"model": "two", "input": "a"}, path="/v1/embeddings"),
    )
    sim.script(*(Script(pace_ms=3, first_ms=5, delay_ms=5),) * 20, route="audio/speech")
    sim.script(*(Script(delay_ms=30),) * 20, route="audio/transcriptions")
    sim.script(*(Script(status=500), Script(delay_ms=20)) * 10, route="embeddings")

    async def one(number: int) -> None:
        async with connect("127.0.0.1", server.port) as raw:
            raw.writer.write(requests[number % 3])
            await asyncio.sleep(chance.uniform(0, 0.1))
            raw.writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(number))
    await sim.wait_until(lambda: sim.stats()["live"] == 0)
    await nothing_left(server)
    sim.clear()
    assert (await send(server, sound)).status == 200


async def test_an_upstream_that_does_not_take_the_form_is_closed_when_the_client_leaves(
    unused_tcp_port: int,
) -> None:
    began, left, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        await left.wait()  # nothing is read meanwhile: the form is stuck in the sockets
        with suppress(ConnectionError):
            while await reader.read(MEGABYTE):
                pass
        gone.set()
        writer.close()

    upstream = await asyncio.start_server(deaf, "127.0.0.1", unused_tcp_port)

    def deafened(sim: OpenAISimulator) -> Settings:
        url = f"http://127.0.0.1:{unused_tcp_port}/v1"
        return Settings(
            channels=(Channel(name="c", kind="openai", base_url=url, models=("w",)),), logging=QUIET
        )

    async with upstream, both(deafened) as (server, _):
        body = form(field("model", b"w"), file(b"a" * 20 * MEGABYTE))
        async with asyncio.timeout(PATIENCE_S):
            async with asked(server, chat_request(body, path=PATH, content_type=TYPE)):
                await began.wait()
            await until(lambda: not server.app[RUNS].in_progress)
            left.set()
            await gone.wait()
        await nothing_left(server)


async def test_the_disk_has_a_bound_for_all(tmp_path: Path) -> None:
    def narrow(sim: OpenAISimulator) -> Settings:
        uploads = Uploads(all_bytes=2 * MEGABYTE, dir=str(tmp_path))
        return Settings(uploads=uploads, channels=(channel(sim, "w"),), logging=QUIET)

    async with both(narrow) as (server, _):
        answer = await send(server, form(field("model", b"w"), file(b"a" * 4 * MEGABYTE)))
        assert error_of(answer, 503)["code"] == "overloaded"
        assert answer.headers["retry-after"] == "5"
        await nothing_left(server)
        assert (await send(server, form(field("model", b"w"), file(b"a" * 1000)))).status == 200
    assert not os.listdir(tmp_path)


async def test_a_folder_that_is_not_there_is_told_without_its_name(tmp_path: Path) -> None:
    def lost(sim: OpenAISimulator) -> Settings:
        uploads = Uploads(dir=str(tmp_path / "nowhere"))
        return Settings(uploads=uploads, channels=(channel(sim, "w"),), logging=QUIET)

    async with both(lost) as (server, _):
        answer = await send(server, form(field("model", b"w"), file(b"a" * 2 * MEGABYTE)))
        assert error_of(answer, 503)["message"] == "The server cannot keep the upload; try again later."
        await nothing_left(server)


async def test_the_example_does_what_it_says(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        config = tmp_path / "surfaces.yaml"
        config.write_text(EXAMPLE.read_text().replace("127.0.0.1:9100", f"127.0.0.1:{sim.port}"))
        loaded = load(config, {"VENDOR_KEY": "any"})
        async with antiphon(loaded.settings) as server:
            for path, body in (
                ("/v1/embeddings", {"model": "embed", "input": "hello"}),
                ("/v1/moderations", {"input": "hello"}),
                ("/v1/audio/speech", {"model": "say", "voice": "alloy", "input": "hello"}),
                ("/v1/images/generations", {"prompt": "a cat"}),
                ("/v1/rerank", {"model": "rank", "query": "a", "documents": ["a"]}),
            ):
                assert (await post(server, body, path=path)).status == 200, path
            assert (await send(server, form(file(b"abc"), field("model", b"hear")))).status == 200
            sim.script(Script(status=500), route="embeddings")
            assert (await post(server, {"model": "embed", "input": "a"}, path="/v1/embeddings")).status == 200
    assert not loaded.warnings


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_two_hundred_megabytes_pass_through_little_memory(tmp_path: Path, unused_tcp_port: int) -> None:
    total, received, told = 200, 0, b'{"text":"heard"}'

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while left:
            piece = await reader.read(min(left, MEGABYTE))
            received, left = received + len(piece), left - len(piece)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(told), told)
        )
        await writer.drain()
        writer.close()

    config = tmp_path / "config.yaml"
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    config.write_text(f"channels: [{{name: c, kind: openai, base_url: '{url}', models: [w]}}]")
    start, end = file(b"").removesuffix(b"\r\n"), b"\r\n" + form(field("model", b"w"))
    size = len(start) + total * MEGABYTE + len(end)
    upstream = await asyncio.start_server(counts, "127.0.0.1", unused_tcp_port)
    async with upstream, program(config) as server:
        async with connect("127.0.0.1", server.port) as raw:
            before = resident(server.process.pid)
            await raw.send(head_of(f"Content-Length: {size}") + start)
            for _ in range(total):
                await raw.send(b"\0" * MEGABYTE)
            await raw.send(end)
            async with asyncio.timeout(60):
                line = await raw.reader.readuntil(b"\r\n\r\n")
            assert line.startswith(b"HTTP/1.1 200")
        grown = resident(server.process.pid, "VmHWM") - before
    assert received == size
    assert grown < 30 * MEGABYTE, f"{grown / MEGABYTE:.0f} MB"


def resident(pid: int, name: str = "VmRSS") -> int:
    """What a process holds in memory; VmHWM: at most, up to now. (bytes)"""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
