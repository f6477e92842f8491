"""``antiphon simulate KIND``: play an upstream on this machine."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from server.serving import run as run_loop
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.azure import AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.ollama import OllamaSimulator
from server.simulators.openai import OpenAISimulator
from server.simulators.simulator import Simulator
from server.simulators.spark import SparkSimulator
from server.simulators.spark_asked import SparkRules
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_signature import SparkKey

# What makes a simulator of the command's options, for a port.
_Maker: TypeAlias = Callable[[argparse.Namespace, int], Simulator[Any]]
_KEY = SparkKey()


def _ollama(options: argparse.Namespace, port: int) -> OllamaSimulator:
    return OllamaSimulator(port, options.host)


def _openai(options: argparse.Namespace, port: int) -> OpenAISimulator:
    return OpenAISimulator(port, options.host, api_key=options.api_key)


def _anthropic(options: argparse.Namespace, port: int) -> AnthropicSimulator:
    return AnthropicSimulator(port, options.host, api_key=options.api_key)


def _azure(options: argparse.Namespace, port: int) -> AzureSimulator:
    return AzureSimulator(port, options.host, api_key=options.api_key)


def _gemini(options: argparse.Namespace, port: int) -> GeminiSimulator:
    return GeminiSimulator(port, options.host, api_key=options.api_key)


def _spark(options: argparse.Namespace, port: int) -> SparkSimulator:
    key = SparkKey(options.app_id, options.api_key or _KEY.key, options.api_secret, options.api_password)
    return SparkSimulator(
        port,
        options.host,
        keys=(key,),
        rules=SparkRules(strict=not options.lax),
        limits=SparkLimits(options.sessions, options.per_second),
        clock_offset_s=options.clock_offset,
    )


_KINDS: dict[str, tuple[type[Simulator[Any]], _Maker]] = {
    "openai": (OpenAISimulator, _openai),
    "spark": (SparkSimulator, _spark),
    "anthropic": (AnthropicSimulator, _anthropic),
    "azure": (AzureSimulator, _azure),
    "ollama": (OllamaSimulator, _ollama),
    "gemini": (GeminiSimulator, _gemini),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        f"{kind}\n{'=' * len(kind)}\n\n{simulator.help}" for kind, (simulator, _) in _KINDS.items()
    )
    parser.add_argument("kind", choices=list(_KINDS), help="whose dialect to speak")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    ports = ", ".join(f"{kind} {simulator.default_port}" for kind, (simulator, _) in _KINDS.items())
    parser.add_argument("--port", type=int, help=f"port to listen on (default: {ports})")
    parser.add_argument(
        "--api-key",
        help="openai, azure, anthropic, gemini: refuse requests that do not bring this key; "
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
    kind, make = _KINDS[options.kind]
    port = kind.default_port if options.port is None else options.port
    try:
        run_loop(_until_told(make(options, port).serve(_tell)))
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


def _tell(simulator: Simulator[Any]) -> None:
    print(f"{simulator.title} at {simulator.where} — scripts: {simulator.url}/sim/help", flush=True)
