"""What a simulated upstream remembers: the requests that came, and how each answer ended."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import orjson

from server.simulators.script import Script

Outcome: TypeAlias = Literal["live", "whole", "cut", "aborted", "stopped"]

KEPT_REQUESTS = 10_000
KEPT_BODY_BYTES = 256 * 1024 * 1024

# What is not shown to who asks over HTTP; in the process the record has it as it came.
_SIGNATURE = re.compile("authorization=[^&]*")
_SECRET_HEADERS = frozenset(
    {"authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie", "proxy-authorization"}
)


@dataclass(slots=True, repr=False)
class RecordedRequest:
    """One request and the state of its answer. Times are the event loop's, in seconds.

    ``outcome``: ``live`` while it is answered; ``whole`` when all that the script said was sent; ``cut``
    when the script broke it off; ``aborted`` when the client left first; ``stopped`` when the simulator was
    closed.
    """

    number: int  # from 1
    connection: int  # from 1; the same number: the same connection
    method: str
    path: str  # the request target, with its query
    headers: tuple[tuple[str, str], ...]  # in their order, names as they came
    body: bytes  # exactly; of a chunked body, without the chunks' framing
    started: float
    model: str = ""
    streamed: bool = False
    script: Script = field(default_factory=Script)
    outcome: Outcome = "live"
    ended: float | None = None
    sent_bytes: int = 0  # of the body, handed to the connection
    sent_chunks: int = 0  # as a script counts them
    close_code: int | None = None  # what the client closed a websocket with; None: it did not, or without

    @property
    def finished(self) -> bool:
        """Everything was sent."""
        return self.outcome == "whole"

    @property
    def aborted(self) -> bool:
        """The client left before the end."""
        return self.outcome == "aborted"

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in any case of letters."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def json(self) -> Any:
        """The body, read. Raises JSONDecodeError. (The bytes say more: big integers become floats here.)"""
        return orjson.loads(self.body)

    def __repr__(self) -> str:
        return (
            f"<request {self.number} on connection {self.connection}: {self.method} {self.path} {self.model} "
            f"{self.outcome}, {self.sent_chunks} chunks, {self.sent_bytes} bytes>"
        )

    def as_json(self) -> dict[str, Any]:
        """For who asks over HTTP: credentials hidden, the body as text."""
        names = (
            "number",
            "connection",
            "method",
            "path",
            "model",
            "streamed",
            "outcome",
            "sent_bytes",
            "sent_chunks",
        )
        hidden = [(name, "***" if name.lower() in _SECRET_HEADERS else value) for name, value in self.headers]
        return {
            **{name: getattr(self, name) for name in names},
            "path": _SIGNATURE.sub("authorization=***", self.path),
            "seconds": None if self.ended is None else round(self.ended - self.started, 6),
            "headers": hidden,
            "body": self.body.decode("utf-8", "replace"),
        }


class Records:
    """The last requests, bounded in number and in bytes of their bodies; the oldest go first."""

    def __init__(self, *, kept_requests: int = KEPT_REQUESTS, kept_body_bytes: int = KEPT_BODY_BYTES) -> None:
        self._kept_requests, self._kept_body_bytes = kept_requests, kept_body_bytes
        self.requests: deque[RecordedRequest] = deque()
        self.live: dict[int, RecordedRequest] = {}  # by connection, which answers one request at a time
        self.streams_live = 0
        self.connections_open = 0
        self.connections_total = 0
        self.outcomes: Counter[str] = Counter()
        self._total = 0
        self._body_bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def new_connection(self) -> int:
        self.connections_open += 1
        self.connections_total += 1
        self.changed()
        return self.connections_total

    def lost_connection(self, number: int, now: float) -> None:
        """A connection has ended; an answer that was under way there did not get to its end."""
        self.connections_open -= 1
        if (record := self.live.get(number)) is not None:
            self.end(record, "aborted", now)
        self.changed()

    def begin(self, record: RecordedRequest) -> None:
        self._total += 1
        self.requests.append(record)
        self.live[record.connection] = record
        self._body_bytes += len(record.body)
        self._drop_oldest()
        self.changed()

    def _drop_oldest(self) -> None:
        while len(self.requests) > self._kept_requests or self._body_bytes > self._kept_body_bytes:
            self._body_bytes -= len(self.requests.popleft().body)

    def body_came(self, record: RecordedRequest, body: bytes) -> None:
        """A websocket request, which comes after its handshake was begun."""
        record.body = body
        if self.requests and record.number >= self.requests[0].number:
            self._body_bytes += len(body)
        self._drop_oldest()
        self.changed()

    def next_number(self) -> int:
        return self._total + 1

    def streaming(self, record: RecordedRequest) -> None:
        """The head of a streamed answer leaves."""
        record.streamed = True
        self.streams_live += 1

    def end(self, record: RecordedRequest, outcome: Outcome, now: float) -> None:
        """Note how an answer ended. The first end counts, and only of an answer that was begun."""
        if self.live.get(record.connection) is not record:
            return
        record.outcome, record.ended = outcome, now
        self.outcomes[outcome] += 1
        del self.live[record.connection]
        self.streams_live -= record.streamed
        self.changed()

    def clear(self) -> None:
        """Forget the requests; the counters go on."""
        self.requests.clear()
        self._body_bytes = 0
        self.changed()

    def stats(self) -> dict[str, int]:
        ended = {f"{name}_total": self.outcomes[name] for name in ("whole", "cut", "aborted", "stopped")}
        return {
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
            "requests_total": self._total,
            "live": len(self.live),
            "streams_live": self.streams_live,
            **ended,
        }

    def changed(self) -> None:
        """Wake whoever waits for a change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_until(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Return once ``predicate()`` holds; it is asked again after each change. Raises TimeoutError.

        Not an asyncio.Condition: what changes is told from plain callbacks, which cannot await its lock.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while not predicate():
                    waiter: asyncio.Future[None] = loop.create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError as error:
            last = list(self.requests)[-3:]
            raise TimeoutError(
                f"not so within {timeout:g} s; {self.stats()}; last requests: {last}"
            ) from error
