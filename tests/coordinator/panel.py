"""A combination over upstreams that play a script, and a reader of the log that its runs leave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET

from server.chat import ChatRequest
from server.coordinator import Combination, answer
from server.coordinator.outcomes import Draft
from server.coordinator.plan import expand
from server.deltas import (
    Batch,
    Delta,
    Finished,
    Opening,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageDelta,
)
from server.errors import ModelNotFound, UpstreamError, UpstreamTimeout
from server.events import (
    Event,
    RunCancelled,
    RunCompleted,
    RunDegraded,
    RunFailed,
    RunIncomplete,
)
from server.openai_wire import parse_chat
from server.price_settings import Price
from server.prices import Prices, Rate
from server.run_check import check_run
from server.run_log import Run, Runs
from server.settings import Combination as CombinationSettings
from server.settings import Member, Summary
from server.settings import Runs as RunsSettings
from server.tasks import TaskOwner
from server.upstreams.base import Call, Upstream
from tests.schemas import check_event

PATIENCE_S = 30.0
# A batch to yield, something to wait for, turns of the event loop to wait, an error to raise.
Step: TypeAlias = "Batch | asyncio.Event | int | BaseException"
ONCE = frozenset({"model.queued", "model.started", "model.first_token"})


class Owner(NamedTuple):
    name: str = "me"
    admin: bool = False


def says(*texts: str, reason: str = "stop", usage: Usage | None = None) -> list[Step]:
    """The script of an answer: its pieces, one a batch, and its end."""
    steps: list[Step] = [[Opening()]]
    steps += [[TextDelta(text)] for text in texts]
    last: list[Delta] = [Finished(reason)]
    return [*steps, [*last, UsageDelta(usage)] if usage else last]


def never() -> asyncio.Event:
    """A step that is never over."""
    return asyncio.Event()


class Scripted:
    """An upstream that plays its script at each call.

    ``asked`` holds the requests, ``calls`` how they were to be carried out; ``open`` counts what runs, and
    ``started`` is set by the first call.
    """

    def __init__(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        vision: bool | None = None,
        context: int | None = None,
        price: Price | None = None,
        bills_cancelled: bool = False,
    ) -> None:
        self.name = name
        self.steps = list(steps)
        self.vision = vision
        self.tools: bool | None = None
        self.json_mode: bool | None = None
        self.context_length = context
        rate = None if price is None else Rate.of(price, bills_cancelled=bills_cancelled)
        self.prices = Prices.of([("channel", rate)])
        self.asked: list[ChatRequest] = []
        self.calls: list[Call] = []
        self.open = 0
        self.started = asyncio.Event()

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        self.asked.append(chat)
        self.calls.append(call)
        self.open += 1
        self.started.set()
        try:
            if call.observer is not None:
                call.observer.attempt(1, "channel")
            for step in self.steps:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, int):
                    for _ in range(step):
                        await asyncio.sleep(0)
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step
        finally:
            self.open -= 1

    @property
    def body(self) -> dict[str, Any]:
        """The last request."""
        decoded: dict[str, Any] = msgspec.json.decode(self.asked[-1].body)
        return decoded


class Replies(Scripted):
    """An upstream that answers by what it is asked: ``reply`` makes the text from the last turn's."""

    def __init__(self, name: str, reply: Callable[[str], str]) -> None:
        super().__init__(name, [])
        self.reply = reply

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        self.steps = says(self.reply(chat.messages[-1].text))
        async for batch in super().stream(chat, call):
            yield batch


class Told(NamedTuple):
    """What a client got, and what the run told."""

    deltas: list[Delta]
    run: Run
    call: Call
    error: BaseException | None

    @property
    def events(self) -> list[Event]:
        return self.run.events_after(0)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def text(self) -> str:
        return self.text_of(0)

    def text_of(self, choice: int) -> str:
        return "".join(one.text for one in self.deltas if isinstance(one, TextDelta) and one.index == choice)

    def reasons(self) -> dict[int, str]:
        return {one.index: one.reason for one in self.deltas if isinstance(one, Finished)}

    def data(self, type: str, member: str | None = None) -> Any:
        """The data of the one event of this type (and member)."""
        found = [
            event.data
            for event in self.events
            if event.type == type and (member is None or (event.member and event.member.id == member))
        ]
        assert len(found) == 1, f"{len(found)} events {type}: {self.types}"
        return found[0]


class Panel:
    """A combination ``panel`` with members m1, m2, … over the given scripts, and a summary ``writer``."""

    def __init__(
        self,
        members: Sequence[Scripted],
        writer: Scripted | None = None,
        /,
        *,
        others: Sequence[Upstream] = (),
        weights: Sequence[float] = (),
        seed: int = 1,
        **settings: Any,
    ) -> None:
        self.members = list(members)
        self.writer = writer or Scripted("writer", says("The ", "answer."))
        self.tasks = TaskOwner()
        self.runs = Runs(RunsSettings())
        self.upstreams: dict[str, Upstream] = {one.name: one for one in [*members, self.writer, *others]}
        weights = weights or [1.0] * len(members)
        settings.setdefault("summary", Summary(model="writer"))
        settings.setdefault("strategy", "synthesize")
        settings.setdefault(
            "members",
            tuple(Member(model=one.name, weight=w) for one, w in zip(members, weights, strict=True)),
        )
        self.combination = Combination(
            CombinationSettings(name="panel", **settings), self.find, self.tasks, random.Random(seed)
        )
        self.upstreams["panel"] = self.combination

    def find(self, name: str) -> Upstream:
        if name not in self.upstreams:
            raise ModelNotFound(f"There is no model {name}.")
        return self.upstreams[name]

    def start(self, model: str = "panel") -> Run:
        return self.runs.start(model=model, principal=Owner())

    async def ask(self, content: Any = "Why?", *, model: str = "panel", **fields: Any) -> Told:
        """One request, read to its end; the log is checked."""
        run, call = self.start(model), Call()
        deltas: list[Delta] = []
        error: BaseException | None = None
        async with asyncio.timeout(PATIENCE_S):
            try:
                chat = request(content, model=model, **fields)
                with run.scope():
                    async with aclosing(answer(run, self.find(model), chat, call)) as batches:
                        async for batch in batches:
                            assert batch
                            deltas += batch
            except Exception as caught:  # noqa: BLE001 - whatever it is, the test looks at it
                error = caught
        check_log(run)
        await asyncio.sleep(0)  # a task that has just ended leaves its owner in the next turn
        self.check_closed()
        return Told(deltas, run, call, error)

    def check_closed(self) -> None:
        """Nothing of any run is left."""
        assert not len(self.tasks)
        for one in self.upstreams.values():
            if isinstance(one, Scripted):
                assert one.open == 0, f"{one.name} is still open"


def request(content: Any = "Why?", *, model: str = "panel", **fields: Any) -> ChatRequest:
    """A client's request of one user turn, or with ``messages``."""
    fields.setdefault("messages", [{"role": "user", "content": content}])
    return parse_chat(msgspec.json.encode({"model": model, **fields}))


def slow(clock: str = "first_token") -> UpstreamTimeout:
    return UpstreamTimeout(clock, 1)


def broken() -> UpstreamError:
    return UpstreamError("The upstream failed.", upstream_status=500)


def reasoning(text: str) -> Step:
    return [ReasoningDelta(text)]


def refusal(text: str) -> Step:
    return [RefusalDelta(text)]


def drafts(*texts: str, weights: tuple[float, ...] = ()) -> list[Draft]:
    members = tuple(
        Member(model=f"model-{n}", weight=w) for n, w in enumerate(weights or (1.0,) * len(texts))
    )
    return [Draft(call, text, "stop") for call, text in zip(expand(members), texts, strict=True)]


def check_log(run: Run) -> None:
    """The log keeps the rules of every run, and its end repeats the last level."""
    events = run.events_after(0)
    assert check_run(events) == []
    for event in events:
        check_event(event)
    levels = [event.data.level for event in events if isinstance(event.data, RunDegraded)]
    end = events[-1].data
    assert isinstance(end, RunCompleted | RunIncomplete | RunFailed | RunCancelled)
    assert end.level in ((levels or ["none"])[-1], UNSET)
    told = [(event.member.id, event.type) for event in events if event.member and event.type in ONCE]
    assert len(set(told)) == len(told)
