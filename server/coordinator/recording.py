"""Recordings of runs: what was asked, and all that every model said, each piece with its time.

A recording is a file of JSON lines, made for ``antiphon replay``: ``replaying.py`` reads it. It holds prompts
and answers, and no credentials: those stand in no request that a combination makes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from server import deltas
from server.chat import ChatRequest
from server.coordinator.redaction import request_without_secrets, without_secrets
from server.deltas import Batch, Delta, Deltas
from server.errors import ModelNotFound, ServerError
from server.events import RunControl
from server.run_log import Run
from server.settings import Combination
from server.upstreams.base import Call, Observer, Upstream, prices_of

VERSION = 1
MAX_BYTES = 32 * 1024 * 1024
"""Of one recording; what would be longer is not kept."""
DELTAS: dict[str, type[Delta]] = {
    kind.__name__: kind
    for kind in (
        deltas.Opening,
        deltas.TextDelta,
        deltas.ReasoningDelta,
        deltas.RefusalDelta,
        deltas.ToolCallDelta,
        deltas.Finished,
        deltas.UsageDelta,
        deltas.Extra,
    )
}
_SEED_BITS = 128

log = logging.getLogger("antiphon.recording")


class Recordings:
    """A folder with the newest ``most`` recordings, each named after its run."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most

    def keep(self, recording: Recording) -> None:
        """Write it; a folder that cannot be written is logged, and the answer goes on."""
        # At once and not in a thread: it must be whole even when the server is ending.
        data = recording.data()
        if data is None:
            log.warning("%s was too long to be recorded", recording.run_id)
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room()
            path = self._folder / f"{recording.run_id}.jsonl"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
        except OSError as error:
            log.warning("%s could not be recorded: %s", recording.run_id, error.strerror)

    def _make_room(self) -> None:
        kept = list(self._folder.glob("run_*.jsonl"))
        too_many = len(kept) - self._most + 1
        if too_many > 0:
            for old in sorted(kept, key=_written)[:too_many]:
                old.unlink(missing_ok=True)


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # another process on the same folder was quicker
        return 0.0


class Recording:
    """What one run's calls say. ``rng`` is to be the run's own chance, so that it can be had again."""

    def __init__(
        self, run: Run, chat: ChatRequest, call: Call, settings: Combination, parent: str | None
    ) -> None:
        self.run_id = run.id
        self._run = run
        self._began = run.monotonic() - run.elapsed_ms / 1000
        self._lines: list[bytes] = []
        self._sum = hashlib.sha256()
        self._size = 0
        self._calls = 0
        self._models: set[str] = set()
        seed = random.SystemRandom().getrandbits(_SEED_BITS)
        self.rng = random.Random(seed)
        self._write(
            recording=VERSION,
            run_id=run.id,
            response_id=run.response_id,
            created_at=run.created_at,
            model=run.model,
            key=run.key,
            conversation_id=run.conversation_id,
            background=run.background,
            depth=call.depth,
            parent=parent,
            seed=str(seed),
            elapsed_s=self._now(),
            wide=chat.wide,
            warnings=run.warnings,
            request=request_without_secrets(chat).body.decode(),
            settings=without_secrets(msgspec.to_builtins(settings)),
        )

    def models(self, find: Callable[[str], Upstream]) -> Callable[[str], Upstream]:
        """``find``, with an ear on every model that is found by it."""

        def found(name: str) -> Upstream:
            try:
                upstream = find(name)
            except ModelNotFound as error:
                self._note_model(name, missing=error.message)
                raise
            prices = prices_of(upstream)
            self._note_model(
                name,
                vision=getattr(upstream, "vision", None),
                tools=getattr(upstream, "tools", None),
                json_mode=getattr(upstream, "json_mode", None),
                context_length=getattr(upstream, "context_length", None),
                max_cost=getattr(upstream, "max_cost", None),
                rates=None if prices is None else msgspec.to_builtins(prices.rates),
            )
            return _Heard(upstream, name, self)

        return found

    def begin_call(self, model: str) -> int:
        """A call of ``model`` begins; its number."""
        self._calls += 1
        self.note(self._calls, begins=model)
        return self._calls

    def note(self, call: int, **what: Any) -> None:
        """Something happened in a call."""
        self._write(t=self._now(), call=call, **what)

    def end(self) -> None:
        """The run has ended. What watchers had done to it is read from its events."""
        run = self._run
        for event in run.events_after(run.first - 1):
            if isinstance(event.data, RunControl):
                told = msgspec.to_builtins(event.data)
                # Told in whole milliseconds: by its end, all has come that had come when it was done.
                self._write(t=(event.elapsed_ms + 1) / 1000, control=told)
        # The last line: without it a file is cut, and with another sum it is damaged.
        self._write(
            t=self._now(), status=run.status, by=run.cancelled_by, sha256_before=self._sum.hexdigest()
        )

    def data(self) -> bytes | None:
        """The file; None if it is too long."""
        return None if self._size > MAX_BYTES else b"".join(self._lines)

    def _now(self) -> float:
        return round(self._run.monotonic() - self._began, 9)

    def _note_model(self, name: str, **facts: Any) -> None:
        if name not in self._models:
            self._models.add(name)
            self._write(name=name, facts=facts)

    def _write(self, **fields: Any) -> None:
        if self._size <= MAX_BYTES:
            line = msgspec.json.encode(fields) + b"\n"
            self._size += len(line)
            self._lines.append(line)
            self._sum.update(line)
            if self._size > MAX_BYTES:
                self._lines.clear()


async def recorded(
    recordings: Recordings, recording: Recording, answer: Deltas
) -> AsyncGenerator[Batch, None]:
    """Yield ``answer``, and keep the recording at its end, whatever that is."""
    try:
        async with aclosing(answer) as batches:
            async for batch in batches:
                yield batch
    finally:
        recording.end()
        recordings.keep(recording)


class _Heard:
    """An upstream whose calls are recorded while they pass."""

    def __init__(self, upstream: Upstream, name: str, recording: Recording) -> None:
        self.name = upstream.name
        self._asked_as = name
        self._upstream = upstream
        self._recording = recording

    def __getattr__(self, name: str) -> Any:
        """What else the model can tell of itself (``vision``, ``prices``)."""
        return getattr(self._upstream, name)

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """See ``upstreams.base.Upstream``."""
        recording = self._recording
        number = recording.begin_call(self._asked_as)
        if call.observer is not None:
            call.observer = _Ear(call.observer, recording, number)
        try:
            async with aclosing(self._upstream.stream(chat, call)) as batches:
                async for batch in batches:
                    recording.note(number, said=[_as_json(delta) for delta in batch])
                    yield batch
        except ServerError as error:
            recording.note(number, failed=error_as_json(error))
            raise
        recording.note(number, ended=True)


class _Ear:
    """Hears a call's steps, records them and hands them on."""

    def __init__(self, observer: Observer, recording: Recording, call: int) -> None:
        self._observer = observer
        self._recording = recording
        self._call = call

    def queued(self, channel: str) -> None:
        """See ``Observer``."""
        self._recording.note(self._call, queued=channel)
        self._observer.queued(channel)

    def attempt(self, number: int, channel: str) -> None:
        """See ``Observer``."""
        self._recording.note(self._call, attempt=[number, channel])
        self._observer.attempt(number, channel)

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        """See ``Observer``."""
        how = {"delay_s": delay_s, "next_attempt": next_attempt, "same_channel": same_channel}
        self._recording.note(self._call, retrying=error_as_json(error), how=how)
        self._observer.retrying(error, delay_s=delay_s, next_attempt=next_attempt, same_channel=same_channel)

    def noted(
        self, channel: str, state: str, *, reason: str | None = None, for_s: float | None = None
    ) -> None:
        """See ``Observer``."""
        self._recording.note(self._call, noted=[channel, state, reason, for_s])
        self._observer.noted(channel, state, reason=reason, for_s=for_s)

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        """See ``Observer``."""
        self._recording.note(self._call, adapted=[channel, warnings])
        self._observer.adapted(channel, warnings)


def error_as_json(error: ServerError) -> dict[str, Any]:
    """A failure by its class and what it says."""
    fields = {
        name: value
        for name, value in vars(error).items()
        if value is None or isinstance(value, str | int | float | bool)
    }
    return {"kind": type(error).__name__, "fields": fields}


def _as_json(delta: Delta) -> list[Any]:
    fields = {name: value for name, value in msgspec.to_builtins(delta).items() if value is not None}
    return [type(delta).__name__, fields]
