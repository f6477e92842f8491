"""Status within a chat stream: what becomes of the members, told before the answer's first word.

Most clients read nothing but the stream. Each mode is a form that some of them show and none of them trips
over. The run's events are the only source; the answer, its end and its usage stay as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

import msgspec

from server.auth import Principal
from server.chat import ChatRequest
from server.coordinator.plan import tools_field
from server.deltas import Batch, Opening, ReasoningDelta, TextDelta
from server.errors import Gone, InvalidRequest
from server.events import Event
from server.handlers.streaming import EventStream
from server.openai_wire import ChunkEncoder
from server.run_log import Run
from server.settings import Combination
from server.strategy_settings import StatusMode
from server.tasks import TaskOwner

HEADER = "x-antiphon-status"
MODES: tuple[StatusMode, ...] = get_args(StatusMode)
MARK = "[antiphon] "
"""Begins each line of ours among a model's thoughts, so that it is known when a client sends it back."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_OURS = re.compile(re.escape(MARK) + r"[^\n]*\n?")
_DONE, _FAILED = "✅", "❌"
# The first line may have lost its blank: some clients keep an answer trimmed.
_TICK = re.compile(rf" ?([^\n]{{1,256}}) [{_DONE}{_FAILED}]\n")


def chosen_mode(
    wish: str | None, principal: Principal, settings: Combination | None, chat: ChatRequest
) -> StatusMode:
    """How this request is told of its members: as its header says, else its key, else the combination.

    ``settings`` is None for what is no combination, which has no members to tell of. Raises
    ``InvalidRequest`` for a header that names no mode, or asks for text of ours where machines read it.
    """
    if wish is not None and wish not in MODES:
        raise InvalidRequest(f"{HEADER} is one of {', '.join(MODES)}.", param=HEADER)
    if settings is None or settings.strategy == "direct" or not chat.stream:
        return "off"
    mode: StatusMode = wish or principal.status or settings.status
    if mode != "content" or not (tools_field(chat) or chat.fields.response_format):
        return mode
    if wish is None:
        return "off"
    raise InvalidRequest(
        f"{HEADER}: content puts lines into the text; it does not go with tools or response_format.",
        param=HEADER,
    )


def without_status(chat: ChatRequest) -> ChatRequest:
    """The request without lines of ours among the thoughts of its assistant turns."""
    turns = []
    for data in chat.raw_messages():
        turn = msgspec.json.decode(data)
        thoughts = turn.get("reasoning_content")
        if turn.get("role") == "assistant" and isinstance(thoughts, str) and MARK in thoughts:
            data = msgspec.json.encode(turn | {"reasoning_content": _OURS.sub("", thoughts)})
        turns.append(data)
    return chat.with_messages(turns)


def without_ticks(chat: ChatRequest, names: Callable[[], Iterable[str]]) -> ChatRequest:
    """The request without the lines that ``content`` put before the answers of its assistant turns.

    ``names`` gives those of all models: a line is ours only if it begins with one.
    """
    if not any(turn.role == "assistant" and _TICK.match(turn.text) for turn in chat.messages):
        return chat
    known = frozenset(map(_plain, names()))
    turns = []
    for data in chat.raw_messages():
        turn = msgspec.json.decode(data)
        if turn.get("role") == "assistant" and (kept := _after_ticks(turn.get("content"), known)) is not None:
            data = msgspec.json.encode(turn | {"content": kept})
        turns.append(data)
    return chat.with_messages(turns)


class InBand:
    """One stream's status. Begins once the stream's head has left, and ends with the first content.

    ``stop`` is to be called in any case.
    """

    def __init__(
        self, mode: StatusMode, run: Run, encoder: ChunkEncoder, stream: EventStream, tasks: TaskOwner
    ) -> None:
        self._mode = mode
        self._run = run
        self._encoder = encoder
        self._stream = stream
        self._seen = 0
        self._begun = False
        self._ended = False
        self._told: set[str] = set()
        self._committed = asyncio.Event()
        stream.after_commit = self._committed.set
        self._task = tasks.create(self._follow(), name=f"status in {run.id}", awaited=True)

    def before(self, batch: Batch) -> bytes:
        """What is to be written before ``batch``: at the first content, all that is left to say."""
        if self._ended or all(type(delta) is Opening for delta in batch):
            return b""
        self.stop()
        said = [self._begin()]
        try:
            said += [self._say(event) for event in self._run.events_after(self._seen)]
        except Gone:
            pass  # so many events that the oldest were dropped: the answer counts more
        if self._mode == "openwebui":
            said.append(self._status("Answering", done=True))
        return b"".join(said)

    def stop(self) -> None:
        """Say nothing more."""
        self._ended = True
        self._task.cancel()

    async def _follow(self) -> None:
        await self._committed.wait()
        try:
            if said := self._begin():
                await self._stream.write(said)
            async for event in self._run.after(self._seen):
                self._seen = event.sequence_number
                if said := self._say(event):
                    await self._stream.write(said)
        except (Gone, ConnectionError):
            return  # too many events, or nobody who reads them

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        if self._mode == "content":
            return self._encoder.encode([Opening(), TextDelta(" ")])
        return b"" if self._mode == "comment" else self._encoder.encode([Opening()])

    def _say(self, event: Event) -> bytes:
        if self._mode == "content":
            return self._tick(event)
        told = _state(event)
        if told is None:
            return b""
        if self._mode == "comment":
            return b": " + _plain(told.as_comment()).encode() + b"\n\n"
        if self._mode == "reasoning":
            return self._encoder.encode([ReasoningDelta(f"{MARK}{_plain(told.as_line())}\n")])
        if self._mode == "openwebui":
            return self._status(_plain(told.as_line()), done=False)
        return self._encoder.beside("antiphon", msgspec.json.encode(told.as_object(self._run.id)))

    def _tick(self, event: Event) -> bytes:
        """N-1's line: once for each member, when its draft is there or will not come."""
        member, stage = event.member, event.stage
        if member is None or stage is None or stage.name != "draft" or member.id in self._told:
            return b""
        sign = {"model.finished": _DONE, "model.failed": _FAILED, "model.cancelled": _FAILED}.get(event.type)
        if sign is None:
            return b""
        self._told.add(member.id)
        return self._encoder.encode([TextDelta(f"{_plain(member.model)} {sign}\n")])

    def _status(self, description: str, *, done: bool) -> bytes:
        told = {"type": "status", "data": {"description": description, "done": done}}
        return self._encoder.beside("event", msgspec.json.encode(told))


class _State(msgspec.Struct, frozen=True):
    """What became of one call, or that the summary begins."""

    state: str
    id: str | None = None
    model: str = ""
    reason: str | None = None
    latency_ms: int | None = None

    def as_comment(self) -> str:
        who = "summary" if self.id is None else f"member {self.id}"
        return f"{who} {self._what()}"

    def as_line(self) -> str:
        return f"{self.id or 'summary'} ({self.model}) {self._what()}"

    def as_object(self, run_id: str) -> dict[str, Any]:
        told: dict[str, Any] = {"run_id": run_id, "state": self.state}
        if self.id is None:
            told |= {"stage": "summary", "model": self.model}
        else:
            told["member"] = {"id": self.id, "model": self.model}
        if self.reason is not None:
            told["reason"] = self.reason
        if self.latency_ms is not None:
            told["latency_ms"] = self.latency_ms
        return told

    def _what(self) -> str:
        if self.latency_ms is not None and self.reason is None:
            return f"{self.state} {self.latency_ms / 1000:.1f}s"
        return self.state if self.reason is None else f"{self.state}: {self.reason}"


def _state(event: Event) -> _State | None:
    data: Any = event.data
    if event.type == "summary.started":
        return _State("started", model=data.model)
    member = event.member
    if member is None:
        return None
    match event.type:
        case "model.first_token":
            return _State("writing", member.id, member.model)
        case "model.finished":
            return _State("done", member.id, member.model, latency_ms=data.latency_ms)
        case "model.failed":
            return _State("failed", member.id, member.model, data.code, data.latency_ms)
        case "model.cancelled" | "model.skipped":
            return _State(event.type.removeprefix("model."), member.id, member.model, data.reason)
        case "model.retrying":
            return _State("retrying", member.id, member.model, data.code)
        case _:
            return None


def _after_ticks(content: Any, known: frozenset[str]) -> Any:
    """A turn's content behind our lines; None if it has none."""
    if isinstance(content, list):
        match content:
            case [{"text": str(text), **rest}, *others] if (kept := _after_ticks(text, known)) is not None:
                return [{"text": kept, **rest}, *others]
        return None
    at = 0
    while isinstance(content, str) and (line := _TICK.match(content, at)) and line[1] in known:
        at = line.end()
    return content[at:] if at else None


def _plain(text: str) -> str:
    """One line: names are the configuration's, codes may be an upstream's own words."""
    return _CONTROL.sub(" ", text)
