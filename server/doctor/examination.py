"""Does each fault to the served application, and judges what its client saw."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import msgspec
import orjson
from aiohttp import web

from server.app import create_app
from server.doctor.aiming import aimed, attempts, targets
from server.doctor.catalogue import Fault, Seen
from server.settings import Channel, Settings
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.azure import AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.ollama import OllamaSimulator
from server.simulators.openai import OpenAISimulator
from server.simulators.simulator import Simulator
from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript

AT_ONCE = 8
PATIENCE_S = 6.0
"""Seconds until a client that sees no end is an answer of its own."""

MOST_CALLS = 100
"""More calls than this find a Spark that is well again."""

WRONG_CLOCK_S = -900.0
"""Spark takes signatures of the last and the next 300 seconds."""

# Those of kinds over HTTP that are no OpenAI.
_HTTP: dict[str, Callable[[], Simulator[Any]]] = {
    "anthropic": AnthropicSimulator,
    "gemini": GeminiSimulator,
    "azure": AzureSimulator,
    "ollama": OllamaSimulator,
}


class Case(msgspec.Struct, frozen=True):
    """One fault to one model. ``rescued``: only its first channel is sick, so its siblings should answer."""

    fault: Fault
    model: str
    channels: list[Channel]
    rescued: bool


class Told(msgspec.Struct, frozen=True):
    """What a client saw. ``status`` 0: no end within ``PATIENCE_S``."""

    status: int
    code: str | None
    seen: Seen | None
    seconds: float


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the scorecard; ``wrong`` is empty where all is well."""

    fault: str
    model: str
    rescued: bool
    status: int
    code: str | None
    seen: Seen | None
    seconds: float
    calls: int
    wrong: str


def cases(settings: Settings, faults: Iterable[Fault]) -> list[Case]:
    """Every fault for every set of channels whose first choice speaks its dialect."""
    planned = []
    for model, channels in targets(settings):
        for fault in faults:
            if fault.kind == channels[0].kind:
                planned.append(Case(fault, model, channels, False))
                if fault.retried and len(channels) > 1:
                    planned.append(Case(fault, model, channels, True))
    return planned


async def examine(
    settings: Settings, planned: list[Case], on_done: Callable[[Finding], None]
) -> list[Finding]:
    """Carry out the cases, a few at a time; findings come in their order. Raises OSError without ports."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Finding:
        async with slots:
            finding = await _carry_out(settings, case)
        on_done(finding)
        return finding

    with _quiet(logging.getLogger("antiphon")):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(case), name=f"fault {case.fault.name}") for case in planned]
    return [task.result() for task in tasks]


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    """Without its warnings and errors: each fault would be told there as well."""
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


async def _carry_out(settings: Settings, case: Case) -> Finding:
    async with AsyncExitStack() as stack:
        simulators, urls = [], []
        for place, channel in enumerate(case.channels):
            sick = place == 0 or (not case.rescued and channel.kind == case.fault.kind)
            simulator, url = await _upstream(stack, channel, case.fault if sick else None)
            simulators.append(simulator)
            urls.append(url)
        channels = case.channels
        if not case.rescued:  # one that speaks another dialect cannot have this fault
            kept = [place for place, one in enumerate(channels) if one.kind == case.fault.kind]
            channels, urls = [channels[place] for place in kept], [urls[place] for place in kept]
        base = await stack.enter_async_context(_served(aimed(settings, channels, urls)))
        told = await _ask(base, case.model)
        calls = sum(len(simulator.requests) for simulator in simulators)
    return Finding(
        fault=case.fault.name,
        model=case.model,
        rescued=case.rescued,
        status=told.status,
        code=told.code,
        seen=told.seen,
        seconds=round(told.seconds, 3),
        calls=calls,
        wrong=judge(case, told, calls, attempts(settings.routing, case.model)),
    )


def judge(case: Case, told: Told, calls: int, allowed: int) -> str:
    """What is wrong with what the client saw, in words; empty if nothing is."""
    fault = case.fault
    expected: Seen = "whole" if case.rescued else fault.sees
    if told.seen is None:
        return f"no end within {PATIENCE_S:g} s: is a time-out switched off?"
    if told.seen != expected:
        sibling = "; another channel was well, and did not answer" if case.rescued else ""
        return f"expected {expected}, the client saw {told.seen}{sibling}"
    if expected == "error" and told.status not in fault.statuses:
        return f"expected status {' or '.join(map(str, fault.statuses))}, the client saw {told.status}"
    most = fault.dials * (allowed if fault.retried else 1)
    if calls > most:
        return f"{calls} upstream calls where {most} may be made"
    return ""


async def _upstream(
    stack: AsyncExitStack, channel: Channel, fault: Fault | None
) -> tuple[Simulator[Any], str]:
    """A simulator for a channel, and where the channel will look for it."""
    if channel.kind == "spark":
        spark = SparkSimulator()
        await stack.enter_async_context(spark)
        if fault is not None and isinstance(fault.script, SparkScript):
            spark.script(fault.script, times=MOST_CALLS)  # queued: a handshake knows no default
            spark.clock_offset_s = WRONG_CLOCK_S if fault.place == "clock" else 0.0
        return spark, spark.ws_url
    simulator: Simulator[Any] = _HTTP.get(channel.kind, OpenAISimulator)()
    if fault is not None:
        simulator.default = fault.script
    await stack.enter_async_context(simulator)
    url = simulator.base_url if isinstance(simulator, OpenAISimulator) else simulator.url
    match fault.place if fault is not None else "answer":
        case "refused":
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))  # taken, and nobody listens
            url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        case "tls":
            url = url.replace("http://", "https://")
        case "dns":
            url = "http://doctor.invalid/v1"  # RFC 2606: there will never be such a name
    return simulator, url


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[str]:
    """The application on a free port of loopback."""
    runner = web.AppRunner(
        create_app(settings), handler_cancellation=True, access_log=None, shutdown_timeout=1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _ask(base: str, model: str) -> Told:
    """One streamed request, read to its end."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "one two three four"}]}
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            aiohttp.ClientSession(read_bufsize=2**20) as session,
            session.post(f"{base}/v1/chat/completions", json=body) as response,
        ):
            status = response.status
            try:
                data = await response.read()
            except aiohttp.ClientPayloadError:
                data = b""
    except TimeoutError:
        return Told(0, None, None, loop.time() - started)
    seen, code = what_was_seen(status, data)
    return Told(status, code, seen, loop.time() - started)


def what_was_seen(status: int, data: bytes) -> tuple[Seen, str | None]:
    """What an answer comes down to for its client, and the code of its error."""
    if status != 200:
        return "error", _code(data)
    lines = [line.removeprefix(b"data:").strip() for line in data.splitlines() if line.startswith(b"data:")]
    if lines and lines[-1] == b"[DONE]":
        return "whole", None
    return "cut", _code(lines[-1]) if lines else None


def _code(data: bytes) -> str | None:
    try:
        code = orjson.loads(data)["error"]["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) else None
