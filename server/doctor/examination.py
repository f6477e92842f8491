"""Does each fault to the served application, and has judged what its client saw."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

import msgspec

from server.app import create_app
from server.doctor.aiming import aimed, lanes, targets
from server.doctor.asking import Told, ask
from server.doctor.faults import Fault, Seen
from server.doctor.judging import Case, Cost, judge, switched_off
from server.doctor.places import AUTHORITY, upstream
from server.serving import ServeOptions, served
from server.settings import Settings
from server.simulators.simulator import Simulator

AT_ONCE = 8

CLOSING_S = 1.0
"""Seconds until every upstream call of a request has to be closed."""

SECOND_LOOKS = 30
"""So many failures are looked at again, one by one: what was only a busy machine does not come back."""

SECOND_LOOKS_S = 30.0
"""Seconds that second looks may take in all."""

MOST_TO_OPEN = 40
"""A breaker that does not open after so many failures is taken for one that never does."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the scorecard; ``wrong`` is empty where all is well. ``status`` 0: the client saw no end.

    ``looks`` 2: it had failed at first, beside others.
    """

    fault: str
    kind: str
    model: str
    stream: bool
    rescued: bool
    status: int
    code: str | None
    seen: Seen | None
    seconds: float
    calls: int
    wrong: str
    looks: int = 1


def cases(settings: Settings, faults: Iterable[Fault]) -> list[Case]:
    """Every fault for every set of channels whose first choice speaks its dialect, streamed and plain."""
    planned = []
    known = list(faults)
    for model, channels in targets(settings):
        for fault in known:
            if fault.kind != channels[0].kind:
                continue
            for stream, promise in ((True, fault.streamed), (False, fault.plain)):
                if promise is None:
                    continue
                case = Case(fault=fault, model=model, channels=channels, stream=stream)
                planned.append(case)
                if promise.retry != "never" and len(channels) > 1:
                    planned.append(msgspec.structs.replace(case, rescued=True))
    return planned


async def examine(
    settings: Settings, planned: list[Case], on_done: Callable[[Finding], None]
) -> list[Finding]:
    """Carry out the cases, a few at a time; findings come in their order. Raises OSError without ports.

    What failed is looked at a second time, alone, unless that is too much or its clock is off; of that
    ``on_done`` hears the last word.
    """
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Finding:
        async with slots:
            finding = await _carry_out(settings, case)
        if not finding.wrong:
            on_done(finding)
        return finding

    with _quiet("antiphon", "server", "asyncio"):
        light = [case for case in planned if not case.fault.heavy]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(case), name=f"fault {case.fault.name}") for case in light]
        found = {id(case): task.result() for case, task in zip(light, tasks, strict=True)}
        for case in planned:
            if case.fault.heavy:
                found[id(case)] = await one(case)
        failed = [case for case in planned if found[id(case)].wrong]
        loop = asyncio.get_running_loop()
        look_until = loop.time() + SECOND_LOOKS_S
        for case in failed:
            in_time = loop.time() < look_until and len(failed) <= SECOND_LOOKS
            if in_time and not switched_off(case):
                again = await _carry_out(settings, case)
                found[id(case)] = msgspec.structs.replace(again, looks=2)
            on_done(found[id(case)])
    return [found[id(case)] for case in planned]


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without what these log: each fault would be told there as well."""
    with ExitStack() as stack:
        for log in map(logging.getLogger, names):
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.CRITICAL + 1)
        yield


async def _carry_out(settings: Settings, case: Case) -> Finding:
    async with AsyncExitStack() as stack:
        channels = case.channels
        if not case.rescued:  # one that speaks another dialect cannot have this fault
            channels = [one for one in channels if one.kind == case.fault.kind]
        simulators, urls = [], []
        for place, channel in enumerate(channels):
            sick = place == 0 or not case.rescued
            simulator, url = await upstream(stack, channel.kind, case.fault if sick else None)
            simulators.append(simulator)
            urls.append(url)
        app = create_app(aimed(settings, channels, urls, str(AUTHORITY)))
        server = settings.server
        options = ServeOptions(
            port=0, header_timeout_s=server.header_timeout_s, keepalive_s=server.keepalive_s
        )
        base = await stack.enter_async_context(served(app, options))
        for _ in range(_before(case)):
            await ask(base, case.model, stream=case.stream)
        earlier = [len(simulator.requests) for simulator in simulators]
        told = await ask(base, case.model, stream=case.stream)
        cost = _cost(case, told, simulators, earlier)
        cost = msgspec.structs.replace(cost, left=await _left_open(simulators))
    return Finding(
        fault=case.fault.name,
        kind=case.fault.kind,
        model=case.model,
        stream=case.stream,
        rescued=case.rescued,
        status=told.status,
        code=told.code,
        seen=told.seen,
        seconds=round(told.seconds, 3),
        calls=cost.calls,
        wrong=judge(msgspec.structs.replace(case, channels=channels), settings, told, cost),
    )


def _before(case: Case) -> int:
    """How many requests are made before the one that is judged."""
    if case.fault.asks == "once":
        return 0
    if case.fault.asks == "again":
        return lanes(case.channels)
    needed = (one.breaker.failures or one.breaker.min_calls for one in case.channels)
    return min(max(needed), MOST_TO_OPEN) + 1


async def _left_open(simulators: list[Simulator[Any]]) -> int:
    """How many calls are still open ``CLOSING_S`` after the client has its answer."""
    left = 0
    for simulator in simulators:
        try:
            await simulator.wait_until(lambda one=simulator: not _live(one), CLOSING_S)  # type: ignore[misc]
        except TimeoutError:
            left += _live(simulator)
    return left


def _live(simulator: Simulator[Any]) -> int:
    return sum(request.outcome == "live" for request in simulator.requests)


def _cost(case: Case, told: Told, simulators: list[Simulator[Any]], earlier: list[int]) -> Cost:
    each = [len(one.requests) - before for one, before in zip(simulators, earlier, strict=True)]
    sick = sum(each[:1] if case.rescued else each)
    if case.fault.place in ("answer", "clock", "tls-good") or told.tried is None:
        return Cost(sum(each), sick)
    return Cost(told.tried, told.tried - (sum(each) - sick))  # a dial that fails is no request
