"""A faithful fake OpenAI upstream on loopback, which does with each request what a script says."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from server.simulators.answers import (
    JSON,
    chat_answer,
    embeddings_body,
    models_body,
    plain_answer,
    read_embedding_input,
    refusal,
    text_answer,
)
from server.simulators.asked import read_chat, refuse
from server.simulators.connection import BadRequest, Connection, Request
from server.simulators.errors import Fault, Refused, error_body
from server.simulators.playing import Answer, Player
from server.simulators.record import RecordedRequest, Records
from server.simulators.script import (
    HELP,
    BadScript,
    Script,
    field_help,
    read_script,
    read_scripts,
    script_in_message,
    script_in_model,
)

log = logging.getLogger(__name__)

QUEUED_SCRIPTS = 10_000
DEFAULT_PORT = 18901
_ROUTE = re.compile(r".*?/(chat/completions|embeddings|models(?:/(?P<id>.+))?)")
_ROUTES = ("chat/completions", "embeddings", "models")


class _Queued(NamedTuple):
    script: Script
    route: str
    model: str | None  # None: any


class OpenAISimulator:
    """An OpenAI upstream: ``async with OpenAISimulator() as sim`` serves until the block is left.

    Its behaviour is chosen for each request, in this order: the queue (``script``, or POST /sim/script), the
    header ``x-sim``, the model's name (one of ``models``, or spelled as HELP says), a line ``sim: {…}`` in
    the last user message, ``default``. A request that OpenAI would refuse is refused before any of them.

    Any base URL is served: only the end of the path counts. Leaving the block closes every connection.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        models: Mapping[str, Script] | None = None,
        default: Script | None = None,
    ) -> None:
        """``port`` 0 takes a free one. ``models``: named behaviours, which /v1/models lists."""
        self.host, self.port = host, port
        self.models = dict(models or {})
        self.default = Script() if default is None else default
        self.accept_delay_s = (
            0.0  # a new connection is not read from for so long; no TLS handshake without ssl_context
        )
        self._api_key, self._ssl = api_key, ssl_context
        self._records = Records()
        self._queue: deque[_Queued] = deque()
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
        if self._server is not None:
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

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes for its base URL."""
        return f"{self.url}/v1"

    # ── steering and watching ──

    def script(
        self, *scripts: Script, route: str = "chat/completions", model: str | None = None, times: int = 1
    ) -> None:
        """Queue scripts, each for one request of ``route`` (chat/completions, embeddings, models), and of
        ``model`` if one is named; all of them ``times`` over. Raises ValueError beyond 10,000.
        """
        if len(self._queue) + len(scripts) * times > QUEUED_SCRIPTS:
            raise ValueError(f"at most {QUEUED_SCRIPTS} scripts can be queued")
        for _ in range(times):
            self._queue.extend(_Queued(script, route, model) for script in scripts)

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
        path = unquote(urlsplit(request.target).path)
        record = RecordedRequest(
            number=self._records.next_number(),
            connection=connection.number,
            method=request.method,
            path=request.target,
            headers=request.headers,
            body=request.body,
            started=asyncio.get_running_loop().time(),
        )
        try:
            if path.startswith("/sim/"):
                answer = self._steered(request, path.removeprefix("/sim/"))
            else:
                self._records.begin(record)
                answer = self._chosen(record, path)
        except Refused as refused:
            answer = refusal(record.script, refused.fault, record.number, datetime.now(UTC))
        except BadScript as error:
            fault = Fault(400, str(error), param="x-sim", code="invalid_script")
            answer = refusal(record.script, fault, record.number, datetime.now(UTC))
        if request.method == "HEAD":
            answer = answer._replace(steps=lambda: iter(()))
        await Player(connection, record, self._records, keep_alive=request.keep_alive).play(answer)

    # ── answers ──

    def _chosen(self, record: RecordedRequest, path: str) -> Answer:
        """The answer to one request. Raises Refused and BadScript."""
        found = _ROUTE.fullmatch(path)
        if found is None:
            raise Refused(Fault(404, f"Invalid URL ({record.method} {path})"))
        route = found[1].split("/")[0] if found[1].startswith("models") else found[1]
        if record.method != ("GET" if route == "models" else "POST"):
            raise Refused(
                Fault(405, f"Not allowed to {record.method} on {path}.", code="method_not_supported")
            )
        self._authorize(record)
        now = datetime.now(UTC)
        if route == "models":
            record.script = self._script_for(record, route, "", "")
            return plain_answer(
                record.script, lambda: models_body(["sim", *self.models], found["id"]), record.number, now
            )
        if route == "embeddings":
            wanted, record.model = read_embedding_input(record.body)
            record.script = self._script_for(record, route, record.model, "")
            return plain_answer(
                record.script, lambda: embeddings_body(wanted, record.model), record.number, now
            )
        asked = read_chat(record.body)
        record.model = asked.model
        record.script = self._script_for(record, route, asked.model, asked.last_user)
        refuse(record.script, asked)
        return chat_answer(record.script, asked, record.number, now)

    def _authorize(self, record: RecordedRequest) -> None:
        if self._api_key is None:
            return
        scheme, _, key = (record.header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            message = (
                "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
            )
            raise Refused(Fault(401, message))
        if not hmac.compare_digest(key.strip().encode(), self._api_key.encode()):
            raise Refused(Fault(401, "Incorrect API key provided: sim-****.", code="invalid_api_key"))

    def _script_for(self, record: RecordedRequest, route: str, model: str, last_user: str) -> Script:
        """The script of one request, by the order that the class tells. Raises BadScript."""
        for place, queued in enumerate(self._queue):
            if queued.route == route and queued.model in (None, model):
                del self._queue[place]
                return queued.script
        if (header := record.header("x-sim")) is not None:
            return read_script(header)
        if model in self.models:
            return self.models[model]
        if (spelled := script_in_model(model)) is not None and spelled != Script():
            return spelled
        if (said := script_in_message(last_user)) is not None:
            return said
        return self.default

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
                return text_answer(200, "text/plain; charset=utf-8", f"{HELP}\n{field_help()}".encode())
            case "POST", "script":
                route = query.get("for", _ROUTES[0])
                if route not in _ROUTES:
                    raise BadScript(f"?for= is one of {', '.join(_ROUTES)}, not {route!r}")
                try:
                    self.script(
                        *read_scripts(request.body),
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


async def run(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    api_key: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    on_ready: Callable[[OpenAISimulator], None] | None = None,
) -> None:
    """Serve until cancelled. ``on_ready`` is called once the port is bound. Raises OSError."""
    async with OpenAISimulator(port, host, api_key=api_key, ssl_context=ssl_context) as simulator:
        if on_ready is not None:
            on_ready(simulator)
        await asyncio.get_running_loop().create_future()
