"""``antiphon simulate``: an upstream on this machine, as a process."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from server.cli import main
from tests.behaviour.asking import chat_request, chunks_of, get_request, text_of
from tests.behaviour.running import ask
from tests.cli.command import command, ended
from tests.raw_http import connect

KEY = "sk-simulated-0123456789"


async def test_it_answers_where_it_says_by_the_script_that_it_is_told(tmp_path: Path) -> None:
    async with command(
        "simulate", "openai", "--port", "0", "--api-key", KEY, folder=tmp_path, PYTHONUNBUFFERED="1"
    ) as running:
        assert running.process.stdout is not None
        greeting = (await running.process.stdout.readline()).decode()
        assert "/sim/help" in greeting
        port = int(greeting.partition("http://127.0.0.1:")[2].partition("/")[0])
        async with connect("127.0.0.1", port) as raw:
            await raw.send(chat_request(ask(stream=True)))
            assert (await raw.answer()).status == 401
            request = ask(text='sim: {"pieces": ["a", "b"]}', stream=True)
            await raw.send(chat_request(request, f"Authorization: Bearer {KEY}"))
            assert text_of(chunks_of((await raw.answer()).body)) == "ab"
            await raw.send(get_request("/sim/help"))
            assert b"stall_after" in (await raw.answer()).body
        running.signal(signal.SIGINT)
        done = await running.end()
        assert done.status == 130
        assert "Traceback" not in done.err


async def test_it_plays_spark_with_the_credentials_that_it_is_given(tmp_path: Path) -> None:
    credentials = ("--api-key", "k", "--api-secret", "s", "--api-password", "p", "--clock-offset", "-900")
    async with command(
        "simulate", "spark", "--port", "0", *credentials, folder=tmp_path, PYTHONUNBUFFERED="1"
    ) as running:
        assert running.process.stdout is not None
        greeting = (await running.process.stdout.readline()).decode()
        port = int(greeting.partition("ws://127.0.0.1:")[2].partition("/")[0])
        async with connect("127.0.0.1", port) as raw:
            request = ask("generalv3.5", stream=False)
            await raw.send(chat_request(request))
            assert (await raw.answer()).status == 401
            await raw.send(chat_request(request, "Authorization: Bearer p"))
            assert b"You said" in (await raw.answer()).body
        running.signal(signal.SIGTERM)
        done = await running.end()
        assert (done.status, done.err) == (0, "")


async def test_it_plays_anthropic_with_the_key_that_it_is_given(tmp_path: Path) -> None:
    async with command(
        "simulate", "anthropic", "--port", "0", "--api-key", KEY, folder=tmp_path, PYTHONUNBUFFERED="1"
    ) as running:
        assert running.process.stdout is not None
        greeting = (await running.process.stdout.readline()).decode()
        port = int(greeting.partition("http://127.0.0.1:")[2].partition(" ")[0])
        async with connect("127.0.0.1", port) as raw:
            request = ask("claude-sim", max_tokens=9)
            version = "anthropic-version: 2023-06-01"
            await raw.send(chat_request(request, version, "x-api-key: other", path="/v1/messages"))
            assert (await raw.answer()).status == 401
            await raw.send(chat_request(request, version, f"x-api-key: {KEY}", path="/v1/messages"))
            assert b"You said" in (await raw.answer()).body
        running.signal(signal.SIGTERM)
        done = await running.end()
        assert (done.status, done.err) == (0, "")


async def test_it_plays_gemini_with_the_key_that_it_is_given(tmp_path: Path) -> None:
    async with command(
        "simulate", "gemini", "--port", "0", "--api-key", KEY, folder=tmp_path, PYTHONUNBUFFERED="1"
    ) as running:
        assert running.process.stdout is not None
        greeting = (await running.process.stdout.readline()).decode()
        port = int(greeting.partition("http://127.0.0.1:")[2].partition(" ")[0])
        async with connect("127.0.0.1", port) as raw:
            request = {"contents": [{"parts": [{"text": "hello"}]}]}
            path = "/v1beta/models/gemini-sim:generateContent"
            await raw.send(chat_request(request, "x-goog-api-key: other", path=path))
            assert (await raw.answer()).status == 400
            await raw.send(chat_request(request, f"x-goog-api-key: {KEY}", path=path))
            assert b"You said: hello" in (await raw.answer()).body
        running.signal(signal.SIGTERM)
        done = await running.end()
        assert (done.status, done.err) == (0, "")


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await ended("simulate", "openai", "--port", port, folder=tmp_path)
    assert done.status == 2
    assert done.err.startswith(f"antiphon: 127.0.0.1:{port} cannot be used: ")
    assert len(done.err.splitlines()) == 1


def test_a_kind_that_nobody_plays_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended_with:
        main(["simulate", "nobody"])
    assert ended_with.value.code == 2
    assert "openai" in capsys.readouterr().err


def test_its_help_tells_what_a_script_may_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended_with:
        main(["simulate", "--help"])
    assert ended_with.value.code == 0
    out = capsys.readouterr().out
    for word in ("--api-key", "--port", "/sim/help", "/sim/requests"):
        assert word in out
