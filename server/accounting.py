"""The accounts of each request: one log line and the counters, written after the answer and in batches.

A request hands over a record and goes; a timer of a quarter of a second writes what has gathered with one
write. Nothing here is awaited, and nothing on the hot path formats text.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TextIO

import msgspec

from server.deltas import Usage
from server.metrics import Metrics

FLUSH_S = 0.25
MAX_NAME = 100  # characters of a model's name that are logged
MAX_WAITING = 100  # more would have left the processor's cache by then
_AMBIGUOUS = re.compile(r"[\s\"=\\]")


class Record(msgspec.Struct, gc=False):
    """What is known of one request, in seconds; it began at ``wall`` (Unix time), ``started`` (monotonic)."""

    wall: float
    started: float
    method: str
    route: str
    status: int
    request_id: str
    total_s: float
    key: str = ""
    code: str = ""
    run_id: str = ""
    model: str = ""
    channel: str = ""
    attempts: int = 0
    tried: str = ""  # what became of each attempt, as the client is told
    id_header: str = ""  # another header that tells the request's id, for clients that look there
    cache: str = ""  # what the response cache did: hit, shared, miss or bypass
    warnings: str = ""  # what the upstream's dialect made us adapt, as the client is told
    first_token_s: float | None = None
    overhead_s: float | None = None
    usage: Usage | None = None
    spent: Usage | None = None  # what of the usage was used now, if that is not all
    gone: bool = False


class Accounts:
    """Takes records, and writes them to ``out`` (standard error) and into the metrics.

    ``known`` says whether a model's name is a configured one, fit to be a label. ``close`` writes the rest.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        known: Callable[[str], bool],
        log: bool = True,
        as_json: bool = False,
        out: TextIO | None = None,
    ) -> None:
        self.metrics = metrics
        self.log = log
        self.as_json = as_json
        self._known = known
        self._out = out
        self._waiting: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: Record) -> None:
        """Take one record."""
        self._waiting.append(record)
        if len(self._waiting) >= MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def spent(self, model: str, usage: Usage) -> None:
        """Count what a run used whose request was answered before."""
        name = model if self._known(model) else "other"
        self.metrics.tokens[name, "prompt"] += usage.prompt_tokens
        self.metrics.tokens[name, "completion"] += usage.completion_tokens

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._waiting = self._waiting, []
        for record in records:
            self._count(record)
        if self.log and records:
            line = _json_line if self.as_json else _text_line
            # The stream is looked up late: a test or a service manager may have replaced it.
            out = self._out or sys.stderr
            try:
                out.write("".join([line(record) for record in records]))
                out.flush()
            except (OSError, ValueError):  # ValueError: it is closed
                self.log = False  # nobody reads our log any more; the answers matter more than it

    def close(self) -> None:
        """Write the rest; the timer is gone."""
        self.flush()

    def _count(self, record: Record) -> None:
        metrics = self.metrics
        metrics.requests[record.route, record.method, str(record.status)] += 1
        if record.code:
            metrics.failed(record.code)
        if record.gone:
            metrics.gone += 1
        if not record.model:
            return
        model = record.model if self._known(record.model) else "other"
        if record.first_token_s is not None:
            metrics.first_token_after(model, record.first_token_s)
        if record.overhead_s is not None:
            metrics.overhead.add(record.overhead_s)
        # What is given again was paid for once.
        if record.usage is not None and record.cache not in ("hit", "shared"):
            self.spent(record.model, record.spent or record.usage)


def _fields(record: Record) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": record.request_id,
        "run": record.run_id,
        "key": record.key,
        "model": record.model[:MAX_NAME],
        "channel": record.channel,
        "attempts": record.attempts,
        "cache": record.cache,
        "code": "client_gone" if record.gone else record.code,
        "ttft_ms": None if record.first_token_s is None else round(record.first_token_s * 1000, 1),
        "tokens": record.usage.total_tokens if record.usage else 0,
    }
    return {name: value for name, value in fields.items() if value}


def _time(record: Record) -> str:
    second, fraction = divmod(int(record.wall * 1000), 1000)
    return f"{_second(second)}.{fraction:03d}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    """The same for all records of a second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text_line(record: Record) -> str:
    line = f"{_time(record)} {record.method} {record.route} {record.status} {record.total_s * 1000:.1f}ms"
    # Ids and figures are of our own making; names are not, and a code may be an upstream's.
    line += f" id={record.request_id}"
    if record.run_id:
        line += f" run={record.run_id}"
    if record.key:
        line += f" key={_plain(record.key)}"
    if record.model:
        line += f" model={_plain(record.model[:MAX_NAME])}"
    if record.channel:
        line += f" channel={_plain(record.channel)}"
    if record.attempts:
        line += f" attempts={record.attempts}"
    if record.cache:
        line += f" cache={record.cache}"
    if record.gone or record.code:
        line += f" code={'client_gone' if record.gone else _plain(record.code)}"
    if record.first_token_s:
        line += f" ttft_ms={record.first_token_s * 1000:.1f}"
    if record.usage is not None and record.usage.total_tokens:
        line += f" tokens={record.usage.total_tokens}"
    return line + "\n"


@lru_cache(maxsize=256)
def _plain(text: str) -> str:
    """A name on one line: a client's model name must not forge a line or a field of its own."""
    return text if text.isprintable() and not _AMBIGUOUS.search(text) else json.dumps(text)


def _json_line(record: Record) -> str:
    fields = {
        "time": _time(record),
        "level": "info",
        "message": "request",
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "total_ms": round(record.total_s * 1000, 1),
    }
    return msgspec.json.encode(fields | _fields(record)).decode() + "\n"
