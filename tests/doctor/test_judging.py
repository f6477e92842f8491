"""What is held against an answer."""

from __future__ import annotations

import msgspec
import pytest

from server.doctor.asking import Told
from server.doctor.faults import ANSWER, SECRET, SIBLING, WHOLE, Fault, Promise, cut, error
from server.doctor.judging import Case, Cost, judge
from server.settings import Channel, Routing, Settings, TimeoutsPatch, Tls
from server.simulators.script import Script

CUT = Told(status=200, seen="cut", code="upstream_cut", text=ANSWER[:20], seconds=0.1)
ERROR = Told(status=502, seen="error", code="upstream_error", seconds=0.1)
SAID = Told(status=200, seen="whole", text=ANSWER, seconds=0.1)
BAD = error(502, "upstream_error")


def _channel(name: str, **more: object) -> Channel:
    return Channel(name=name, kind="openai", models=("m",), **more)  # type: ignore[arg-type]


def _judged(
    promise: Promise,
    told: Told,
    cost: Cost = Cost(1, 1),  # noqa: B008 - frozen
    *,
    first: Channel | None = None,
    rescued: bool = False,
    **fault: object,
) -> str:
    fields = {"name": "f", "kind": "openai", "script": Script(), "plain": None, **fault}
    channels = [first or _channel("a"), _channel("b")]
    case = Case(
        fault=Fault(streamed=promise, **fields),  # type: ignore[arg-type]
        model="m",
        channels=channels,
        stream=True,
        rescued=rescued,
    )
    return judge(case, Settings(channels=tuple(channels), routing=Routing()), told, cost)


def test_what_was_promised_passes() -> None:
    assert _judged(WHOLE, SAID) == ""
    assert _judged(BAD, ERROR, Cost(3, 3)) == ""
    assert _judged(cut("upstream_cut"), CUT) == ""
    assert _judged(BAD, msgspec.structs.replace(SAID, text=SIBLING), Cost(2, 1), rescued=True) == ""


@pytest.mark.parametrize(
    ("promise", "told", "words"),
    [
        (WHOLE, ERROR, "expected whole, the client saw error"),
        (BAD, msgspec.structs.replace(ERROR, status=500), "expected status 502"),
        (BAD, msgspec.structs.replace(ERROR, code="internal_error"), "expected code upstream_error"),
        (error(429, patience=True), msgspec.structs.replace(ERROR, status=429), "retry-after"),
        (cut("upstream_cut"), SAID, "expected cut upstream_cut, the client saw whole"),
        (cut("upstream_cut"), msgspec.structs.replace(CUT, text=""), "not the beginning"),
        (cut("upstream_cut"), msgspec.structs.replace(CUT, text=ANSWER[:9] * 2), "not the beginning"),
        (WHOLE, msgspec.structs.replace(SAID, text=ANSWER * 2), "not what the channel said"),
        (WHOLE, msgspec.structs.replace(SAID, odd="2 finish reasons"), "2 finish reasons"),
        (WHOLE, msgspec.structs.replace(SAID, seconds=5.0), "took 5.0 s"),
        (WHOLE, Told(), "no end within"),
        (
            BAD,
            msgspec.structs.replace(ERROR, raw=f"Wrong key {SECRET}-0".encode()),
            "saw a key of the channel",
        ),
        (BAD, msgspec.structs.replace(ERROR, raw=b"<HTML>Oh no"), "upstream's HTML"),
        (BAD, msgspec.structs.replace(ERROR, raw=b"cannot connect to 127.0.0.1:9"), "upstream's address"),
    ],
)
def test_what_was_not_promised_fails(promise: Promise, told: Told, words: str) -> None:
    assert words in _judged(promise, told)


def test_more_calls_than_the_fault_allows_fail() -> None:
    once = error(400, retry="never")
    refused = msgspec.structs.replace(ERROR, status=400)
    assert "2 upstream calls where 1 may be made" in _judged(once, refused, Cost(2, 2))
    assert "4 upstream calls where 3" in _judged(BAD, ERROR, Cost(4, 4))
    assert "3 upstream calls where 2" in _judged(error(502, retry="elsewhere"), ERROR, Cost(3, 3))
    rescued = msgspec.structs.replace(SAID, text=SIBLING)
    assert "asked 2 times before another" in _judged(BAD, rescued, Cost(3, 2), rescued=True)


def test_a_time_out_that_is_switched_off_is_named() -> None:
    off = _channel("a", timeouts=TimeoutsPatch(first_token_s=0))
    late = error(504, "upstream_timeout_first_token", clock="first_token")
    total = msgspec.structs.replace(ERROR, status=504, code="upstream_timeout_total", seconds=2.0)
    assert "first_token_s is switched off" in _judged(late, total, first=off)
    assert "first_token_s is switched off" in _judged(late, Told(), first=off)


def test_certificates_that_are_not_checked_are_named() -> None:
    first = _channel("a", tls=Tls(verify=False))
    assert "tls.verify" in _judged(BAD, SAID, first=first, place="tls-expired")


def test_a_channel_that_is_asked_before_its_time_or_while_it_is_dead_fails() -> None:
    told = msgspec.structs.replace(ERROR, status=503, wait_s="9")
    patient, early = error(503), Cost(1, 1)
    assert "before the time" in _judged(patient, told, early, asks="again", wait_s=9.0)
    assert _judged(patient, msgspec.structs.replace(told, seconds=9.0), early, asks="again", wait_s=9.0) == ""
    assert "does its breaker open" in _judged(patient, told, early, asks="open")
    assert _judged(patient, told, Cost(0, 0), asks="open") == ""
