"""What every simulated upstream has: a port, connections, a queue of scripts, a record of what came."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from server.simulators.answers import JSON, text_answer
from server.simulators.connection import BadRequest, Connection, Request
from server.simulators.errors import Fault, Refused, error_body
from server.simulators.playing import Answer, Player
from server.simulators.record import RecordedRequest, Records
from server.simulators.script import (
    BadScript,
    Script,
    field_help,
    read_script,
    read_scripts,
    script_in_message_as,
)

log = logging.getLogger(__name__)

QUEUED_SCRIPTS = 10_000
S = TypeVar("S", bound=Script)


class _Queued(NamedTuple, Generic[S]):
    script: S
    route: str
    model: str | None  # None: any


class Simulator(ABC, Generic[S]):
    """A simulated upstream: ``async with`` serves until the block is left, which closes all connections."""

    scripts: type[S]  # what its scripts are
    routes: tuple[str, ...]  # what a queued script may be for; the first unless told
    help: str  # how its scripts are spelled
    title: str  # what it plays, for who starts it
    default_port: int  # of one that is started by hand

    def __init__(self, port: int, host: str, default: S | None, ssl_context: ssl.SSLContext | None) -> None:
        """``port`` 0 takes a free one; ``default`` None: a script that says nothing of its own."""
        self.host, self.port = host, port
        self.default = self.scripts() if default is None else default
        self.accept_delay_s = (
            0.0  # a new connection is not read from for so long; no TLS handshake without ssl_context
        )
        self._ssl = ssl_context
        self._records = Records()
        self._queue: deque[_Queued[S]] = deque()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = (
            set()
        )  # outlive their connection by the time they take to unwind
        self._server: asyncio.Server | None = None

    # ── life ──

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop_listening()
        await self.drop_connections()

    async def listen(self) -> None:
        """Take connections, at the same port as before if there was one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self, self._records.new_connection),
            self.host,
            self.port,
            ssl=self._ssl,
            backlog=4096,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop_listening(self) -> None:
        """Refuse new connections; those that are open stay."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        for listening in self._server.sockets:
            loop.remove_reader(listening)
        # asyncio (not uvloop) forgets connections that it has accepted but not begun when the server closes:
        # they would stay open and silent (CPython 3.11, Server._attach). So they are begun first.
        for _ in range(3):  # their tasks, and what these call
            await asyncio.sleep(0)
        self._server.close()
        self._server = None

    async def drop_connections(self) -> None:
        """Close every open connection at once, whatever it is doing; return when all are closed."""
        now = asyncio.get_running_loop().time()
        for record in list(self._records.live.values()):
            self._records.end(record, "stopped", now)
        while self._connections or self._tasks:
            for connection in self._connections:
                connection.abort()  # its end cancels its task
            await asyncio.wait({*self._tasks, *(connection.closed for connection in self._connections)})

    @property
    def url(self) -> str:
        """Such as ``http://127.0.0.1:18901``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._ssl is None else 'https'}://{host}:{self.port}"

    async def serve(self, on_ready: Callable[[Self], None] | None = None) -> None:
        """Serve until cancelled. ``on_ready`` is called once the port is bound. Raises OSError."""
        async with self:
            if on_ready is not None:
                on_ready(self)
            await asyncio.get_running_loop().create_future()

    @property
    def where(self) -> str:
        """Where clients find it, in words."""
        return self.url

    # ── steering and watching ──

    def script(self, *scripts: S, route: str | None = None, model: str | None = None, times: int = 1) -> None:
        """Queue scripts, each for one request of ``route`` (one of ``routes``; None: the first), and
        of ``model`` if one is named; all of them ``times`` over. Raises ValueError beyond 10,000.
        """
        if len(self._queue) + len(scripts) * times > QUEUED_SCRIPTS:
            raise ValueError(f"at most {QUEUED_SCRIPTS} scripts can be queued")
        for _ in range(times):
            self._queue.extend(_Queued(script, route or self.routes[0], model) for script in scripts)

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last 10,000 requests, oldest first; those to /sim are not among them."""
        return list(self._records.requests)

    def stats(self) -> dict[str, int]:
        """Connections, requests, live answers and streams, and how answers ended."""
        return {**self._records.stats(), "queued": len(self._queue)}

    async def wait_until(self, predicate: Callable[[], bool], timeout: float = 10.0) -> None:
        """Return as soon as ``predicate()`` holds: it is asked again whenever a connection, a request or an
        answer has moved on. Raises TimeoutError after ``timeout`` seconds.
        """
        await self._records.wait_until(predicate, timeout)

    def clear(self) -> None:
        """Forget the recorded requests and the queued scripts. The counters go on."""
        self._records.clear()
        self._queue.clear()

    # ── connections ──

    def connected(self, connection: Connection) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(
            self._serve(connection), name=f"simulator:{connection.number}"
        )
        self._connections.add(connection)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._records.lost_connection(connection.number, asyncio.get_running_loop().time())

    async def _serve(self, connection: Connection) -> None:
        """Answer a connection's requests, one after the other, until it ends; that cancels this task."""
        if self.accept_delay_s:
            await asyncio.sleep(self.accept_delay_s)
        try:
            while True:
                request = await connection.next_request()
                await self._answer(connection, request)
        except BadRequest as error:
            _, body = error_body(Fault(400, f"This is not HTTP: {error}."))
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n"
            connection.write(head.encode() + b"connection: close\r\n\r\n" + body)
            await connection.finish()
        except Exception:  # the one edge: a bug ends its own connection, and is told
            log.exception("the simulator failed on connection %d", connection.number)
            connection.abort()

    async def _answer(self, connection: Connection, request: Request) -> None:
        """Answer one request; returns if the connection can take another."""
        path = unquote(urlsplit(request.target).path)
        record = RecordedRequest(
            number=self._records.next_number(),
            connection=connection.number,
            method=request.method,
            path=request.target,
            headers=request.headers,
            body=request.body,
            started=asyncio.get_running_loop().time(),
            script=self.scripts(),
        )
        try:
            if path.startswith("/sim/"):
                answer = self._steered(request, path.removeprefix("/sim/"))
            else:
                self._records.begin(record)
                answer = await self._chosen(record, path, connection)
        except Refused as refused:
            answer = self._refusal(record, refused.fault)
        except BadScript as error:
            answer = self._refusal(record, Fault(400, str(error), param="x-sim", code="invalid_script"))
        if request.method == "HEAD":
            answer = answer._replace(steps=lambda: iter(()))
        player = Player(connection, record, self._records, keep_alive=request.keep_alive)
        await player.play(self._dressed(answer))

    def _dressed(self, answer: Answer) -> Answer:
        """An answer with the headers that all of the vendor's have."""
        return answer

    @abstractmethod
    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        """The answer to one request, at ``path``. Raises Refused and BadScript."""

    @abstractmethod
    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        """A request that the vendor would refuse, in the vendor's words."""

    def _script_at_door(self, record: RecordedRequest, route: str, model: str) -> S | None:
        """What the queue or the header ``x-sim`` has for a request. Raises BadScript."""
        if (queued := self._queued(route, model)) is not None:
            return queued
        header = record.header("x-sim")
        return None if header is None else read_script(header, self.scripts)

    def _script_for(self, record: RecordedRequest, route: str, model: str, last_user: str) -> S:
        """The script of one request: of the queue, the header, the last user message, or the default.

        Raises BadScript.
        """
        if (found := self._script_at_door(record, route, model)) is not None:
            return found
        said = script_in_message_as(last_user, self.scripts)
        return self.default if said is None else said

    def _queued(self, route: str, model: str) -> S | None:
        """Take the first script in the queue that is for such a request."""
        for place, queued in enumerate(self._queue):
            if queued.route == route and queued.model in (None, model):
                del self._queue[place]
                return queued.script
        return None

    # ── /sim ──

    def _steered(self, request: Request, name: str) -> Answer:
        """What the simulator answers in its own name. Raises Refused and BadScript."""
        query = {key: values[-1] for key, values in parse_qs(urlsplit(request.target).query).items()}
        match request.method, name:
            case "GET", "stats":
                return text_answer(200, JSON, orjson.dumps(self.stats()))
            case "GET", "requests":
                last = self.requests[-_count(query, "last", 100) :]
                return text_answer(200, JSON, orjson.dumps([record.as_json() for record in last]))
            case "GET", "help":
                return text_answer(
                    200, "text/plain; charset=utf-8", f"{self.help}\n{field_help(self.scripts())}".encode()
                )
            case "POST", "script":
                route = query.get("for", self.routes[0])
                if route not in self.routes:
                    raise BadScript(f"?for= is one of {', '.join(self.routes)}, not {route!r}")
                try:
                    self.script(
                        *read_scripts(request.body, self.scripts),
                        route=route,
                        model=query.get("model"),
                        times=_count(query, "times", 1),
                    )
                except ValueError as error:
                    raise BadScript(str(error)) from error
                return text_answer(200, JSON, orjson.dumps({"queued": len(self._queue)}))
            case "DELETE", "script":
                self._queue.clear()
                return text_answer(200, JSON, orjson.dumps({"queued": 0}))
            case "DELETE", "requests":
                self._records.clear()
                return text_answer(200, JSON, b"{}")
            case _:
                raise Refused(
                    Fault(404, f"The simulator has no {request.method} /sim/{name}; see GET /sim/help.")
                )


def _count(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not re.fullmatch("[1-9][0-9]{0,4}", text):
        raise BadScript(f"?{name}= is a number from 1 to 99999, not {text!r}")
    return int(text)
