"""The embedded model's channel: what is refused, in which words, and what is put in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.errors import InvalidRequest, ServerError, UpstreamRefused
from server.openai_wire import parse_chat
from server.settings import Channel, ParamRules
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.upstreams.base import Call
from server.upstreams.factory import client_session
from server.upstreams.local import ANSWER_TOKENS, LocalUpstream
from server.upstreams.local_process import LocalProcess

CHANNEL = Channel(name="local", kind="local", models=("m",))
HELLO = {"role": "user", "content": "hello"}


@asynccontextmanager
async def local(sim: OpenAISimulator, folder: Path, **changes: Any) -> AsyncIterator[LocalUpstream]:
    """The channel, with a simulated upstream in the child's place."""
    report = msgspec.json.encode({"base_url": sim.base_url, "key": "k"}).decode()
    program = folder / "child.py"
    program.write_text(f"import sys\nsys.stdin.readline()\nprint({report!r}, flush=True)\nsys.stdin.read()\n")
    process = LocalProcess(
        path=folder / "model.gguf",
        threads=1,
        slots=1,
        context=3072,
        command=(sys.executable, "-S", str(program)),
    )
    clients = client_session()
    channel = msgspec.structs.replace(CHANNEL, **changes)
    upstream = LocalUpstream(channel, clients.of(channel), process)
    try:
        async with asyncio.timeout(30):
            yield upstream
    finally:
        await upstream.aclose()
        await clients.close()


async def ask(upstream: LocalUpstream, *messages: dict[str, Any], **fields: Any) -> None:
    chat = parse_chat(msgspec.json.encode({"model": "m", "messages": messages or (HELLO,), **fields}))
    async for _ in upstream.stream(chat, Call()):
        pass


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": [{"role": "x", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        (
            {"messages": [HELLO, {"role": "assistant", "content": None}]},
            "messages[1].content",
            "invalid_value",
        ),
        ({"messages": [HELLO, {"role": "assistant"}]}, "messages[1].content", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": -2}, "max_completion_tokens", "invalid_value"),
        ({"n_predict": 5}, "n_predict", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
    ],
)
async def test_what_it_cannot_is_refused_before_it_is_asked(
    tmp_path: Path, fields: dict[str, Any], param: str, code: str
) -> None:
    async with OpenAISimulator() as sim, local(sim, tmp_path) as upstream:
        with pytest.raises(InvalidRequest) as refused:
            await ask(upstream, *fields.pop("messages", ()), **fields)
        assert (refused.value.param, refused.value.code) == (param, code)
        assert not sim.requests


@pytest.mark.parametrize(
    ("said", "field", "told"),
    [
        (
            "Field 'top_k': [json.exception.type_error.302] type must be number, but is string",
            {"top_k": "x"},
            "The embedded model cannot take top_k: type must be number, but is string.",
        ),
        (
            "Unable to generate parser for this template. Automatic parser generation failed: "
            "JSON schema error at #: unrecognized type foo",
            {"response_format": {"type": "json_schema"}},
            "The embedded model cannot take response_format: JSON schema error at #: unrecognized type foo.",
        ),
        ("No luck.", {}, "The embedded model cannot take this request: No luck."),
    ],
)
async def test_its_own_refusals_are_told_in_our_words(
    tmp_path: Path, said: str, field: dict[str, Any], told: str
) -> None:
    async with OpenAISimulator() as sim, local(sim, tmp_path) as upstream:
        sim.script(Script(status=400, error_form="integer", error_message=said, error_code=400))
        with pytest.raises(ServerError) as refused:
            await ask(upstream, **field)
        error = refused.value
        assert (error.status, error.type, error.code) == (400, "invalid_request_error", "invalid_value")
        assert error.message == told
        assert error.param == next(iter(field), None)


async def test_a_prompt_that_is_too_long_keeps_its_own_code(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, local(sim, tmp_path) as upstream:
        sim.script(Script(status=400, error_code="context_length_exceeded"))
        with pytest.raises(UpstreamRefused) as refused:
            await ask(upstream)
        assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("channel", "fields", "limit"),
    [
        ({}, {}, ANSWER_TOKENS),
        ({"context": 512}, {}, 256),
        ({}, {"max_tokens": None}, ANSWER_TOKENS),
        ({}, {"max_tokens": 7}, 7),
        ({}, {"max_tokens": 0}, 0),
        ({"params": ParamRules(default={"max_tokens": 99})}, {}, 99),
    ],
)
async def test_an_answer_has_a_limit(
    tmp_path: Path, channel: dict[str, Any], fields: dict[str, Any], limit: int
) -> None:
    async with OpenAISimulator() as sim, local(sim, tmp_path, **channel) as upstream:
        await ask(upstream, **fields)
        assert sim.requests[0].json()["max_tokens"] == limit


async def test_a_limit_by_its_other_name_stays_alone(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim, local(sim, tmp_path) as upstream:
        await ask(upstream, max_completion_tokens=5)
        assert "max_tokens" not in sim.requests[0].json()
