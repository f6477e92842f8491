"""What of a member's stream is a draft, and what is a failure or a bug."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import msgspec
import pytest

from server.chat import ChatRequest
from server.coordinator.member import PICTURES_LOST
from server.deltas import Batch, Extra, Original, TextDelta
from server.routed_model import RoutedModel
from server.routing.channel import ChannelState
from server.settings import Channel, ChannelModel, Member, Timeouts, TimeoutsPatch
from server.upstreams.base import Call
from tests.coordinator.panel import (
    Panel,
    Scripted,
    broken,
    never,
    refusal,
    says,
    slow,
)

LONG = "word " * 60


async def test_a_short_cut_draft_is_dropped() -> None:
    straggler = Scripted("c", [[TextDelta("too short")], never()])
    panel = Panel([Scripted("a", says("one")), Scripted("b", says("two")), straggler], grace_s=0.01)
    told = await panel.ask()
    assert told.data("model.cancelled").partial is False
    assert told.data("run.completed").level == "quorum"
    assert "too short" not in panel.writer.body["messages"][-1]["content"]


async def test_a_single_cut_draft_is_summarised_and_never_passed_on_as_an_answer() -> None:
    panel = Panel([Scripted("a", [[TextDelta(LONG)], slow("idle")]), Scripted("b", [broken()])])
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "partial"
    assert told.data("model.failed", "m1").partial is True


async def test_pictures_of_a_draft_are_told_once_since_no_summary_shows_them() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    chunk = msgspec.json.encode({"choices": [{"index": 0, "delta": {"images": [picture]}}]})
    drawn: Batch = [Extra(Original("openai.chunk", chunk))]
    panel = Panel([Scripted("a", [drawn, drawn, *says("one")]), Scripted("b", says("two"))])
    told = await panel.ask()
    assert told.data("model.adapted").warnings == (PICTURES_LOST,)
    assert told.call.answer is not None
    assert [one.warnings for one in told.call.answer.members] == [(PICTURES_LOST,), (), ()]


async def test_a_lone_refusal_stays_a_refusal() -> None:
    panel = Panel([Scripted("a", [refusal("I will not."), *says()]), Scripted("b", [broken()])])
    told = await panel.ask()
    assert told.text == ""
    assert any(type(one).__name__ == "RefusalDelta" for one in told.deltas)


async def test_a_moderated_member_is_a_failure() -> None:
    panel = Panel([Scripted("a", says(reason="content_filter")), Scripted("b", says("two"))])
    told = await panel.ask()
    assert told.data("model.failed").code == "content_filter"
    assert told.text == "two"


async def test_a_draft_that_is_not_the_json_that_was_asked_for_is_none() -> None:
    panel = Panel([Scripted("a", says("sorry, no")), Scripted("b", says('{"x": 1}'))])
    told = await panel.ask(response_format={"type": "json_object"})
    assert told.data("model.failed").code == "invalid_draft"
    assert told.text == '{"x": 1}'


async def test_a_bug_in_a_member_surfaces_and_cancels_its_siblings() -> None:
    sibling = Scripted("b", [never()])
    panel = Panel([Scripted("a", [ZeroDivisionError("a mistake")]), sibling])
    told = await panel.ask()
    assert isinstance(told.error, ZeroDivisionError)
    assert told.data("model.failed").code == "internal_error"
    assert told.data("model.cancelled").reason == "failed"
    assert told.data("run.failed").error.code == "internal_error"
    assert sibling.open == 0


class Flaky(Scripted):
    """A channel's upstream that fails once before it plays its script."""

    unavailable = None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        if not self.asked:
            self.asked.append(chat)
            raise broken()
        async for batch in super().stream(chat, Call()):
            yield batch

    async def aclose(self) -> None:
        pass


async def test_a_members_retries_are_told_and_its_attempts_are_bounded() -> None:
    upstreams = [Flaky(f"c{n}", says("routed")) for n in (1, 2)]
    channels = [
        Channel(name=one.name, kind="openai", base_url="http://x", models=("a",)) for one in upstreams
    ]
    states = [ChannelState(one, [upstream]) for one, upstream in zip(channels, upstreams, strict=True)]
    model = RoutedModel("a", [(state, ChannelModel()) for state in states], random.Random(1))
    panel = Panel(
        [Scripted("b", says("two"))],
        others=[model],
        members=(Member(model="a", attempts=2), Member(model="b")),
    )
    told = await panel.ask()
    mine = [event.type for event in told.events if event.member and event.member.id == "m1"]
    assert mine == ["model.started", "model.retrying", "model.channel", "model.failed"]
    assert told.data("model.failed").attempts == 2
    told = await panel.ask()  # by now both channels are well again
    assert told.data("run.completed").level == "none"


async def test_a_member_has_the_clocks_attempts_and_deadline_of_its_configuration() -> None:
    member = Scripted("a", says("one"))
    panel = Panel(
        [member],
        timeouts=TimeoutsPatch(idle_s=7),
        members=(Member(model="a", timeouts=TimeoutsPatch(total_s=9), attempts=5),),
        deadline_s=30,
    )
    began = asyncio.get_running_loop().time()
    await panel.ask()
    (call,) = member.calls
    assert call.timeouts is not None
    silent = Timeouts(connect_s=5, first_token_s=20, idle_s=7, total_s=9)
    assert call.timeouts(TimeoutsPatch()) == silent
    said = TimeoutsPatch(connect_s=0, first_token_s=90, idle_s=90, total_s=90)
    assert call.timeouts(said) == msgspec.structs.replace(silent, connect_s=0, first_token_s=90)
    assert call.attempts == 5
    assert call.deadline is not None
    assert 29 < call.deadline - began < 33
    assert call.depth == 1


async def test_a_draft_that_does_not_fit_the_schema_is_none_and_the_answer_must_fit_too() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    members = [
        Scripted("a", says('{"n": 1}')),
        Scripted("b", says('{"n": "1"}')),
        Scripted("c", says('{"n": 2}')),
    ]
    told = await Panel(members, Scripted("writer", says('{"n": 3}'))).ask(response_format=wish)
    assert told.text == '{"n": 3}'
    assert told.data("model.failed").code == "invalid_draft"
    told = await Panel(members, Scripted("writer", says('{"m": 3}'))).ask(response_format=wish)
    assert told.text == '{"n": 1}'
    assert told.data("run.completed").level == "best_draft"


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, '{"a": ' * 3000, "\ud800", '"\\ud800"'],
    ids=["deep lists", "deep objects", "half a character", "an escaped half"],
)
@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
async def test_garbage_under_a_format_costs_its_member_alone(kind: str, text: str) -> None:
    panel = Panel([Scripted("a", says(text)), Scripted("b", says('{"x": 1}'))])
    wish = {"type": kind, "json_schema": {"name": "x", "schema": {"required": ["x"]}}}
    told = await panel.ask(response_format=wish)
    assert told.error is None
    assert told.text == '{"x": 1}'
    assert told.data("model.failed").code == "invalid_draft"
