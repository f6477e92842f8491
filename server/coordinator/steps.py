"""Strategy ``steps``: one model thinks step by step, each step a call, and then answers.

The steps go out while they come. The answer is a call of its own, in plain words; the client's limits, tools
and format are for that call alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from server.chat import ChatRequest
from server.coordinator.coordinator import Answer, Coordinator
from server.coordinator.model_log import ModelLog
from server.coordinator.outcomes import Failure
from server.coordinator.plan import PlannedCall
from server.coordinator.requests import draft_request, final_request
from server.coordinator.step_format import StepWriter
from server.coordinator.step_reader import StepReader, same_words
from server.coordinator.summary import FailedEarly, stream_answer
from server.coordinator.turns import user_turn
from server.deltas import Batch, TextDelta
from server.errors import ServerError, UpstreamEmpty, UpstreamTimeout
from server.events import StageDeadlineReached, SummaryStarted
from server.settings import Member
from server.upstreams.base import StepInfo

PROMPT = (
    "Think about the user's request step by step before it is answered. Write one step each time you are "
    "asked, as one JSON object and nothing else:\n"
    '{"title": "what this step does", "content": "the thought itself", "next_action": "continue"}\n'
    'In the last step put "final_answer" for "next_action". Take as many steps as the request needs, few for '
    "a simple one. Consider other answers, look for your own mistakes, and check by another way. Do not "
    "repeat a step. Write in the user's language."
)
NEXT = "Write the next step, as one JSON object."
ANSWER = (
    "Thank you. Now give the final answer to my request, in plain words and in the form that I asked for: "
    "no JSON object of a step, and no account of the steps unless I asked for one."
)
# What concerns the answer alone.
_FOR_THE_ANSWER = (
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stop",
    "logprobs",
    "top_logprobs",
)


class _Listener:
    """Hears one step while it comes, and lets the client see it."""

    def __init__(self, run: Coordinator, writer: StepWriter) -> None:
        self.reader = StepReader()
        self._run = run
        self._writer = writer

    async def hear(self, place: int, batch: Batch) -> None:
        """See ``Live``."""
        pieces = self.reader.feed("".join(delta.text for delta in batch if type(delta) is TextDelta))
        if deltas := self._writer.step(pieces):
            await self._run.answer.send(deltas)

    def end(self, place: int, reason: str) -> None:
        """See ``Live``: the step is closed by whoever waits for it."""


async def steps(run: Coordinator) -> Answer:
    """Think in up to ``max_steps`` calls, then answer. Raises the first step's failure."""
    return await _Thinker(run).answer()


class _Thinker:
    """One run of the strategy."""

    def __init__(self, run: Coordinator) -> None:
        assert run.plan.summary is not None  # the plan of strategy steps has one
        self._run = run
        self._settings = run.plan.settings.steps
        self._model = run.plan.summary.model
        self._writer = StepWriter(self._settings)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._steps: list[StepInfo] = []
        self._tokens = 0
        self._failed: ServerError | None = None
        self._hurried = False

    async def answer(self) -> Answer:
        while len(self._steps) < self._settings.max_steps and await self._think():
            budget = self._settings.budget_tokens
            if budget is not None and self._tokens >= budget:
                break
        run = self._run
        if self._failed is not None:
            if not self._steps:
                raise self._failed
            run.book.degrade("steps_cut", self._failed.code)
        elif self._hurried:
            run.book.degrade("steps_cut", "answer_now")
        run.book.steps = tuple(self._steps)
        run.book.drafts_ms = run.book.run.elapsed_ms
        return await self._conclude()

    async def _think(self) -> bool:
        """Make one step; False if it is to be the last."""
        run, number = self._run, len(self._steps) + 1
        limit = self._settings.step_tokens
        member = Member(
            model=self._model, system=self._settings.prompt or PROMPT, draft_max_tokens=limit, id="step"
        )
        planned = PlannedCall(f"step.{number}", 0, 1, member)
        listener = _Listener(run, self._writer)
        scatter = run.scatter(
            "step", [(planned, self._request(planned))], number=number, live=listener, besides=number - 1
        )
        (call,) = scatter.members
        began = self._loop.time()
        self._writer.begin()
        scatter.start_all()
        ended_by = "all"
        try:
            while call.outcome is None:
                if not await scatter.change(run.deadline):
                    run.book.run.tell(StageDeadlineReached(0, 1), stage=scatter.stage)
                    ended_by = "deadline"
                    break
                if scatter.hurried:
                    ended_by = "answer_now"
                    break
        except asyncio.CancelledError:
            scatter.end(scatter.why(), "cancelled")
            raise
        call.give_up(ended_by)
        scatter.close()
        reader = listener.reader
        pieces = reader.finish()
        deltas = self._writer.step(pieces)
        if reader.title or reader.content:
            deltas += self._writer.end()
        if deltas:
            await run.answer.send(deltas)
        run.book.end_stage(
            scatter.stage,
            ended_by,
            title=reader.title[:200],
            next_action="final_answer" if reader.is_last else "continue",
            chars=len(reader.content),
        )
        self._tokens += self._used(call.log)
        # A step without a word is no failure: there is nothing more to think.
        if ended_by == "answer_now":
            self._hurried = True
        elif isinstance(call.outcome, Failure) and not isinstance(call.error, UpstreamEmpty):
            self._failed = call.error or UpstreamTimeout("total", run.plan.deadline_s)
        words = same_words(reader.content)
        if not words or any(same_words(one.content) == words for one in self._steps):
            return False
        self._steps.append(StepInfo(reader.title, reader.content, round(self._loop.time() - began, 3)))
        return self._failed is None and not self._hurried and not reader.is_last

    def _request(self, planned: PlannedCall) -> ChatRequest:
        """The conversation, then the steps so far as one turn of the model's, and a word of the user's."""
        run = self._run
        chat = run.chat.edit({key: None for key in _FOR_THE_ANSWER if key in run.chat.json})
        if self._steps:
            told = [
                msgspec.json.encode(
                    {"title": one.title, "content": one.content, "next_action": "continue"}
                ).decode()
                for one in self._steps
            ]
            chat = chat.with_messages([*chat.raw_messages(), _assistant("\n".join(told)), user_turn(NEXT)])
        chat = draft_request(chat, run.plan, planned, blind=run.sight(self._model) is False)
        if self._wants_json():
            chat = chat.with_values(response_format={"type": "json_object"})
        return chat

    def _wants_json(self) -> bool:
        """Is JSON asked for by ``response_format``? Vendors refuse that where no turn speaks of JSON."""
        if self._settings.json_mode != "auto":
            return self._settings.json_mode == "always"
        speaks = self._settings.prompt is None or "json" in self._settings.prompt.lower()
        return speaks and self._run.takes_json(self._model)

    async def _conclude(self) -> Answer:
        run = self._run
        stage = run.book.begin_stage("summary", ("summary",))
        turns = run.chat.raw_messages()
        if self._steps:
            thought = "\n\n".join(f"{one.title}\n{one.content}".strip() for one in self._steps)
            turns = [*turns, _assistant(thought), user_turn(ANSWER)]
        request = final_request(run.chat, self._model, turns, self._settings.final_tokens)
        seconds = self._loop.time() - self._began
        as_body = self._settings.plain == "o1-api" and not run.chat.stream

        def shape(batch: Batch) -> Batch:
            return self._writer.answer(batch, self._loop.time() - self._began)

        try:
            log = await stream_answer(
                run,
                stage,
                SummaryStarted(self._model),
                request,
                shape=shape,
                keep=as_body,
            )
        except FailedEarly as error:
            run.book.end_stage(stage, "all")
            raise error.error from error
        if as_body:
            run.book.plain_body = self._body(log.text, seconds)
        return Answer(
            "summary", log.finish_reason or "stop", tuple(f"step.{n + 1}" for n in range(len(self._steps)))
        )

    def _body(self, text: str, seconds: float) -> bytes:
        """What o1-api answered: the steps, the answer as the last of them, and the time of all."""
        total = self._loop.time() - self._began
        told: list[Any] = [
            [f"Step {n}: {one.title}", one.content, one.seconds] for n, one in enumerate(self._steps, 1)
        ]
        told.append(["Final Answer", text, round(total - seconds, 3)])
        return msgspec.json.encode({"steps": told, "total_thinking_time": round(total, 3)})

    @staticmethod
    def _used(log: ModelLog) -> int:
        return 0 if log.usage is None else log.usage.completion_tokens


def _assistant(text: str) -> bytes:
    return msgspec.json.encode({"role": "assistant", "content": text})
