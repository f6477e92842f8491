"""One websocket of a simulated Spark after its handshake: the request in, the frames out, faults included."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, assert_never
from typing import Protocol as Promise

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import SEND_EOF, Protocol, Side, State

from server.simulators.connection import Connection
from server.simulators.playing import TURNS_BETWEEN_PARTS
from server.simulators.record import RecordedRequest, Records
from server.simulators.spark_frames import FrameStep, Message, Raw
from server.simulators.spark_script import SparkScript
from server.simulators.steps import Cut, Pause

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
CLOSING_S = 10.0
"""So long a client has for its half of the closing handshake."""


class Waits(Promise):
    """How long a connection may say nothing."""

    idle_s: float  # no request: dropped
    pings_only_s: float  # pings, but no request: 10018


class Reply(NamedTuple):
    """What a request is answered with."""

    script: SparkScript
    steps: Iterator[FrameStep]
    client_closes: bool


class Talk:
    """A websocket from its handshake to its end. ``hold`` once; the connection's end cancels it."""

    def __init__(self, connection: Connection, record: RecordedRequest, records: Records) -> None:
        self._connection, self._record, self._records = connection, record, records
        self._protocol = Protocol(Side.SERVER, max_size=MAX_MESSAGE_BYTES)
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._request: asyncio.Future[Message] = loop.create_future()
        self._second: asyncio.Future[None] = loop.create_future()
        self._parts: list[bytes] = []
        self._parts_opcode = Opcode.TEXT
        self._held: list[bytes] = []
        self._pinged = False
        self._closing = False  # by our closing frame, not in answer to the client's
        self._due = loop.time()

    async def hold(
        self, waits: Waits, answer: Callable[[Message], Reply], fault: Callable[[int], bytes]
    ) -> None:
        """Read the request, play its answer, close. ``fault`` makes the frame of an error code."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            request = await self._wait_for_request(waits, fault)
            self._records.body_came(self._record, request.data)
            reply = answer(request)
            self._records.streaming(self._record)
            played = group.create_task(self._play(reply))
            await asyncio.wait({played, self._second}, return_when=asyncio.FIRST_COMPLETED)
            if not played.done():
                played.cancel()
                await self._fail(fault(10007))

    # ── what comes ──

    async def _read(self) -> None:
        while True:
            self._protocol.receive_data(await self._connection.some())
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._frame(event)
            if self._protocol.state is not State.OPEN:
                await self._end()
            self._write(self._taken())

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._pinged = True
        elif frame.opcode is Opcode.CLOSE:
            self._record.close_code = Close.parse(bytes(frame.data)).code if frame.data else None
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if frame.opcode is not Opcode.CONT:
                self._parts_opcode = frame.opcode
            self._parts.append(bytes(frame.data))
            if frame.fin:
                data, self._parts = b"".join(self._parts), []
                self._message(Message(data, binary=self._parts_opcode is Opcode.BINARY))

    def _message(self, message: Message) -> None:
        if not self._request.done():
            self._request.set_result(message)
        elif not self._second.done() and self._record.outcome == "live":
            self._second.set_result(None)

    async def _end(self) -> None:
        """The client closes, answers our closing, or breaks the protocol: end when that is said."""
        self._write(self._taken())
        if self._closing and self._protocol.close_rcvd is None:
            return  # our closing frame waits for the client's
        self._records.end(self._record, "aborted", self._loop.time())
        if self._protocol.close_rcvd is None:
            # A broken client may still be sending: closed now, what is unread would reset the connection
            # before it has read why.
            self._connection.end_writing()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    while True:
                        await self._connection.some()
        await self._connection.finish()

    async def _wait_for_request(self, waits: Waits, fault: Callable[[int], bytes]) -> Message:
        started = self._loop.time()
        await asyncio.wait({self._request}, timeout=waits.idle_s)
        if not self._request.done() and self._pinged:
            left = waits.pings_only_s - (self._loop.time() - started)
            await asyncio.wait({self._request}, timeout=max(0.0, left))
            if not self._request.done():
                await self._fail(fault(10018))
        if not self._request.done():
            self._records.end(self._record, "cut", self._loop.time())
            await self._connection.finish()
        return self._request.result()

    # ── what goes ──

    async def _play(self, reply: Reply) -> None:
        script, held = reply.script, 0
        for step in reply.steps:
            match step:
                case Message():
                    self._send(step, script.fragment)
                    held += 1
                    if held >= script.join:
                        held = 0
                        await self._flush(script)
                    self._record.sent_chunks += step.counts
                    self._record.sent_bytes += len(step.data)
                    self._records.changed()
                case Raw(data):
                    await self._flush(script)
                    self._write(data)
                case Pause(seconds):
                    if held == 0 or script.join == 1 or seconds is None:
                        await self._flush(script)
                    if held == 0 or seconds is None:
                        await self._wait(seconds, script)
                case Cut():
                    await self._flush(script)
                    self._records.end(self._record, "cut", self._loop.time())
                    how = {"fin": "drop", "rst": "rst", "clean": "frame"}[script.cut]
                    await self._close(script, how)
                case _:
                    assert_never(step)
        await self._flush(script)
        if script.close_ms:
            await self._wait(script.close_ms / 1000, script)
        self._records.end(self._record, "whole", self._loop.time())
        by_model = "never" if reply.client_closes else "frame"
        await self._close(script, by_model if script.close == "model" else script.close)

    async def _fail(self, frame: bytes) -> None:
        """End with an error frame, whatever was going on. Does not return."""
        self._held.clear()
        self._send(Message(frame))
        await self._flush(SparkScript())
        await self._close(SparkScript(), "frame")

    async def _close(self, script: SparkScript, how: str) -> None:
        """Close as told. Does not return: the end of the connection cancels it."""
        self._records.end(self._record, "whole", self._loop.time())
        if how == "never":
            await self._loop.create_future()
        if how == "frame" and self._protocol.state is State.OPEN:
            # Not by send_close(), which refuses codes that have no place on the wire.
            code = script.close_code
            payload = struct.pack("!H", code) + script.close_reason.encode()[:123] if code else b""
            self._protocol.send_frame(Frame(Opcode.CLOSE, payload))
            self._protocol.close_sent = Close(code or 1005, script.close_reason)
            self._protocol.state = State.CLOSING
            self._closing = True
            self._write(self._taken())
            await asyncio.sleep(CLOSING_S)
        await self._connection.drain()
        await self._connection.finish(reset=how == "rst")

    def _send(self, message: Message, fragment: int = 0) -> None:
        """Make the frames of a message; they leave with ``_flush``."""
        if self._protocol.state is not State.OPEN:
            return
        size = fragment or len(message.data) or 1
        parts = [message.data[start : start + size] for start in range(0, len(message.data), size)] or [b""]
        for place, part in enumerate(parts):
            fin = place == len(parts) - 1
            if place:
                self._protocol.send_continuation(part, fin)
            elif message.binary:
                self._protocol.send_binary(part, fin)
            else:
                self._protocol.send_text(part, fin)
        self._held.append(self._taken())

    async def _flush(self, script: SparkScript) -> None:
        data = b"".join(self._held)
        self._held.clear()
        size = script.split_at if isinstance(script.split_at, int) and script.split_at else len(data)
        for start in range(0, len(data), size or 1):
            if start and script.split_ms:
                await self._wait(script.split_ms / 1000, script)
            elif start:
                for _ in range(TURNS_BETWEEN_PARTS):
                    await asyncio.sleep(0)
            self._write(data[start : start + size])
        await self._connection.drain()

    def _taken(self) -> bytes:
        """What the protocol has for the connection."""
        return b"".join(part for part in self._protocol.data_to_send() if part != SEND_EOF)

    def _write(self, data: bytes) -> None:
        if data:
            self._connection.write(data)

    async def _wait(self, seconds: float | None, script: SparkScript) -> None:
        """Wait, pinging if the script says so; None: for ever. Waits follow each other without drift."""
        end = None if seconds is None else self._due + seconds
        beat = script.ping_ms / 1000
        while end is None or self._loop.time() < end:
            left = float("inf") if end is None else end - self._loop.time()
            await asyncio.sleep(min(left, beat or 3600.0))
            if beat and self._protocol.state is State.OPEN:
                self._protocol.send_ping(b"sim")
                self._write(self._taken())
        self._due = self._loop.time() if end is None else max(end, self._loop.time() - (seconds or 0))
