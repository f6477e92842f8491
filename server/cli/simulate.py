"""``antiphon simulate KIND``: play an upstream on this machine."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine

from server.serving import run as run_loop
from server.simulators import anthropic, openai, spark
from server.simulators.script import HELP
from server.simulators.spark_asked import SparkRules
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_script import HELP as SPARK_HELP
from server.simulators.spark_signature import SparkKey

_KEY = SparkKey()
_EPILOG = f"openai\n======\n\n{HELP}\nspark\n=====\n\n{SPARK_HELP}\nanthropic\n=========\n\n{anthropic.HELP}"
_PORTS = {
    "openai": openai.DEFAULT_PORT,
    "spark": spark.DEFAULT_PORT,
    "anthropic": anthropic.DEFAULT_PORT,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("kind", choices=list(_PORTS), help="whose dialect to speak")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    ports = ", ".join(f"{kind} {port}" for kind, port in _PORTS.items())
    parser.add_argument("--port", type=int, help=f"port to listen on (default: {ports})")
    parser.add_argument(
        "--api-key",
        help="openai, anthropic: refuse requests that do not bring this key; "
        f"spark: the APIKey (default: {_KEY.key})",
    )
    group = parser.add_argument_group("spark")
    group.add_argument("--app-id", default=_KEY.app_id, help="the AppID (default: %(default)s)")
    group.add_argument("--api-secret", default=_KEY.secret, help="the APISecret (default: %(default)s)")
    group.add_argument(
        "--api-password", default=_KEY.password, help="the bearer of the HTTP routes (default: %(default)s)"
    )
    group.add_argument("--lax", action="store_true", help="take roles in any order, and empty contents")
    group.add_argument("--sessions", type=int, help="more of them at once are refused with 11203")
    group.add_argument("--per-second", type=int, help="more requests in a second are refused with 11202")
    group.add_argument(
        "--clock-offset",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how far the clock is wrong; beyond 300 every signature of a right clock is refused",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted, or ended by SIGTERM (status 0). Status 2 when the address is taken."""
    port = _PORTS[options.kind] if options.port is None else options.port
    play = {"openai": _openai, "spark": _spark, "anthropic": _anthropic}[options.kind]
    try:
        run_loop(_until_told(play(options, port)))
    except OSError as error:
        print(f"antiphon: {options.host}:{port} cannot be used: {error.strerror}", file=sys.stderr)
        return 2
    return 0


async def _until_told(work: Coroutine[None, None, None]) -> None:
    """Carry out ``work`` until SIGTERM, which ends it in good order."""
    loop, task, told = asyncio.get_running_loop(), asyncio.current_task(), False
    assert task is not None

    def end() -> None:
        nonlocal told
        told = True
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        await work
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _openai(options: argparse.Namespace, port: int) -> Coroutine[None, None, None]:
    def ready(simulator: openai.OpenAISimulator) -> None:
        print(f"An OpenAI upstream at {simulator.base_url} — scripts: {simulator.url}/sim/help", flush=True)

    return openai.run(options.host, port, api_key=options.api_key, on_ready=ready)


def _anthropic(options: argparse.Namespace, port: int) -> Coroutine[None, None, None]:
    def ready(simulator: anthropic.AnthropicSimulator) -> None:
        print(f"An Anthropic at {simulator.url} — scripts: {simulator.url}/sim/help", flush=True)

    return anthropic.run(options.host, port, api_key=options.api_key, on_ready=ready)


def _spark(options: argparse.Namespace, port: int) -> Coroutine[None, None, None]:
    def ready(simulator: spark.SparkSimulator) -> None:
        urls = f"{simulator.ws_url}/v3.5/chat and {simulator.url}/v1"
        print(f"A Spark upstream at {urls} — scripts: {simulator.url}/sim/help", flush=True)

    return spark.run(
        options.host,
        port,
        key=SparkKey(options.app_id, options.api_key or _KEY.key, options.api_secret, options.api_password),
        rules=SparkRules(strict=not options.lax),
        limits=SparkLimits(options.sessions, options.per_second),
        clock_offset_s=options.clock_offset,
        on_ready=ready,
    )
