"""Client dialects × kinds of upstreams × what is asked: every cell is an answer or a written refusal."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest

from server.simulators.script import ToolCall
from tests.behaviour.asking import until
from tests.behaviour.hearing import Heard, heard
from tests.behaviour.kinds import KINDS, Kind, kind_of
from tests.behaviour.speaking import DIALECTS, FUNCTIONS, Refused, Speaker, Turns, refused, speaker

SAID = "one 二 🎶 \u2028three"
SYSTEM = "Be brief – 简短."
HELLO: Turns = ({"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello 你好"})
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE: Turns = (
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    },
)
CALLS = (
    ToolCall(arguments='{"city": "Paris – 巴黎 🎶", "deep": {"a": [1, {}]}}'),
    ToolCall(name="now", arguments="{}"),
)
FAILURES = (openai.APIError, anthropic.APIError)

DOWN = Refused(502, "upstream_error", "The upstream failed with status 500; try again later.")
NO_DRAFT = Refused(
    502,
    "all_members_failed",
    "No member of the combination gave a draft; see error.details.members, and try again.",
)
CUT = Refused(0, "upstream_cut", "The upstream's answer was cut off before its end; try again.")
SPARK_CUT = Refused(
    0, "upstream_cut", "Spark closed the connection before the answer's last frame; try again."
)

# The cells that are written refusals.
NO_TOOLS = Refused(400, "unsupported_parameter", "tools belongs to POST /v1/chat/completions.")
NO_PARTS = Refused(
    400, "unsupported_parameter", "prompt must be one text; send each prompt in a request of its own."
)
BLIND = Refused(
    400, "unsupported_image", "spark-max cannot see images; send text only, or ask a model with vision."
)

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)
every_kind = pytest.mark.parametrize("name", KINDS)
both_forms = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@asynccontextmanager
async def cell(dialect: str, name: str) -> AsyncIterator[tuple[Speaker, Kind]]:
    """A client of this dialect before an upstream of this kind; nothing may be left of its requests."""
    async with kind_of(name) as kind, speaker(dialect, kind.server.url) as client:
        yield client, kind
        await kind.nothing_left()


def upstreams_heard(kind: Kind) -> list[Heard]:
    """What the last request to each upstream was: of a panel, to a member and then to the summary model."""
    sims = [kind.drafting, kind.sim] if kind.drafting else [kind.sim]
    of = "openai" if kind.drafting else kind.name
    return [heard(of, sim.requests[-1]) for sim in sims]


async def failure_of(asked: Any) -> Refused:
    with pytest.raises(FAILURES) as raised:
        await asked
    return refused(raised.value)


async def listen(words: AsyncGenerator[str, None], hear: Callable[[str], None]) -> None:
    """Hand each piece on as it comes."""
    async for piece in words:
        hear(piece)


@both_forms
@every_kind
@every_dialect
async def test_a_text(dialect: str, name: str, stream: bool) -> None:
    async with cell(dialect, name) as (client, kind):
        kind.say(text=SAID)
        told = await client.ask(kind.model, HELLO, stream=stream)
        assert (told.text, told.calls, told.end) == (SAID, (), "said")
        assert told.tokens > 0
        first = upstreams_heard(kind)[0]
        assert first.said == [("user", "hello 你好")]
        assert first.system == ("" if dialect == "completions" else SYSTEM)


@both_forms
@every_kind
@every_dialect
async def test_tools_are_called_and_their_results_come_back(dialect: str, name: str, stream: bool) -> None:
    spark = name == "spark"  # calls one function at a time, and says nothing beside it
    calls, beside = (CALLS[:1], "") if spark else (CALLS, "I look.")
    async with cell(dialect, name) as (client, kind):
        model = "spark-ultra" if spark else kind.model
        turns: list[Any] = [{"role": "user", "content": "hello"}]
        kind.say(text=beside, tools=calls)
        if dialect == "completions":
            assert await failure_of(client.ask(model, turns, stream=stream, tools=True)) == NO_TOOLS
            assert not kind.sim.requests
            return
        told = await client.ask(model, turns, stream=stream, tools=True)
        assert (told.text, told.end) == (beside, "calls")
        made = [(call.name, call.arguments) for call in told.calls]
        assert made == [(call.name, json.loads(call.arguments)) for call in calls]
        assert len({call.id for call in told.calls}) == len(calls)
        assert upstreams_heard(kind)[-1].tools == list(FUNCTIONS)
        used = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in told.calls
        ]
        turns.append({"role": "assistant", "content": told.text, "tool_calls": used})
        turns += [
            {"role": "tool", "tool_call_id": call.id, "content": f"{call.name}: 晴"} for call in told.calls
        ]
        kind.say(text="Sunny.")
        last = await client.ask(model, turns, stream=stream, tools=True)
        assert (last.text, last.end) == ("Sunny.", "said")
        came = upstreams_heard(kind)[-1]
        if spark:  # whose turns are texts
            ((_, hello), (_, call), (role, result)) = came.said
            assert (hello, role) == ("hello", "user")
            assert call.startswith("Call get_weather with {")
            assert result == "Result of get_weather: get_weather: 晴"
        else:
            assert came.calls == made
            assert came.results == [f"{call.name}: 晴" for call in told.calls]


@every_kind
@every_dialect
async def test_an_image(dialect: str, name: str) -> None:
    async with cell(dialect, name) as (client, kind):
        kind.say(text="A pixel.")
        if dialect == "completions" or name == "spark":
            told = await failure_of(client.ask(kind.model, PICTURE))
            assert told == (NO_PARTS if dialect == "completions" else BLIND)
            assert not kind.sim.requests
            return
        assert (await client.ask(kind.model, PICTURE)).text == "A pixel."
        seen = upstreams_heard(kind)[0]
        assert seen.images == [PIXEL]
        assert seen.said == [("user", "What is it?")]


@both_forms
@every_kind
@every_dialect
async def test_a_failure_before_the_first_word(dialect: str, name: str, stream: bool) -> None:
    async with cell(dialect, name) as (client, kind):
        sim = kind.drafting or kind.sim
        fails: dict[str, Any] = {"error_code": 11200} if name == "spark" else {"status": 500}
        sim.default = kind.script(**fails)
        told = await failure_of(client.ask(kind.model, HELLO, stream=stream))
        if name == "spark":
            assert (told.status, told.code) == (429, "insufficient_quota")
        else:
            assert told == (NO_DRAFT if name == "panel" else DOWN)


@every_kind
@every_dialect
async def test_a_cut_after_the_first_word_is_told_and_never_looks_whole(dialect: str, name: str) -> None:
    async with cell(dialect, name) as (client, kind):
        kind.say(text="one two three four", chunks=4, cut_after=2)
        got: list[str] = []
        told = await failure_of(listen(client.words(kind.model, HELLO), got.append))
        assert got
        assert "one two three four".startswith("".join(got))
        assert told == (SPARK_CUT if name == "spark" else CUT)


@every_kind
@every_dialect
async def test_a_client_that_leaves_ends_the_call(dialect: str, name: str) -> None:
    async with cell(dialect, name) as (client, kind):
        kind.say(text="one two three four", chunks=4, stall_after=2)
        async with aclosing(client.words(kind.model, HELLO)) as words:
            assert await anext(words)
        await until(lambda: kind.sim.requests[-1].aborted)


@every_kind
@every_dialect
async def test_an_error_after_the_first_word_is_told_by_its_name(dialect: str, name: str) -> None:
    async with cell(dialect, name) as (client, kind):
        own: dict[str, Any] = {"error_code": 10012} if name == "spark" else {}
        kind.say(text="one two three four", chunks=4, error_after=2, **own)
        got: list[str] = []
        told = await failure_of(listen(client.words(kind.model, HELLO), got.append))
        assert got
        assert "one two three four".startswith("".join(got))
        code = "overloaded" if name in ("anthropic", "gemini") else "upstream_error"
        assert (told.status, told.code) == (0, code)


@every_kind
@every_dialect
async def test_a_thought_is_told_apart_from_the_text(dialect: str, name: str) -> None:
    async with cell(dialect, name) as (client, kind):
        model = "spark-x1" if name == "spark" else kind.model
        for stream in (False, True):
            kind.say(reasoning=("which ", "city – 城?"), text=SAID)
            told = await client.ask(model, HELLO, stream=stream, thinks=True)
            assert (told.text, told.end) == (SAID, "said")
            # Text completions have no place for it.
            assert told.thought == ("" if dialect == "completions" else "which city – 城?")


@every_kind
@every_dialect
async def test_why_an_answer_ends(dialect: str, name: str) -> None:
    says: list[tuple[dict[str, Any], str]] = [
        ({"finish": "length"}, "limit"),
        ({"finish": "content_filter"}, "filtered"),
    ]
    if name == "spark":  # tells of no limit; what its moderation stops comes with a code
        says = [({"chunks": 3, "error_after": 2, "error_code": 10014}, "filtered")]
    elif name == "ollama":  # knows no filter
        del says[1]
    async with cell(dialect, name) as (client, kind):
        for fields, end in says:
            for stream in (False, True):
                kind.say(text="one two three", **fields)
                told = await client.ask(kind.model, HELLO, stream=stream)
                assert told.end == end
                assert "one two three".startswith(told.text)
                assert told.text
