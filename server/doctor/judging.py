"""Is what a client saw what it was promised? No I/O."""

from __future__ import annotations

import msgspec

from server.doctor.aiming import attempts, clocks, lanes
from server.doctor.asking import PATIENCE_S, Told
from server.doctor.faults import ANSWER, SECRET, SIBLING, WHOLE, Fault, Promise
from server.settings import Channel, Settings, Timeouts

SLACK_S = 1.5
"""What an answer may take beyond its clocks: the machine has other work too."""

ROUNDING = 0.9
"""Of a time that has to pass: the request before has used some of it."""

WORD = 3
"""Fewer characters than this are no beginning of an answer."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One fault to one model, by one form of request.

    ``rescued``: only its first channel is sick, so its siblings should answer.
    """

    fault: Fault
    model: str
    channels: list[Channel]
    stream: bool
    rescued: bool = False

    @property
    def sick_promise(self) -> Promise:
        """What is promised where nobody rescues."""
        promise = self.fault.streamed if self.stream else self.fault.plain
        assert promise is not None  # no case is made of a form that cannot meet the fault
        return promise

    @property
    def promise(self) -> Promise:
        """What is promised to the client."""
        return WHOLE if self.rescued else self.sick_promise


class Cost(msgspec.Struct, frozen=True):
    """Upstream calls of the last request: ``calls`` in all, ``sick`` of them to channels with the fault.

    ``left``: so many were still open a while after the client had its answer.
    """

    calls: int
    sick: int
    left: int = 0


def judge(case: Case, settings: Settings, told: Told, cost: Cost) -> str:
    """What is wrong, in words; empty if nothing is."""
    checks = (
        _end(case, told),
        _error(case, told),
        told.odd,
        _text(case, told),
        _time(case, settings, told),
        _calls(case, settings, told, cost),
        _leak(settings, told),
        f"{cost.left} upstream calls were left open" if cost.left else "",
    )
    return next(filter(None, checks), "")


def waiting(case: Case) -> Timeouts:
    """The clocks of the channels that have the fault."""
    return clocks(case.channels[:1] if case.rescued else case.channels)


def _end(case: Case, told: Told) -> str:
    if told.seen is None:
        return f"no end within {PATIENCE_S:g} s: {switched_off(case) or 'no clock ended it'}"
    if told.seen == case.promise.seen:
        return ""
    saw = f"expected {case.promise}, the client saw {told.seen} {told.code or ''}".rstrip()
    why = told.odd or switched_off(case) or _why(case)
    return f"{saw}: {why}" if why else saw


def _why(case: Case) -> str:
    if case.rescued:
        return "another channel was well, and did not answer"
    if case.fault.place.startswith("tls-") and not case.channels[0].tls.verify:
        return "the channel does not check certificates (tls.verify)"
    return ""


def switched_off(case: Case) -> str:
    """The clock that should have ended it, if it is switched off, in words; else empty."""
    clock = case.sick_promise.clock
    if clock is None or getattr(waiting(case), f"{clock}_s"):
        return ""
    return f"the time-out {clock}_s is switched off"


def _error(case: Case, told: Told) -> str:
    promise = case.promise
    if promise.seen == "whole":
        return ""
    off = switched_off(case)
    tail = f": {off}" if off else ""
    if promise.statuses and told.status not in promise.statuses:
        return (
            f"expected status {' or '.join(map(str, promise.statuses))}, the client saw {told.status}{tail}"
        )
    if promise.codes and told.code not in promise.codes:
        return f"expected code {' or '.join(promise.codes)}, the client saw {told.code}{tail}"
    if promise.patience and told.wait_s is None:
        return "the client is not told when to come back (retry-after)"
    return ""


def _text(case: Case, told: Told) -> str:
    """The words are those of who answered, whole and once."""
    if told.seen == "whole":
        said = SIBLING if case.rescued else ANSWER
        return "" if told.text == said else f"the text is not what the channel said: {told.text[:80]!r}"
    if told.seen == "cut":
        begun = len(told.text) >= WORD and ANSWER.startswith(told.text)
        endless = case.sick_promise.clock == "total"
        return "" if begun or endless else f"the text is not the beginning of the answer: {told.text[:80]!r}"
    return ""


def _time(case: Case, settings: Settings, told: Told) -> str:
    """The clocks of all attempts together, and no more than the total."""
    if case.fault.asks != "once":
        return ""
    limits, clock = waiting(case), case.sick_promise.clock
    each: float = getattr(limits, f"{clock}_s") if clock is not None else 0.0
    if clock is not None and not each:
        return ""  # switched off: told elsewhere
    tries = 1 if clock == "total" else attempts(settings.routing, case.model)
    most = min(each * tries, limits.total_s or each * tries) + SLACK_S
    return "" if told.seconds <= most else f"took {told.seconds:.1f} s where its clocks allow {most:.1f} s"


def _calls(case: Case, settings: Settings, told: Told, cost: Cost) -> str:
    if case.fault.asks == "again":
        early = cost.sick and told.seconds < case.fault.wait_s * ROUNDING
        return "the channel was asked before the time that it had named (Retry-After)" if early else ""
    if case.fault.asks == "open":
        return "a dead channel was asked again and again: does its breaker open?" if cost.sick else ""
    allowed = attempts(settings.routing, case.model)
    tries = {"again": allowed, "elsewhere": min(allowed, lanes(case.channels)), "never": 1}[
        case.sick_promise.retry
    ]
    most = case.fault.dials * tries
    if cost.calls > most:
        return f"{cost.calls} upstream calls where {most} may be made"
    keys = lanes(case.channels[:1])
    if case.rescued and cost.sick > keys * case.fault.dials:
        return f"the sick channel was asked {cost.sick} times before another one"
    return ""


def _leak(settings: Settings, told: Told) -> str:
    if SECRET.encode() in told.raw:
        return "the client saw a key of the channel"
    for channel in settings.channels:
        for secret in filter(None, (*channel.secrets(), channel.api_secret)):
            if len(secret) >= len(SECRET) // 2 and secret.encode() in told.raw:
                return "the client saw a key of the configuration"
    if told.seen == "error" and b"<html" in told.raw.lower():
        return "the client saw the upstream's HTML"
    if told.seen == "error" and any(word in told.raw for word in (b"127.0.0.1", b"doctor.invalid")):
        return "the client saw an upstream's address"
    return ""
