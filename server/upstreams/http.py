"""What an upstream needs of HTTP/1.1, whichever client carries it out.

Two clients keep these promises: ``http_fast`` (our own) and ``http_aiohttp`` (proxies, and the way out if
ours has a defect). Both raise our errors only, so that nobody above knows which one was at work.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias, TypeVar

from yarl import URL

from server.errors import (
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from server.settings import Tls
from server.surfaces import Upload
from server.upstreams.clocks import Patrol

# Of an answer's head, interim answers and trailers too.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
# An idle connection is kept for so long. (seconds)
KEEP_S = 60.0

# Connections are shared by what goes to one origin: host, port, and the TLS context that verified it.
Origin: TypeAlias = tuple[str, int, ssl.SSLContext | None]


T = TypeVar("T")
# Takes what ends a call with an error.
Fail: TypeAlias = Callable[[ServerError], object]
Watch: TypeAlias = Callable[[Fail], object]


# Is told of a request that is sent a second time, and why.
Again: TypeAlias = Callable[[ServerError], object]


def nobody_watches(fail: Fail) -> None:
    """Of a call that runs without limits."""


def nobody_counts(error: ServerError) -> None:
    """Of a call whose attempts are nobody's business."""


async def watched(
    step: Awaitable[T], watch: Watch, *, discard: Callable[[T], object], connect_s: float = 0
) -> T:
    """What ``step`` of a call gives, unless the call is ended before it does.

    ``watch`` is given what ends it; called with an error, that is raised. ``connect_s`` (0: no limit) is the
    time for the step, raised as UpstreamTimeout("connect"). What comes about in the very moment in which the
    call ends is handed to ``discard``. A TimeoutError of the step's own, which is the kernel's, goes through.
    """
    failed: ServerError | None = None
    try:
        async with asyncio.timeout(connect_s or None) as clock:

            def fail(error: ServerError) -> None:
                nonlocal failed
                failed = error
                if not clock.expired():
                    clock.reschedule(asyncio.get_running_loop().time())

            watch(fail)
            made = await step
    except TimeoutError as error:
        if failed is not None:
            raise failed from error
        if clock.expired():
            raise UpstreamTimeout("connect", connect_s) from error
        raise
    if failed is not None:
        discard(made)
        raise failed
    return made


class HttpAnswer(Protocol):
    """One answer whose head has come. Whoever holds it calls ``close``, whatever happens."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; values of a name given twice are joined by a comma."""

    async def read(self) -> bytes:
        """All of the body that has come, at least one byte; b"" at its end.

        Raises UpstreamCut if the connection ended before the body did, UpstreamInvalid if the body is in an
        encoding that cannot be read, and what ``fail`` was given. One reader at a time.
        """

    @property
    def at_end(self) -> bool:
        """The whole body has come and was read."""

    def fail(self, error: Exception) -> None:
        """End the reading: the pending ``read``, or the next one, raises ``error``."""

    def close(self) -> None:
        """Give the connection back if the answer was read to its end; else close it, now."""


class HttpClient(Protocol):
    """Sends requests. Connections are kept and shared; ``aclose`` closes all of them, in use or not.

    ``patrol`` looks after the calls of the event loop that it was made in.
    """

    patrol: Patrol

    async def post(
        self,
        target: Target,
        body: bytes,
        *,
        connect_s: float,
        watch: Watch = nobody_watches,
        again: Again = nobody_counts,
    ) -> HttpAnswer:
        """Send one request and return its answer when the head has come; interim answers are skipped.

        A client may send it a second time, where a kept connection turns out to have been closed; ``again``
        is told before it does.

        ``connect_s`` (0: no limit) is the time for name, connection and TLS together. Nothing else is timed:
        ``watch`` is given what ends the call, once for each step of it; called with an error, that is what
        ``post`` raises. Or the caller cancels. A call that was ended has closed its connection.

        Raises UpstreamTimeout("connect"), UpstreamUnreachable (no connection, or closed before an answer)
        and UpstreamInvalid (an answer that is not HTTP).
        """

    async def aclose(self) -> None:
        """Close every connection."""


class Uploader(Protocol):
    """Sends requests whose bodies are too large to be held in memory."""

    async def upload(
        self, target: Target, body: Upload, *, connect_s: float, watch: Watch = nobody_watches
    ) -> HttpAnswer:
        """As ``HttpClient.post``; the body is read while it is sent, and no further if the answer comes."""


class Target:
    """Where requests go and what goes with each; prepared once. No repr: it holds secrets.

    ``head`` is the request up to the value of Content-Length. ``literal`` says that the host is an address,
    which needs no look-up. ``keep`` is false if the headers ask the server to close after its answer.
    """

    __slots__ = ("head", "headers", "keep", "literal", "origin", "proxy", "url")

    def __init__(
        self,
        url: URL,
        headers: Mapping[str, str],
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        """``tls`` verifies the server of an https URL and is needed for one; see ``tls_context``.

        Raises ValueError for what cannot be put into a request's head.
        """
        if url.scheme not in ("http", "https") or not url.raw_host or not url.port:
            raise ValueError("an upstream's address must be an http or https URL")
        if (url.scheme == "https") != (tls is not None):
            raise ValueError("an https URL, and only that, goes with a TLS context")
        self.url = url
        self.headers = headers
        self.proxy = proxy
        self.origin: Origin = (url.raw_host, url.port, tls)
        self.literal = _is_address(url.raw_host)
        self.keep = headers.get("Connection", "").lower() != "close"
        self.head = _request_head(url, headers)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What verifies the server; None for a plain connection."""
        return self.origin[2]


def tls_context(tls: Tls) -> ssl.SSLContext:
    """What verifies an upstream's certificate. Those without settings of their own share one context.

    Raises OSError (ssl.SSLError) if a file cannot be read.
    """
    return _system_tls() if tls == Tls() else _make_tls(tls)


def cut() -> UpstreamCut:
    """The connection ended before the body did."""
    return UpstreamCut("The upstream's answer was cut off before its end; try again.")


def not_http() -> UpstreamInvalid:
    """The answer cannot be read as HTTP."""
    return UpstreamInvalid("The upstream's answer is not HTTP that can be read.")


def unreadable() -> UpstreamInvalid:
    """The body is compressed in a way that was not asked for, or broken."""
    return UpstreamInvalid("The upstream's answer is compressed in a way that cannot be read.")


def unreachable() -> UpstreamUnreachable:
    """No connection came about."""
    return UpstreamUnreachable(
        "The upstream cannot be reached; check address, DNS, TLS and proxy of the channel."
    )


def refused_by_proxy(status: int) -> UpstreamError:
    """The channel's proxy answered in place of the upstream: it made no connection to it."""
    if status == 407:
        return UpstreamAuth("The channel's proxy wants another user and password (status 407); mend proxy.")
    return UpstreamUnreachable(f"The channel's proxy did not connect to the upstream (status {status}).")


def unanswered() -> UpstreamUnreachable:
    """The connection was closed before the answer's head was whole."""
    return UpstreamUnreachable("The upstream closed the connection before it answered.")


def _request_head(url: URL, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any(char in line for line in lines for char in "\r\n\0"):
        raise ValueError("a header of a request must be one line")
    return "\r\n".join([*lines, "Content-Length: "]).encode()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@functools.cache
def _system_tls() -> ssl.SSLContext:
    return _make_tls(Tls())  # reads the system's certificates: some 20 ms


def _make_tls(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
