"""``antiphon serve`` as a process: its start, its reload, its end, and what clients see of each."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import chat_request, chunks_of, data_lines, error_of, get_request, text_of
from tests.behaviour.running import ask
from tests.cli.command import Command, command, ended
from tests.raw_http import Answer, RawClient, connect

# More than all buffers between hold: it cannot end before its client has read on.
LONG = Script(pieces=("y" * 100_000,) * 300)
GREETING = r"Antiphon serves http://127\.0\.0\.1:(\d+)/v1"


def configuration(sim: OpenAISimulator, *models: str, drain_s: float = 30) -> str:
    served = ", ".join(models or ("m",))
    return (
        f"server: {{port: 0, drain_s: {drain_s}}}\n"
        "channels:\n"
        f"  - {{name: sim, kind: openai, base_url: '{sim.base_url}', models: [{served}]}}\n"
    )


class Serving:
    """A server process before a simulated upstream."""

    def __init__(self, process: Command, port: int, file: Path) -> None:
        self.process = process
        self.port = port
        self.file = file

    async def get(self, path: str) -> Answer:
        async with connect("127.0.0.1", self.port) as raw:
            await raw.send(get_request(path))
            return await raw.answer()

    async def models(self) -> list[str]:
        return [one["id"] for one in (await self.get("/v1/models")).json()["data"]]

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator[RawClient]:
        """A client that has read its first chunk."""
        async with connect("127.0.0.1", self.port) as raw:
            await raw.send(chat_request(ask(stream=True)))
            assert (await raw.head()).status == 200
            assert b"data: " in await raw.chunk()
            yield raw


@asynccontextmanager
async def serving(folder: Path, sim: OpenAISimulator, drain_s: float = 30) -> AsyncIterator[Serving]:
    file = folder / "config.yaml"
    file.write_text(configuration(sim, drain_s=drain_s), encoding="utf-8")
    async with command("serve", "--config", str(file), folder=folder) as process:
        port = int((await process.says(GREETING))[1])
        await process.says(f"watch: http://127.0.0.1:{port}/ in a browser, or: antiphon watch --url")
        yield Serving(process, port, file)


async def rest_of(raw: RawClient) -> bytes:
    pieces = []
    while piece := await raw.chunk():
        pieces.append(piece)
    return b"".join(pieces)


async def test_it_greets_with_lines_that_can_be_typed_and_ends_well_when_told(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, serving(tmp_path, sim) as server:
        assert f"curl -N http://127.0.0.1:{server.port}/v1/chat/completions" in server.process.heard
        assert '"model":"m"' in server.process.heard
        async with connect("127.0.0.1", server.port) as raw:
            await raw.send(chat_request(ask(text="sim over wires", stream=True)))
            assert "wires" in text_of(chunks_of((await raw.answer()).body))
        server.process.signal()
        done = await server.process.end()
        assert (done.status, done.out) == (0, "")
        assert "Traceback" not in done.err


async def test_told_to_end_it_finishes_what_streams_and_lets_nobody_in(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, serving(tmp_path, sim) as server:
        sim.script(LONG)
        async with server.streaming() as raw:
            server.process.signal()
            await refused(server.port)
            assert not sim.requests[-1].finished
            body = await rest_of(raw)
            assert data_lines(body)[-1] == b"[DONE]"
            assert body.count(b"y") > 29_000_000
            assert await raw.rest() == b"", "its connection is closed behind it"
        assert (await server.process.end()).status == 0


async def refused(port: int) -> None:
    """Return once nobody listens any more."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # it was in the queue when the queue was closed
            writer.close()
            await asyncio.sleep(0.005)


async def test_what_outlives_the_drain_is_told_and_its_upstream_closed(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, serving(tmp_path, sim, drain_s=0.1) as server:
        sim.script(Script(chunks=9, stall_after=2))
        async with server.streaming() as raw:
            server.process.signal()
            body = await rest_of(raw)
        assert b'"code":"shutting_down"' in data_lines(body)[-1]
        assert b"[DONE]" not in body
        assert (await server.process.end()).status == 0
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert sim.requests[-1].aborted


async def test_told_twice_it_ends_at_once(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, serving(tmp_path, sim, drain_s=3600) as server:
        sim.script(Script(chunks=9, stall_after=2))
        async with server.streaming() as raw:
            server.process.signal()
            await refused(server.port)
            server.process.signal(signal.SIGINT)
            body = await raw.rest()
            assert b"[DONE]" not in body, "it must not look whole"
        assert "Traceback" not in (await server.process.end()).err
        await sim.wait_until(lambda: sim.stats()["live"] == 0)


async def test_hangup_puts_a_good_file_in_force_and_refuses_a_bad_one(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, serving(tmp_path, sim) as server:
        sim.script(LONG)
        async with server.streaming() as raw:
            server.file.write_text(configuration(sim, "fresh"), encoding="utf-8")
            server.process.signal(signal.SIGHUP)
            await server.process.says("configuration reloaded from")
            assert await server.models() == ["fresh"]
            assert not sim.requests[-1].finished
            # What runs keeps what it began with, though its model is no longer served.
            assert data_lines(await rest_of(raw))[-1] == b"[DONE]"
        server.file.write_text(configuration(sim, "worse") + "chanels: []\n", encoding="utf-8")
        server.process.signal(signal.SIGHUP)
        await server.process.says("the new configuration is refused, the old one stays")
        await server.process.says(r"config\.yaml:\d+:1: .*channels")
        assert await server.models() == ["fresh"]
        server.file.unlink()
        server.process.signal(signal.SIGHUP)
        await server.process.says("the new configuration is refused, the old one stays")
        assert await server.models() == ["fresh"]


async def test_a_port_in_use_is_told_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        (tmp_path / "config.yaml").write_text(configuration(sim), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = await ended("serve", "--config", "config.yaml", "--port", port, folder=tmp_path)
    assert done.status == 2
    assert port in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("antiphon: ")


async def test_a_wrong_file_never_half_starts(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server: {prt: 1}\nchannels: 3\n", encoding="utf-8")
    done = await ended("serve", "--config", "config.yaml", folder=tmp_path)
    assert (done.status, done.out) == (2, "")
    first, second, *_ = done.err.splitlines()
    assert "config.yaml:1:10: server.prt" in first
    assert "port" in first
    assert "config.yaml:2:" in second
    assert "Traceback" not in done.err


@pytest.mark.parametrize("port", ["70000", "-1"])
async def test_a_wrong_port_is_wrong_usage(port: str, tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        (tmp_path / "config.yaml").write_text(configuration(sim), encoding="utf-8")
        done = await ended("serve", "--config", "config.yaml", f"--port={port}", folder=tmp_path)
    assert done.status == 2
    assert done.err.startswith("--port: must be a whole number from 0 to 65535")
    assert "Traceback" not in done.err


async def test_a_wrong_host_names_the_option(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        (tmp_path / "config.yaml").write_text(configuration(sim), encoding="utf-8")
        arguments = ("serve", "--config", "config.yaml", "--host", "no such host")
        done = await ended(*arguments, folder=tmp_path, ANTIPHON_HOST="127.0.0.1")
    assert done.status == 2
    assert done.err.startswith("--host: server.host: must be an address")
    assert "ANTIPHON_HOST:" not in done.err


async def test_an_empty_file_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# nothing yet\n", encoding="utf-8")
    for name in ("serve", "check"):
        done = await ended(name, *(("--config",) if name == "serve" else ()), "config.yaml", folder=tmp_path)
        assert (done.status, done.out) == (2, "")
        assert "at least one channel" in done.err


async def test_hangup_says_what_needs_a_restart_and_goes_on_serving(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, serving(tmp_path, sim) as server:
        text = configuration(sim, "fresh").replace("port: 0", "port: 9, host: localhost")
        server.file.write_text(text, encoding="utf-8")
        server.process.signal(signal.SIGHUP)
        await server.process.says("take effect at the next start only: server.host, server.port$")
        await server.process.says("configuration reloaded from")
        assert await server.models() == ["fresh"]


async def test_hangup_never_opens_a_server_that_others_can_reach(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        file = tmp_path / "config.yaml"
        opened = configuration(sim)
        keys = "access: {keys: [{name: me, key: key-of-mine}]}\n"
        file.write_text(opened.replace("port: 0", "port: 0, host: 0.0.0.0") + keys, encoding="utf-8")
        async with command("serve", "--config", str(file), folder=tmp_path) as process:
            port = int((await process.says(r"Antiphon serves http://[^ ]*:(\d+)/v1"))[1])
            file.write_text(opened, encoding="utf-8")
            process.signal(signal.SIGHUP)
            await process.says("refused, the old one stays: without keys it needs a restart")
            async with connect("127.0.0.1", port) as raw:
                await raw.send(get_request("/v1/models"))
                assert (await raw.answer()).status == 401


async def test_it_starts_with_a_dead_upstream_without_network_and_without_a_home(tmp_path: Path) -> None:
    text = (
        "server: {port: 0}\nchannels:\n"
        "  - {name: dead, kind: openai, base_url: 'http://127.0.0.1:1/v1', models: [m],"
        " timeouts: {connect_s: 1}}\n"
    )
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    arguments = ("serve", "--config", "config.yaml")
    async with command(*arguments, folder=tmp_path, HOME="/nonexistent") as process:
        port = int((await process.says(GREETING))[1])
        async with connect("127.0.0.1", port) as raw:
            await raw.send(get_request("/readyz"))
            assert (await raw.answer()).status == 200
            await raw.send(chat_request(ask()))
            assert error_of(await raw.answer(), 502)["code"] == "upstream_unreachable"
        process.signal()
        assert (await process.end()).status == 0
