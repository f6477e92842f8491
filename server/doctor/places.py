"""Where a channel's simulator is to be found, and the places where there is none that could answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from server.doctor.aiming import SPARK_KEY
from server.doctor.faults import SIBLING, Fault, Place
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.azure import AzureScript, AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import GeminiScript
from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.simulators.simulator import Simulator
from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
"""Signed the certificates for ``localhost``; nobody has its key any more."""

MOST_CALLS = 200
"""More calls than this find a Spark that is well again."""

WRONG_CLOCK_S = -900.0
"""Spark takes signatures of the last and the next 300 seconds."""

_CERTIFICATES: dict[Place, str] = {
    "tls-good": "good",
    "tls-expired": "expired",
    "tls-other-name": "other-name",
    "tls-stranger": "stranger",
}
_NOT_TLS = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

# What makes the simulator of a kind, whose scripts are of its own.
_HTTP: dict[str, tuple[Callable[..., Simulator[Any]], type[Script]]] = {
    "openai": (OpenAISimulator, Script),
    "azure": (AzureSimulator, AzureScript),
    "anthropic": (AnthropicSimulator, AnthropicScript),
    "gemini": (GeminiSimulator, GeminiScript),
    "ollama": (OllamaSimulator, OllamaScript),
}


async def upstream(stack: AsyncExitStack, kind: str, fault: Fault | None) -> tuple[Simulator[Any], str]:
    """A simulator for a channel, served until ``stack`` is closed, and where the channel will look for it.

    Without a fault it says ``SIBLING``. Raises OSError without free ports.
    """
    place: Place = "answer" if fault is None else fault.place
    certificate = _CERTIFICATES.get(place)
    tls = None if certificate is None else _server_tls(certificate)
    simulator = _simulator(kind, fault, tls)
    await stack.enter_async_context(simulator)
    url = simulator.ws_url if isinstance(simulator, SparkSimulator) else simulator.url
    path = "/v1" if kind == "openai" else ""
    scheme, _, address = url.partition("://")
    match place:
        case "refused":
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))  # taken, and nobody listens
            address = f"127.0.0.1:{held.getsockname()[1]}"
        case "dns":
            address = "doctor.invalid"  # RFC 2606: there will never be such a name
        case "backlog":
            address = _full_backlog(stack)
        case "tls-plain":
            scheme, address = _secure(scheme), await _listener(stack, _NOT_TLS)
        case "tls-silent":
            scheme, address = _secure(scheme), await _listener(stack, b"")
        case _:
            pass  # the simulator's own
    return simulator, f"{scheme}://{address}{path}"


def _simulator(kind: str, fault: Fault | None, tls: ssl.SSLContext | None) -> Simulator[Any]:
    if kind == "spark":
        spark = SparkSimulator(ssl_context=tls, keys=(SPARK_KEY,), default=SparkScript(text=SIBLING))
        if fault is not None and isinstance(fault.script, SparkScript):
            spark.script(fault.script, times=MOST_CALLS)  # queued: a handshake knows no default
            spark.clock_offset_s = WRONG_CLOCK_S if fault.place == "clock" else 0.0
        return spark
    make, script = _HTTP[kind]
    return make(ssl_context=tls, default=script(text=SIBLING) if fault is None else fault.script)


def _secure(scheme: str) -> str:
    return {"http": "https", "ws": "wss"}.get(scheme, scheme)


def _server_tls(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    return context


def _full_backlog(stack: AsyncExitStack) -> str:
    """An address whose queue of new connections is full: the kernel neither takes nor refuses any more."""
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listening.getsockname())
    return f"127.0.0.1:{listening.getsockname()[1]}"


async def _listener(stack: AsyncExitStack, words: bytes) -> str:
    """The address of one that says ``words`` to whatever it hears, and hangs up; or is silent."""
    server = await asyncio.get_running_loop().create_server(lambda: _Speaker(words), "127.0.0.1", 0)
    stack.callback(server.close)
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class _Speaker(asyncio.Protocol):
    def __init__(self, words: bytes) -> None:
        self._words = words

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._words:
            self._transport.write(self._words)
            self._transport.close()
