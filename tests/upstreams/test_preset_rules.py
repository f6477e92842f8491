"""Each preset against a simulator that shows its vendor's quirks."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from server.deltas import Finished, TextDelta, UsageDelta
from server.errors import (
    ContentFiltered,
    InsufficientQuota,
    InvalidRequest,
    Overloaded,
    RateLimited,
    UpstreamAuth,
    UpstreamError,
    UpstreamRefused,
)
from server.presets import PRESETS
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from server.upstreams.base import Call, Upstream
from tests.channels import answer, chat, deltas, failure
from tests.upstreams.openai_cases import KEY, TEXT, upstream

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
# What a vendor's service answers with a 4xx: a request that follows the preset has none of it.
REFUSED_FIELDS = {
    "mistral": ("seed", "stream_options", "user", "max_completion_tokens", "logit_bias", "store"),
    "groq": ("logit_bias",),
    "cohere": ("stream_options",),
    "spark-http": ("stream_options", "seed", "logit_bias"),
    "minimax": ("max_tokens",),
    "openai": ("max_tokens", "top_p", "presence_penalty", "frequency_penalty"),
    "xai": ("presence_penalty", "frequency_penalty"),
}
MODELS = {"openai": "gpt-5-mini", "xai": "grok-4"}
# With these fields, whatever the vendor, a request goes through.
FULL: dict[str, Any] = {
    "seed": 7,
    "max_tokens": 9,
    "temperature": 1.7,
    "top_p": 1,
    "user": "u",
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {"5": 1},
    "store": False,
}


def speaking(
    sim: OpenAISimulator, preset: str, model: str = "theirs", **settings: Any
) -> AbstractAsyncContextManager[Upstream]:
    return upstream(sim.base_url, preset=preset, models={"m": {"model": model}}, **settings)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
async def test_a_request_full_of_fields_suits_every_vendor(
    sim: OpenAISimulator, preset: str, stream: bool
) -> None:
    script = Script(text=TEXT, refuse_fields=REFUSED_FIELDS.get(preset, ()), leading="" if stream else "\n\n")
    sim.script(script)
    async with speaking(sim, preset, MODELS.get(preset, "theirs")) as channel:
        assert await answer(channel, request=chat(stream=stream, **FULL)) == TEXT
    (request,) = sim.requests
    assert request.json()["model"] == MODELS.get(preset, "theirs")
    assert request.header("authorization") == f"Bearer {KEY}"
    if stream and PRESETS[preset].stream_usage == "ask":
        assert request.json()["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("preset", "finish", "ours"),
    [(name, theirs, ours) for name, one in PRESETS.items() for theirs, ours in one.finish.items()],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_finish_reasons_of_vendors_become_openais(
    sim: OpenAISimulator, preset: str, finish: str, ours: str, stream: bool
) -> None:
    text = f'say "finish_reason":"{finish}"'
    sim.script(Script(text=text, finish=finish))
    async with speaking(sim, preset) as channel:
        told = await deltas(channel, request=chat(stream=stream))
    assert [delta.reason for delta in told if type(delta) is Finished] == [ours]
    assert "".join(delta.text for delta in told if type(delta) is TextDelta) == text
    (bearing,) = [delta for delta in told if delta.original and finish.encode() in delta.original.data][-1:]
    assert b'finish_reason":"' + finish.encode() not in bearing.original.data  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["own", "last"])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_stops_to_have_tools_called_says_so(sim: OpenAISimulator, stream: bool, form: Any) -> None:
    script = Script(tools=(ToolCall(),), finish="stop", finish_form=form, tool_form="whole")
    for preset, ours in (("gemini-openai", "tool_calls"), ("deepseek", "stop")):
        sim.script(script)
        async with speaking(sim, preset) as channel:
            told = await deltas(channel, request=chat(stream=stream))
        assert [delta.reason for delta in told if type(delta) is Finished] == [ours]


MEANT = {
    "quota": InsufficientQuota,
    "auth": UpstreamAuth,
    "busy": Overloaded,
    "loading": Overloaded,
    "rate": RateLimited,
    "content": ContentFiltered,
    "length": UpstreamRefused,
    "request": UpstreamRefused,
}


@pytest.mark.parametrize(
    ("preset", "code", "meaning", "form"),
    [
        (name, code, meaning, form)
        for name, one in PRESETS.items()
        for code, meaning in one.codes.items()
        for form in ("openai", "base_resp", "flat")
        if form == "openai" or code.isdigit()
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_codes_of_vendors_are_understood(
    sim: OpenAISimulator, preset: str, code: str, meaning: str, form: Any, stream: bool
) -> None:
    number: Any = int(code) if code.isdigit() else code
    inside = form == "base_resp"
    sim.script(
        Script(
            status=200 if inside else 400,
            error_after=0 if inside else None,
            error_form=form,
            error_code=number,
            error_message="of theirs",
        )
    )
    async with speaking(sim, preset) as channel:
        error = await failure(channel, request=chat(stream=stream))
    assert type(error) is MEANT[meaning]
    if meaning == "length":
        assert error.code == "context_length_exceeded"
    if meaning in ("content", "length", "request", "rate"):
        assert error.message == "of m"  # by our name of the model


async def test_a_type_may_be_the_word_that_counts(sim: OpenAISimulator) -> None:
    sim.script(Script(status=429, error_type="engine_overloaded_error", error_code="", retry_after=4))
    async with speaking(sim, "moonshot") as channel:
        error = await failure(channel)
    assert (type(error), error.retry_after_s) == (Overloaded, 4)


async def test_geminis_bad_key_is_a_400_in_a_list(sim: OpenAISimulator) -> None:
    sim.script(
        Script(
            status=400, error_form="array", error_message="API key not valid. Please pass a valid API key."
        )
    )
    async with speaking(sim, "gemini-openai") as channel:
        assert type(await failure(channel)) is UpstreamAuth


async def test_other_words_keep_their_meaning(sim: OpenAISimulator) -> None:
    sim.script(Script(status=400, error_message="no such voice"), Script(status=500, error_code=7))
    async with speaking(sim, "minimax") as channel:
        assert (await failure(channel)).message == "no such voice"
        assert type(await failure(channel)) is UpstreamError


@pytest.mark.parametrize(
    ("preset", "model", "fields", "param"),
    [
        ("groq", "m", {"n": 2}, "n"),
        ("groq", "m", {"logprobs": True}, "logprobs"),
        ("mistral", "m", {"logprobs": True}, "logprobs"),
        ("perplexity", "m", {"tools": [TOOL]}, "tools"),
        ("xai", "grok-4", {"stop": ["a"]}, "stop"),
        ("moonshot", "m", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_what_would_change_the_meaning_is_refused_unsent(
    sim: OpenAISimulator, preset: str, model: str, fields: dict[str, Any], param: str
) -> None:
    async with speaking(sim, preset, model) as channel:
        for stream in (True, False):
            error = await failure(channel, request=chat(stream=stream, **fields))
            assert (type(error), error.param, error.code) == (InvalidRequest, param, "unsupported_parameter")
    assert sim.requests == []


@pytest.mark.parametrize(
    ("preset", "model"), [("mistral", "large"), ("openai", "gpt-5-mini"), ("minimax", "m")]
)
async def test_two_limits_that_differ_are_refused_where_one_name_is_known(
    sim: OpenAISimulator, preset: str, model: str
) -> None:
    async with speaking(sim, preset, model) as upstream:
        error = await failure(upstream, request=chat(max_tokens=5, max_completion_tokens=6))
        assert isinstance(error, InvalidRequest)
        assert error.param in ("max_tokens", "max_completion_tokens")
        await answer(upstream, request=chat(max_tokens=5, max_completion_tokens=5))
    assert len(sim.requests) == 1


async def test_what_asks_for_nothing_goes_through(sim: OpenAISimulator) -> None:
    async with speaking(sim, "groq") as channel:
        assert await answer(channel, request=chat(n=1, logprobs=False, top_logprobs=None)) == TEXT
    async with speaking(sim, "xai", "grok-3") as channel:
        assert await answer(channel, request=chat(stop=["a"])) == TEXT


async def sent(sim: OpenAISimulator, preset: str, model: str = "theirs", **fields: Any) -> dict[str, Any]:
    """What reaches the vendor, and what was told of it under ``warnings``."""
    async with speaking(sim, preset, model) as channel:
        call = Call()
        await deltas(channel, call, request=chat(**fields))
    return {**sim.requests[-1].json(), "warnings": call.warnings and call.warnings[1]}


async def test_what_was_adapted_is_told(sim: OpenAISimulator) -> None:
    got = await sent(sim, "mistral", seed=7, user="u", store=None, tool_choice="required", tools=[TOOL])
    assert (got["random_seed"], got["tool_choice"]) == (7, "any")
    assert got["warnings"] == ("user was left out",)
    assert "store" not in got
    got = await sent(sim, "zhipu", temperature=1.2, top_p=0)
    assert (got["temperature"], got["top_p"]) == (0.99, 0.01)
    assert got["warnings"] == ("temperature was changed to 0.99", "top_p was changed to 0.01")
    got = await sent(sim, "openai", "gpt-5-mini", temperature=0.2, max_tokens=5, top_p=0.5)
    assert (got["temperature"], got["max_completion_tokens"]) == (1, 5)
    assert got["warnings"] == ("top_p was left out", "temperature was changed to 1")


@pytest.mark.parametrize(
    "model",
    ["gpt-5", "gpt-5-mini", "gpt-5.1", "gpt-5-chat-latest", "o1", "o4-mini", "ft:o4-mini-2025-04-16:org::id"],
)
async def test_openais_newer_models_are_told_the_limit_by_the_name_that_they_take(
    sim: OpenAISimulator, model: str
) -> None:
    got = await sent(sim, "openai", model, max_tokens=5)
    assert (got["max_completion_tokens"], "max_tokens" in got) == (5, False)
    got = await sent(sim, "openai", model, max_completion_tokens=6)
    assert (got["max_completion_tokens"], "max_tokens" in got) == (6, False)


async def test_what_fits_goes_out_as_it_came(sim: OpenAISimulator) -> None:
    for preset, model in (("openai", "gpt-4.1"), ("deepseek", "theirs"), ("moonshot", "theirs")):
        got = await sent(sim, preset, model, temperature=0.5, max_tokens=3, unknown=[1.0])
        assert (got["temperature"], got["max_tokens"], got["unknown"]) == (0.5, 3, [1.0])
        assert got["warnings"] is None


async def test_two_names_of_one_limit_are_one(sim: OpenAISimulator) -> None:
    got = await sent(sim, "minimax", max_tokens=4, max_completion_tokens=4)
    assert got["max_completion_tokens"] == 4
    assert "max_tokens" not in got
    assert got["reasoning_split"] is True
    assert (await sent(sim, "minimax", reasoning_split=False))["reasoning_split"] is False


async def test_ids_of_tool_calls_fit_mistral_alike_on_both_sides(sim: OpenAISimulator) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [{"id": "call_of_another", **call}, {"id": "abcDEF123", **call}]},
        {"role": "tool", "tool_call_id": "call_of_another", "content": "1"},
        {"role": "tool", "tool_call_id": "abcDEF123", "content": "2"},
    ]
    got = await sent(sim, "mistral", messages=history)
    made, kept = (one["id"] for one in got["messages"][1]["tool_calls"])
    assert made.isalnum()
    assert (len(made), kept) == (9, "abcDEF123")
    assert [turn["tool_call_id"] for turn in got["messages"][2:]] == [made, kept]
    assert got["warnings"] == ("ids of tool calls were replaced",)


async def test_a_model_that_only_streams_is_collected(sim: OpenAISimulator) -> None:
    sim.script(Script(text=TEXT, needs_stream=True, tools=(ToolCall(),)), times=2)
    async with speaking(sim, "qwen", "qwq-plus") as channel:
        told = await deltas(channel, request=chat(stream=False))
        assert await answer(channel) == TEXT
    assert "".join(delta.text for delta in told if type(delta) is TextDelta) == TEXT
    assert any(type(delta) is UsageDelta for delta in told)


async def test_bots_have_a_path_of_their_own(sim: OpenAISimulator) -> None:
    async with speaking(sim, "doubao", "bot-1") as channel:
        assert await answer(channel) == TEXT
        await deltas(channel, Call(depth=2))
    async with speaking(sim, "doubao", "ep-1") as channel:
        assert await answer(channel) == TEXT
    paths = [(one.path, one.header("x-antiphon-depth")) for one in sim.requests]
    bots = "/v1/bots/chat/completions"
    assert paths == [(bots, None), (bots, "2"), ("/v1/chat/completions", None)]


async def test_a_channels_own_rules_go_first(sim: OpenAISimulator) -> None:
    async with speaking(sim, "moonshot", params={"set": {"temperature": 3}}) as channel:
        await deltas(channel)
    assert sim.requests[0].json()["temperature"] == 1


QUIRKS = {
    "deepseek": Script(comments_first=2, comments_between=True, reasoning=("hm",)),
    "moonshot": Script(usage="in_choices"),
    "hunyuan": Script(usage="every"),
    "openrouter": Script(comments_first=1, reasoning=("hm",), reasoning_field="reasoning"),
    "minimax": Script(message_last=True, reasoning=("hm",)),
    "gemini-openai": Script(tools=(ToolCall(),), tool_index=False, tool_form="whole"),
    "mistral": Script(usage="always"),
    "siliconflow": Script(space=False),
    "vllm": Script(reasoning=("hm",), reasoning_field="reasoning"),
    "llamacpp": Script(extras=True, comments_between=True),
    "openai": Script(extras=True),
}


@pytest.mark.parametrize("preset", QUIRKS)
async def test_quirks_of_streams_are_no_part_of_the_answer(sim: OpenAISimulator, preset: str) -> None:
    sim.script(msgspec.structs.replace(QUIRKS[preset], text=TEXT, chunks=4))
    async with speaking(sim, preset) as channel:
        told = await deltas(channel)
    assert "".join(delta.text for delta in told if type(delta) is TextDelta) == TEXT
    usages = [delta.usage for delta in told if type(delta) is UsageDelta]
    assert len(usages) == 1


@pytest.mark.parametrize(
    ("preset", "script", "kind"),
    [
        ("openrouter", Script(status=402, error_form="integer"), InsufficientQuota),
        ("deepseek", Script(status=402), InsufficientQuota),
        ("openrouter", Script(error_after=0, error_form="chunk"), UpstreamError),
        ("groq", Script(status=498), Overloaded),
        ("siliconflow", Script(status=401, error_form="string"), UpstreamAuth),
        ("siliconflow", Script(status=400, error_form="flat"), UpstreamRefused),
        ("mistral", Script(status=422, error_form="detail"), UpstreamRefused),
        ("vllm", Script(status=400, error_form="vllm"), UpstreamRefused),
        ("lmstudio", Script(body='{"error": "Unexpected endpoint or method."}'), UpstreamError),
        ("llamacpp", Script(status=503, error_type="unavailable_error"), Overloaded),
        ("zhipu", Script(text="a", finish="network_error"), UpstreamError),
    ],
)
async def test_errors_in_the_shapes_of_vendors(
    sim: OpenAISimulator, preset: str, script: Script, kind: type
) -> None:
    sim.script(script)
    async with speaking(sim, preset) as channel:
        assert type(await failure(channel, request=chat(stream=False))) is kind
