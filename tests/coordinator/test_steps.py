"""Strategy ``steps``: one model thinks step by step, then answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from server.chat import ChatRequest
from server.deltas import Batch, Opening, Original, ReasoningDelta, TextDelta, Usage
from server.errors import InvalidRequest, UpstreamEmpty, UpstreamError, UpstreamTimeout
from server.strategy_settings import Steps
from server.upstreams.base import Call
from tests.coordinator.panel import Panel, Scripted, Step, Told, broken, never, says


def step(title: str, content: str, action: str = "continue") -> str:
    return json.dumps({"title": title, "content": content, "next_action": action})


class Thinker(Scripted):
    """Plays the next script at each call; the last one again and again."""

    def __init__(self, *scripts: list[Step]) -> None:
        super().__init__("thinker", [])
        self.scripts = list(scripts)

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        self.steps = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        async for batch in super().stream(chat, call):
            yield batch

    def asked_for(self, number: int) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.asked[number].body)
        return decoded


def thinking(*scripts: list[Step], deadline_s: float = 60, **steps: Any) -> tuple[Panel, Thinker]:
    model = Thinker(*scripts)
    panel = Panel(
        [],
        others=[model],
        strategy="steps",
        model="thinker",
        members=(),
        summary=None,
        deadline_s=deadline_s,
        steps=Steps(**steps),
    )
    return panel, model


def thoughts(told: Told) -> str:
    return "".join(one.text for one in told.deltas if isinstance(one, ReasoningDelta))


TWO = (says(step("One", "first")), says(step("Two", "second", "final_answer")), says("The ", "answer."))


async def test_steps_are_reasoning_and_the_answer_alone_is_the_content() -> None:
    panel, model = thinking(*TWO)
    told = await panel.ask()
    assert thoughts(told) == "Step 1: One\nfirst\n\nStep 2: Two\nsecond\n\n"
    assert told.text == "The answer."
    assert told.reasons() == {0: "stop"}
    assert len(model.asked) == 3
    stages = [event.stage.id for event in told.events if event.type == "stage.started" and event.stage]
    assert stages == ["step.1", "step.2", "summary.1"]
    ends = [event.data for event in told.events if event.type == "stage.finished"]
    assert [end.next_action for end in ends[:2]] == ["continue", "final_answer"]  # type: ignore[attr-defined]
    assert told.data("run.completed").used == ("step.1", "step.2")
    assert told.call.answer is not None
    assert [(one.title, one.content) for one in told.call.answer.steps] == [
        ("One", "first"),
        ("Two", "second"),
    ]


async def test_the_steps_so_far_travel_as_one_turn_and_roles_alternate() -> None:
    panel, model = thinking(*TWO)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    await panel.ask(messages=turns, max_tokens=50, stop=["x"], response_format={"type": "text"})
    first, second, final = (model.asked_for(n) for n in range(3))
    assert [one["role"] for one in first["messages"]] == ["system", "user"]
    assert first["messages"][0]["content"].startswith("Be kind.\n\nThink about")
    assert [one["role"] for one in second["messages"]] == ["system", "user", "assistant", "user"]
    assert [one["role"] for one in final["messages"]] == ["system", "user", "assistant", "user"]
    assert final["messages"][0]["content"] == "Be kind."
    assert "first" in final["messages"][2]["content"]
    assert not {"max_tokens", "stop", "response_format"} & set(first)
    assert (final["max_tokens"], final["stop"]) == (50, ["x"])


async def test_tokens_are_limited_for_each_step_and_for_the_answer() -> None:
    panel, model = thinking(*TWO, step_tokens=30, final_tokens=40, prompt="Reason.", json_mode="always")
    await panel.ask(max_tokens=90)
    assert model.asked_for(0)["max_tokens"] == 30
    assert model.asked_for(0)["response_format"] == {"type": "json_object"}
    assert model.asked_for(0)["messages"][0] == {"role": "system", "content": "Reason."}
    assert model.asked_for(2)["max_tokens"] == 40
    assert "response_format" not in model.asked_for(2)


@pytest.mark.parametrize(
    ("known", "settings", "asked"),
    [
        (True, {}, True),
        (True, {"prompt": "Answer with JSON."}, True),
        (True, {"prompt": "Reason."}, False),
        (True, {"json_mode": "never"}, False),
        (None, {}, False),
        (None, {"json_mode": "always"}, True),
    ],
)
async def test_json_is_asked_for_where_the_model_is_known_to_take_that(
    known: bool | None, settings: dict[str, Any], asked: bool
) -> None:
    panel, model = thinking(*TWO, **settings)
    model.json_mode = known
    await panel.ask()
    assert ("response_format" in model.asked_for(0)) is asked
    assert "response_format" not in model.asked_for(2)


async def test_the_number_of_steps_is_exact_and_a_missing_next_action_goes_on() -> None:
    scripts = [says(json.dumps({"title": str(n), "content": f"thought {n}"})) for n in range(3)]
    panel, model = thinking(*scripts, says("Done."), max_steps=3)
    told = await panel.ask()
    assert told.text == "Done."
    assert len(model.asked) == 4


async def test_a_spent_budget_goes_straight_to_the_answer() -> None:
    one = says(step("One", "first"), usage=Usage(1, 100, 101))
    panel, model = thinking(one, says("Done."), budget_tokens=100)
    told = await panel.ask()
    assert told.text == "Done."
    assert told.data("run.completed").level == "none"
    assert len(model.asked) == 2


@pytest.mark.parametrize("second", [step("Again", "FIRST!"), ""])
async def test_a_repeated_or_an_empty_step_ends_the_thinking(second: str) -> None:
    panel, _ = thinking(says(step("One", "first")), says(*([second] if second else [])), says("Done."))
    told = await panel.ask()
    assert told.text == "Done."
    assert told.call.answer is not None
    assert len(told.call.answer.steps) == 1
    assert told.data("run.completed").level == "none"


async def test_markdown_and_details_are_text_under_headings() -> None:
    panel, _ = thinking(*TWO, format="markdown", show_time=True)
    told = await panel.ask()
    head, _, tail = told.text.partition("\n\n**Total thinking time: ")
    assert head == "## Step 1: One\nfirst\n\n## Step 2: Two\nsecond\n\n### Final Answer\nThe answer."
    assert tail.endswith(" seconds**")
    panel, _ = thinking(says(step('<b> "x"', "a\nb", "final_answer")), says("Done."), format="details")
    told = await panel.ask()
    assert told.text == (
        '<details open>\n<summary>Step 1: &lt;b> "x"</summary>\na\nb\n</details>\n\n### Final Answer\nDone.'
    )


async def test_a_title_behind_its_content_still_stands_before_it() -> None:
    panel, _ = thinking(
        says('{"content": "thought", "title": "T", "next_action": "final_answer"}'),
        says("Done."),
        format="markdown",
    )
    assert (await panel.ask()).text.startswith("## Step 1: T\nthought\n\n###")


async def test_plain_text_is_a_step() -> None:
    panel, _ = thinking(says("I just ", "think."), says(step("E", "x", "final_answer")), says("Done."))
    told = await panel.ask()
    assert thoughts(told).startswith("Step 1: …\nI just think.\n\n")


async def test_each_step_is_closed_before_the_next_begins_and_comes_word_by_word() -> None:
    text = step("One", "word by word", "final_answer")
    panel, _ = thinking(says(*text), says("Done."))
    told = await panel.ask()
    pieces = [one.text for one in told.deltas if isinstance(one, ReasoningDelta)]
    assert len(pieces) > 5


async def test_the_first_steps_failure_is_an_error_not_a_step() -> None:
    panel, model = thinking([broken()])
    told = await panel.ask()
    assert isinstance(told.error, UpstreamError)
    assert told.deltas == []
    assert len(model.asked) == 1


async def test_a_later_steps_failure_leaves_the_answer_to_the_steps_before() -> None:
    panel, _ = thinking(says(step("One", "first")), [broken()], says("Done."))
    told = await panel.ask()
    assert told.text == "Done."
    assert told.data("run.degraded").level == "steps_cut"
    assert told.data("run.completed").level == "steps_cut"


async def test_what_is_readable_of_a_cut_step_counts() -> None:
    cut: list[Step] = [[TextDelta('{"title": "One", "content": "half a tho')], broken()]
    panel, model = thinking(cut, says("Done."))
    told = await panel.ask()
    assert told.text == "Done."
    assert thoughts(told) == "Step 1: One\nhalf a tho\n\n"
    assert told.data("run.completed").level == "steps_cut"
    assert "half a tho" in model.body["messages"][-2]["content"]


async def test_a_step_that_hangs_ends_at_the_deadline() -> None:
    panel, _ = thinking(says(step("One", "first")), [never()], says("Done."), deadline_s=0.1)
    told = await panel.ask()
    assert told.text == "Done."
    assert told.data("run.degraded").reason == "upstream_timeout_total"
    panel, _ = thinking([never()], deadline_s=0.05)
    assert isinstance((await panel.ask()).error, UpstreamTimeout)


async def test_an_answer_that_fails_is_an_error() -> None:
    panel, _ = thinking(says(step("One", "first", "final_answer")), [broken()])
    told = await panel.ask()
    assert isinstance(told.error, UpstreamError)
    panel, _ = thinking(says())
    assert isinstance((await panel.ask()).error, UpstreamEmpty)


async def test_the_client_sees_one_opening_only() -> None:
    data = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":"Done."},"finish_reason":null}]}'
    chunk: Batch = [
        Opening(0, Original("openai.chunk", data)),
        TextDelta("Done.", 0, Original("openai.chunk", b"")),
    ]
    panel, _ = thinking(says(step("One", "first", "final_answer")), [chunk, *says()[1:]])
    told = await panel.ask()
    assert [one for one in told.deltas if isinstance(one, Opening)] == []
    assert TextDelta("Done.") in told.deltas


async def test_a_plain_answer_may_have_the_body_of_o1_api() -> None:
    panel, _ = thinking(*TWO, plain="o1-api")
    told = await panel.ask()
    assert told.call.answer is not None
    assert told.call.answer.plain_body is not None
    body = json.loads(told.call.answer.plain_body)
    assert [one[:2] for one in body["steps"]] == [
        ["Step 1: One", "first"],
        ["Step 2: Two", "second"],
        ["Final Answer", "The answer."],
    ]
    assert body["total_thinking_time"] >= 0
    panel, _ = thinking(*TWO, plain="o1-api")
    told = await panel.ask(stream=True)
    assert told.call.answer is not None
    assert told.call.answer.plain_body is None


async def test_tools_are_for_the_answer_only() -> None:
    panel, model = thinking(*TWO)
    tools = [{"type": "function", "function": {"name": "look"}}]
    await panel.ask(tools=tools)
    assert "tools" not in model.asked_for(0)
    assert model.asked_for(2)["tools"] == tools


async def test_an_unfit_wish_is_refused_before_any_call() -> None:
    panel, model = thinking(*TWO)
    told = await panel.ask(n=2)
    assert isinstance(told.error, InvalidRequest)
    told = await panel.ask(antiphon={"quorum": 1})
    assert isinstance(told.error, InvalidRequest)
    assert model.asked == []
