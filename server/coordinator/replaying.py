"""A recorded run, carried out again: the real coordinator over models that say what they said, by a clock
that jumps. The same recording gives the same answer and the same events, byte for byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec

from server import errors
from server.chat import ChatRequest, JsonObject
from server.coordinator.combination import Combination
from server.coordinator.recording import DELTAS, VERSION
from server.deltas import Batch, Delta
from server.errors import Conflict, ModelNotFound, ServerError, UpstreamError
from server.events import RunControl
from server.prices import Prices, Rate
from server.run_log import Run, Runs
from server.settings import Combination as CombinationSettings
from server.settings import Runs as RunsSettings
from server.tasks import TaskOwner
from server.upstreams.base import Call, Upstream
from server.virtual_clock import Stalled, VirtualClockLoop


class BadRecording(ValueError):
    """The file is no recording, of another version, cut or damaged; or its run needs what it lacks."""


class _Line(msgspec.Struct):
    t: float = 0.0
    call: int | None = None
    begins: str | None = None
    said: list[tuple[str, dict[str, Any]]] | None = None
    attempt: tuple[int, str] | None = None
    queued: str | None = None
    noted: tuple[str, str, str | None, float | None] | None = None
    adapted: tuple[str, tuple[str, ...]] | None = None
    retrying: dict[str, Any] | None = None
    how: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    ended: bool = False
    name: str | None = None
    facts: dict[str, Any] | None = None
    status: str | None = None
    by: str | None = None
    sha256_before: str | None = None
    control: RunControl | None = None


class _Version(msgspec.Struct):
    recording: int


class _Head(msgspec.Struct):
    recording: int
    run_id: str
    response_id: str
    created_at: float
    model: str
    key: str
    seed: str
    request: str
    settings: CombinationSettings
    conversation_id: str | None = None
    background: bool = False
    depth: int = 0
    parent: str | None = None
    elapsed_s: float = 0.0
    wide: bool = False
    warnings: tuple[str, ...] = ()


class Replayed(NamedTuple):
    """What came out: all deltas of the answer, what its call tells of it, and the run with its events."""

    chat: ChatRequest
    run: Run
    deltas: list[Delta]
    call: Call
    error: ServerError | None


def replay(data: bytes) -> Replayed:
    """Carry out the recorded run again, in no time. Raises ``BadRecording``; needs no running event loop."""
    head, lines = _read(data)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        try:
            return runner.run(_carry_out(head, lines))
        except Stalled as error:
            raise BadRecording("the run waits for something that this recording does not hold") from error


def _read(data: bytes) -> tuple[_Head, list[_Line]]:
    first, _, rest = data.partition(b"\n")
    try:
        head = msgspec.json.decode(first, type=_Head)
        lines = [msgspec.json.decode(line, type=_Line) for line in rest.splitlines() if line]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # Of another version nothing but the version need be readable, and that is what to tell.
        _check_version(_version_of(first))
        raise BadRecording(f"this is no recording of a run, or a damaged one: {error}") from error
    _check_version(head.recording)
    _check_whole(data, lines)
    return head, lines


def _version_of(first: bytes) -> int:
    try:
        return msgspec.json.decode(first, type=_Version).recording
    except (msgspec.DecodeError, UnicodeDecodeError):
        return VERSION


def _check_version(version: int) -> None:
    if version != VERSION:
        raise BadRecording(f"this recording is of version {version}; this Antiphon reads {VERSION}")


def _check_whole(data: bytes, lines: list[_Line]) -> None:
    """The last line tells how the run ended, and the sum of all before; who edits one leaves that out."""
    if not lines or lines[-1].status is None:
        raise BadRecording("this recording is cut: the end of the run is missing")
    for line in lines:  # now and not within the run, where it would be a fault of ours
        for kind, fields in line.said or ():
            _delta(kind, fields)
    told = lines[-1].sha256_before
    if told is not None and told != hashlib.sha256(data[: data.rstrip().rfind(b"\n") + 1]).hexdigest():
        raise BadRecording(
            "this recording is damaged: its lines are not those that were written (who has edited it removes "
            "sha256_before from the last line)"
        )


async def _carry_out(head: _Head, lines: list[_Line]) -> Replayed:
    loop = asyncio.get_running_loop()
    runs = Runs(RunsSettings(keep_text=True), wall=lambda: head.created_at + loop.time(), monotonic=loop.time)
    tasks = TaskOwner()
    cast = _Cast(lines)
    combination = Combination(head.settings, cast.find, tasks, random.Random(int(head.seed)))
    run = runs.start(
        model=head.model, principal=_Owner(head.key), run_id=head.run_id, conversation_id=head.conversation_id
    )
    run.response_id, run.background, run.warnings = head.response_id, head.background, head.warnings
    chat = ChatRequest(JsonObject(head.request.encode()), wide=head.wide)
    call = Call(run=run, depth=head.depth)
    for line in lines:
        if line.control is not None:
            loop.call_at(line.t, _steer, run, line.control)
        elif line.status == "cancelled":
            loop.call_at(line.t, run.cancel, line.by or "client")
    await asyncio.sleep(head.elapsed_s)
    deltas: list[Delta] = []
    failed: ServerError | None = None
    try:
        with run.scope():
            async with aclosing(combination.answer(run, chat, call, parent=head.parent)) as batches:
                async for batch in batches:
                    deltas += batch
    except ServerError as error:
        failed = error
    await tasks.aclose()
    return Replayed(chat, run, deltas, call, failed)


def _steer(run: Run, command: RunControl) -> None:
    """Do what a watcher did, if it can still be done."""
    target = command.target or None
    told = partial(run.control, command.verb, command.by, target)
    steered = run.steered
    if run.ended or run.is_cancelled():
        return
    if command.verb == "answer_now" and steered is not None:
        with suppress(Conflict):  # it came too early this time: the run goes on, as it would have then
            steered.answer_now(told)
    elif command.verb == "cancel_member" and steered is not None and target is not None:
        steered.cancel_member(target, told)
    elif command.verb == "cancel_run" or run.strategy == "direct":
        told()
        run.cancel("watcher")


class _Owner(NamedTuple):
    name: str
    admin: bool = False


class _Cast:
    """The models of a recording."""

    def __init__(self, lines: list[_Line]) -> None:
        self._facts: dict[str, dict[str, Any]] = {}
        calls: dict[int, list[_Line]] = {}
        self._calls: defaultdict[str, deque[list[_Line]]] = defaultdict(deque)
        for line in lines:
            if line.name is not None:
                self._facts[line.name] = line.facts or {}
            elif line.call is not None and line.begins is not None:
                calls[line.call] = [line]
                self._calls[line.begins].append(calls[line.call])
            elif line.call is not None:
                calls.setdefault(line.call, []).append(line)

    def find(self, name: str) -> Upstream:
        """The model of this name, as it was found then."""
        facts = self._facts.get(name)
        if facts is None or "missing" in facts:
            raise ModelNotFound((facts or {}).get("missing") or f"The recording has no model {name}.")
        return _Player(name, facts, self._calls[name])


class _Player:
    """A model that says what it said, call by call, each piece when it came."""

    def __init__(self, name: str, facts: dict[str, Any], calls: deque[list[_Line]]) -> None:
        self.name = name
        self.vision: bool | None = facts.get("vision")
        self.tools: bool | None = facts.get("tools")
        self.json_mode: bool | None = facts.get("json_mode")
        self.context_length: int | None = facts.get("context_length")
        self.max_cost: float | None = facts.get("max_cost")
        rates = facts.get("rates")
        self.prices = None if rates is None else Prices(msgspec.convert(rates, dict[str, Rate | None]))
        self._calls = calls

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """See ``upstreams.base.Upstream``."""
        if not self._calls:
            raise UpstreamError(f"The recording holds no further call of {self.name}.")
        first, *rest = self._calls.popleft()
        loop = asyncio.get_running_loop()
        # By the run's time, so that calls take turns as they did; one that begins later says all of it later.
        late = max(0.0, loop.time() - first.t)
        for line in rest:
            if (wait := line.t + late - loop.time()) > 0:
                await asyncio.sleep(wait)
            _tell(line, call)
            if line.said is not None:
                yield [_delta(kind, fields) for kind, fields in line.said]
            elif line.failed is not None:
                raise _error(line.failed)
            elif line.ended:
                return
        await loop.create_future()  # it was given up then, and is again


def _delta(kind: str, fields: dict[str, Any]) -> Delta:
    if kind not in DELTAS:
        raise BadRecording(f"this recording holds a delta of an unknown kind, {kind[:40]}")
    try:
        delta: Delta = msgspec.convert(fields, DELTAS[kind])
    except msgspec.ValidationError as error:
        raise BadRecording(f"this recording holds a delta that is none: {error}") from error
    return delta


def _tell(line: _Line, call: Call) -> None:
    """What the call's observer heard."""
    if line.attempt is not None:
        call.attempts_made, call.channel = line.attempt
    if line.adapted is not None:
        call.adapted(*line.adapted)
    if (observer := call.observer) is None:
        return
    if line.attempt is not None:
        observer.attempt(*line.attempt)
    elif line.queued is not None:
        observer.queued(line.queued)
    elif line.retrying is not None:
        observer.retrying(_error(line.retrying), **(line.how or {}))
    elif line.noted is not None:
        channel, state, reason, for_s = line.noted
        observer.noted(channel, state, reason=reason, for_s=for_s)


def _error(told: dict[str, Any]) -> ServerError:
    """The failure that was recorded. Its class may want other arguments than it keeps, so it gets none."""
    kind = getattr(errors, str(told.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, ServerError)):
        kind = ServerError
    error: ServerError = kind.__new__(kind)
    ServerError.__init__(error, "")
    vars(error).update(told.get("fields") or {})
    error.args = (error.message,)
    return error
