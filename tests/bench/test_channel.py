from __future__ import annotations

import json

import pytest

from bench.channel import Channel, Event, told_us
from bench.framing import BadFraming
from tests.bench.answers import UPGRADED, frame

TOLD = {"type": "run.completed", "time": "2026-11-21T09:00:02.140Z", "data": {"level": "none"}}
NEXT = frame(json.dumps({"type": "next", "id": "1", "event": TOLD}).encode())
PING = b"\x89\x00"


def heard(*reads: bytes) -> list[tuple[int, str]]:
    channel = Channel(b"")
    channel.reads = list(enumerate(reads))
    return [(at, event.type) for at, event in channel.heard()]


def test_events_are_heard_wherever_the_reads_are_cut() -> None:
    stream = UPGRADED + frame(b'{"type":"connection_ack"}') + NEXT + PING + NEXT
    assert heard(stream) == [(0, "run.completed")] * 2
    for cut in range(1, len(stream)):
        assert [kind for _, kind in heard(stream[:cut], stream[cut:])] == ["run.completed"] * 2
    assert heard(stream[:-3], stream[-3:])[-1] == (1, "run.completed")


def test_what_is_no_frame_of_a_server_is_a_fault() -> None:
    with pytest.raises(BadFraming):
        heard(UPGRADED, b"\x01\x05split")


def test_an_event_was_told_at_its_time() -> None:
    event = Event(type="run.completed", time="2026-11-21T09:00:02.140Z", data=None)  # type: ignore[arg-type]
    assert told_us(event) == 1_795_251_602_140_000


async def test_a_closed_channel_tells_who_waits_on_it() -> None:
    channel = Channel(b"")
    with pytest.raises(ConnectionError):
        await channel.until(b"anything")
