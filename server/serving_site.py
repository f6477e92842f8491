"""Where a server listens: addresses bound before anything else is started, and a site that serves on one."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from server.serving_protocol import Connection, Connections

BACKLOG = 4096
"""Connections that the kernel holds until we accept them; it cuts this to its own net.core.somaxconn."""

# Lacking one family is no reason not to serve on the other: ``localhost`` in a container without IPv6.
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


class CannotListen(Exception):
    """An address cannot be listened on; the text is one line that says why and what to do."""


async def bind(host: str, port: int) -> list[socket.socket]:
    """Bind every address of ``host`` and return the sockets, which do not listen yet; the caller closes them.

    An empty host means all addresses of the machine. Port 0 takes a free one, the same for every address.
    Raises CannotListen.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"{host} is not a known host: check server.host or --host") from error
    bound: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, _type, _proto, _name, address in dict.fromkeys(found):
            wanted = bound[0].getsockname()[1] if bound else port
            try:
                bound.append(_bind_one(family, (address[0], wanted, *address[2:])))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                failure = error
        if not bound:
            raise failure or OSError(errno.EADDRNOTAVAIL, "no address")
    except OSError as error:
        for sock in bound:
            sock.close()
        raise cannot_listen(host, port, error) from error
    return bound


def _bind_one(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # A restart need not wait until the old connections have left TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 is bound by itself
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    """The one line for a failed ``bind`` or ``listen``."""
    where = f"{_bracketed(host)}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return CannotListen(f"{where} is in use: another server? Use --port or server.port")
        case errno.EACCES | errno.EPERM:
            return CannotListen(f"{where} may not be used by this user: use a --port above 1023")
        case errno.EADDRNOTAVAIL:
            return CannotListen(f"{host} is not an address of this machine: check server.host or --host")
        case _:
            return CannotListen(f"{where} cannot be listened on: {error.strerror}")


def url(sock: socket.socket) -> str:
    """The address that a bound socket is reached at, without a slash at its end."""
    host, port = sock.getsockname()[:2]
    return f"http://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Site(web.BaseSite):
    """Serves a runner's application on one bound socket, each client through a ``Connection``.

    ``connection_options`` are ``Connection``'s keyword arguments. The socket is the site's from ``start`` on.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        connections: Connections,
        connection_options: Mapping[str, Any],
    ) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._socket = sock
        self._connections = connections
        self._connection_options = connection_options
        self._name = url(sock)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, sock=self._socket, backlog=self._backlog)

    def _connect(self) -> Connection:
        manager = self._runner.server
        assert manager is not None
        return Connection(
            manager,
            connections=self._connections,
            loop=asyncio.get_running_loop(),
            **self._connection_options,
        )
