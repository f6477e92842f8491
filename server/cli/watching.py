"""A client of the status channel: one subscription that outlives its connections.

``StatusClient.listen`` connects, subscribes, and yields what it hears. When the line breaks it waits, comes
back and resumes behind the last event that it had; if the server can no longer tell what was missed, the
``Snapshot`` that it gives instead says so.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from server.cli.refusals import CannotWatch, events_url, headers_for, why_closed, why_not_open
from server.events import Event, ModelDelta, SummaryDelta, decode

SUBPROTOCOL = Subprotocol("antiphon.events.v1")

OPEN_TIMEOUT_S = 10.0
STEADY_S = 5.0
"""A connection that held so long was a good one: the next wait is a short one again."""

MAX_MESSAGE = 64 * 1024 * 1024  # the snapshot of a hundred runs with their texts


class Snapshot(msgspec.Struct, frozen=True):
    """How the runs stand, as ``GET /v1/runs/{id}`` tells each. ``gone``: what came before it was missed."""

    runs: tuple[dict[str, Any], ...]
    gone: bool


class Happened(msgspec.Struct, frozen=True):
    """An event; ``json`` is as it came. ``event`` is None if this version has no word for its type."""

    event: Event | None
    json: bytes


class Notice(msgspec.Struct, frozen=True):
    """Something about the connection that a person should know. ``connected``: does it stand?"""

    text: str
    connected: bool = True


Heard: TypeAlias = Snapshot | Happened | Notice


class Pace(msgspec.Struct, frozen=True):
    """How long to wait before the next try: doubling, up to a bound, and never all watchers at once."""

    first_s: float = 0.5
    most_s: float = 15.0

    def wait_s(self, tries: int) -> float:
        """How long to wait after ``tries`` tries (from 1) that came to nothing."""
        longest = min(self.most_s, self.first_s * 2 ** min(tries - 1, 16))
        return float(longest * random.uniform(0.5, 1))


class _Told(msgspec.Struct):
    """A message of the server: of each kind what is used here."""

    type: str
    id: str | None = None
    epoch: str | None = None
    event: msgspec.Raw = msgspec.Raw()
    offset: str | None = None
    head: int | str | None = None
    recovered: bool = False
    was_recovering: bool = False
    snapshot: dict[str, Any] | None = None
    code: str | None = None
    message: str | None = None
    reason: str | None = None
    reconnect_after_ms: int | None = None
    volatile_only: bool = False


_decode = msgspec.json.Decoder(_Told).decode


class _Broken(Exception):
    """The line broke, or the server sent us away; it is worth coming back."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class StatusClient:
    """One subscription to the server at ``url``.

    ``topic`` None is ``all`` if the key may, else ``self``. A topic ``run:<id>`` is heard from the run's
    first event on. ``topic`` is what was subscribed to, once something is heard; ``server`` is the address
    for people.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        topic: str | None = None,
        include: tuple[str, ...] = (),
        pace: Pace | None = None,
    ) -> None:
        self.topic = topic or "all"
        self._may_fall_back = topic is None
        self._address = events_url(url)
        self.server = self._address.removesuffix("/v1/events").replace("ws", "http", 1)
        self._headers = headers_for(key)
        self._include = include
        self._pace = pace or Pace()
        self._met = False  # has a subscription ever stood?
        self._over = False  # has the run ended?
        self._epoch: str | None = None
        self._offset: str | None = None  # our place in a topic
        self._number = 0  # our place in a run
        self._cursors: dict[str, int] = {}
        self._asked = 0

    async def listen(self) -> AsyncGenerator[Heard, None]:
        """Yield what is heard, until the run of a topic ``run:<id>`` has ended; of others there is no end.

        Raises ``CannotWatch``. Close it with ``aclosing``: that closes the connection.
        """
        tries = 0
        while True:
            wait_s = None
            subscribed_at: float | None = None
            try:
                async with self._connect() as line:
                    epoch, told = await self._subscribe(line)
                    subscribed_at = time.monotonic()
                    if self._met:
                        yield Notice("connected again")
                    snapshot = self._begin(epoch, told)
                    if snapshot is not None:
                        yield snapshot
                    async for text in line:
                        heard = await self._take(line, _read(text))
                        if heard is not None:
                            yield heard
                        if self._over:
                            return
                    raise _Broken("the server closed the connection")
            except _Broken as broken:
                why, wait_s = str(broken), broken.wait_s
            except ConnectionClosed as closed:
                why = why_closed(self.server, closed)
            except (WebSocketException, TimeoutError, OSError) as error:
                why = why_not_open(self.server, error, met=self._met)
            if subscribed_at is not None and time.monotonic() - subscribed_at > STEADY_S:
                tries = 0
            tries += 1
            if tries == 1 or subscribed_at is not None:
                yield Notice(f"{why}; coming back", connected=False)
            await asyncio.sleep(self._pace.wait_s(tries) if wait_s is None else wait_s)

    def _connect(self) -> connect:
        host = urlsplit(self._address).hostname or ""
        is_local = host in ("localhost", "::1") or host.startswith("127.")
        return connect(
            self._address,
            subprotocols=[SUBPROTOCOL],
            additional_headers=self._headers,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=2,
            max_size=MAX_MESSAGE,
            proxy=None if is_local else True,
        )

    async def _subscribe(self, line: ClientConnection) -> tuple[str | None, _Told]:
        """Greet and subscribe; returns the server's epoch and its ``subscribed``."""
        await line.send('{"type":"connection_init"}')
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            epoch = (await _await(line, "connection_ack")).epoch
            while True:
                await line.send(json.dumps(self._subscription()))
                told = await _await(line, "subscribed", "error", "complete")
                if told.type == "subscribed":
                    return epoch, told
                if told.code != "not_allowed" or not self._may_fall_back or self.topic == "self":
                    raise self._refusal(told)
                self.topic = "self"

    def _subscription(self) -> dict[str, Any]:
        self._asked += 1
        asked: dict[str, Any] = {"type": "subscribe", "id": str(self._asked), "topic": self.topic}
        asked["include"] = list(self._include)
        if self._is_run:
            asked["starting_after"] = self._number
            if self._cursors:
                asked["cursors"] = self._cursors
        elif self._offset is not None:
            asked["offset"] = self._offset
        if self._epoch is not None:
            asked["epoch"] = self._epoch
        return asked

    @property
    def _is_run(self) -> bool:
        return self.topic.startswith("run:")

    def _refusal(self, told: _Told) -> CannotWatch:
        if told.type == "error":
            return CannotWatch(f"{self.server} refuses: {told.message or told.code}")
        if self._met:
            return CannotWatch(
                f"{self.server} no longer knows the run: it was restarted, or the run is long over."
            )
        name = self.topic.partition(":")[2]
        return CannotWatch(f"No run {name} at {self.server}: it is another key's, or no longer kept.")

    def _begin(self, epoch: str | None, told: _Told) -> Snapshot | None:
        """Take our place from ``subscribed``; the snapshot in it, if there is one."""
        gone = self._met and not told.recovered
        self._met, self._epoch = True, epoch
        if told.recovered:
            return None
        snapshot = told.snapshot or {}
        if self._is_run:
            self._number = told.head if isinstance(told.head, int) else 0
            self._cursors = dict(_cursors_of(snapshot))
            return Snapshot((snapshot,), gone)
        self._offset = None if told.head is None else str(told.head)
        listed = snapshot.get("data")
        runs = [run for run in listed if isinstance(run, dict)] if isinstance(listed, list) else []
        return Snapshot(tuple(runs), gone)

    async def _take(self, line: ClientConnection, told: _Told) -> Heard | None:
        match told.type:
            case "next":
                return self._take_event(told)
            case "bookmark":
                if not self._is_run:
                    self._offset = told.offset
            case "ping":
                await line.send('{"type":"pong"}')
            case "goaway":
                wait_ms = min(told.reconnect_after_ms or 1000, 60_000)
                raise _Broken(f"the server goes ({told.reason or 'no reason given'})", wait_ms / 1000)
            case "complete" if told.reason == "run_ended":
                self._over = True
            case "complete" if told.reason in ("revoked", "expired"):
                raise CannotWatch(f"The key is no longer good at {self.server} ({told.reason}).")
            case "complete":
                raise _Broken(f"the server ended the subscription ({told.reason})")
            case "error":
                raise CannotWatch(f"{self.server} refuses: {told.message or told.code}")
            case _:  # lagged is told by the close that follows; what is new is not for us
                pass
        return None

    def _take_event(self, told: _Told) -> Happened:
        json_ = bytes(told.event)
        try:
            event = decode(json_)
        except ValueError as error:
            raise CannotWatch(
                f"{self.server} tells of events that this version cannot read: {error}"
            ) from None
        if told.offset is not None:
            self._offset = told.offset
        if event is not None and self._is_run:
            if event.volatile:
                self._move_cursor(event)
            else:
                self._number = event.sequence_number
        return Happened(event, json_)

    def _move_cursor(self, event: Event) -> None:
        data = event.data
        if isinstance(data, (ModelDelta, SummaryDelta)):
            lane = event.member.id if event.member is not None else "summary"
            name = lane if data.kind == "text" else f"{lane}:{data.kind}"
            self._cursors[name] = data.text_offset + len(data.text)


async def _await(line: ClientConnection, *types: str) -> _Told:
    """The next message of these types; pings in between are answered."""
    while True:
        told = _read(await line.recv())
        if told.type in types:
            return told
        if told.type == "ping":
            await line.send('{"type":"pong"}')
        elif told.type == "goaway":
            raise _Broken("the server goes")


def _read(text: str | bytes) -> _Told:
    try:
        return _decode(text)
    except msgspec.MsgspecError as error:
        raise CannotWatch(f"What the server says is not antiphon.events.v1: {error}") from None


def _cursors_of(run: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """How far the texts in a run's snapshot reach."""
    for call in (*(run.get("members") or ()), {"id": "summary", **(run.get("summary") or {})}):
        for kind, name in (("text", call["id"]), ("reasoning", f"{call['id']}:reasoning")):
            if isinstance(text := call.get(kind), str):
                yield name, int(call.get(f"{kind}_start") or 0) + len(text)
