"""A chat's parameters as Gemini takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.gemini_wire import generate_request, model_of
from server.openai_wire import parse_chat
from server.simulators.gemini_asked import read_generate
from tests.gemini_wire.generated import BUDGET, OLD, called, request, result

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": ["string", "null"]}},
    "additionalProperties": False,
}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": function}


NOW = [tool(name="now")]


def config(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = request(**fields)[0].get("generationConfig", {})
    return made


def refused(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as raised:
        request(**fields)
    return raised.value.param, raised.value.code


def test_the_least_that_is_sent() -> None:
    body, warnings = request(stream=True, stream_options={"include_usage": True})
    assert body == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    assert warnings == ()


def test_how_to_generate_has_a_place_of_its_own() -> None:
    fields = {"top_k": 3, "seed": 0, "presence_penalty": 0.5, "frequency_penalty": -1, "n": 2}
    made = config(temperature=0, top_p=0.9, max_tokens=5, stop=["a", "b"], **fields)
    assert made == {
        "temperature": 0,
        "topP": 0.9,
        "topK": 3,
        "seed": 0,
        "presencePenalty": 0.5,
        "frequencyPenalty": -1,
        "maxOutputTokens": 5,
        "stopSequences": ["a", "b"],
        "candidateCount": 2,
    }
    assert config(max_completion_tokens=0) == {"maxOutputTokens": 0}
    assert config(stop="END") == {"stopSequences": ["END"]}
    assert config(temperature=None, stop=None, n=1, max_tokens=None) == {}


def test_numbers_keep_their_digits() -> None:
    chat = parse_chat(
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"temperature":1.10,"top_k":1.0}'
    )
    assert b'"temperature":1.10,"topK":1.0' in generate_request(chat, BUDGET).body


def test_tools_keep_their_schemas_where_the_model_reads_them() -> None:
    body, warnings = request(tools=[tool(name="weather", description="Tells it", parameters=SCHEMA), *NOW])
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Tells it", "parametersJsonSchema": SCHEMA},
                {"name": "now"},
            ]
        }
    ]
    assert warnings == ()


def test_strictness_cannot_be_had_and_that_is_told() -> None:
    body, warnings = request(tools=[tool(name="a", strict=True), tool(name="b", strict=False)])
    assert body["tools"] == [{"functionDeclarations": [{"name": "a"}, {"name": "b"}]}]
    assert len(warnings) == 1
    assert "strict" in warnings[0]
    assert request(tools=[tool(name="b", strict=False)])[1] == ()


def test_older_models_are_given_the_schemas_that_they_know() -> None:
    nothing = tool(name="none", parameters={"type": "object", "properties": {}})
    body, warnings = request(model=OLD, tools=[tool(name="weather", parameters=SCHEMA), nothing])
    weather, none = body["tools"][0]["functionDeclarations"]
    assert weather["parameters"] == {
        "type": "OBJECT",
        "properties": {"city": {"type": "STRING", "nullable": True}},
    }
    assert none == {"name": "none"}
    assert warnings == ("additionalProperties was left out of a schema",)


@pytest.mark.parametrize(
    ("choice", "theirs"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "now"}},
            {"mode": "ANY", "allowedFunctionNames": ["now"]},
        ),
    ],
)
def test_a_choice_of_tools_is_said_in_their_words(choice: Any, theirs: dict[str, Any]) -> None:
    body, _ = request(tools=NOW, tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": theirs}


def test_a_choice_without_tools_says_nothing_unless_it_wants_one() -> None:
    assert "toolConfig" not in request(tool_choice="auto")[0]
    assert refused(tool_choice="required") == ("tool_choice", "invalid_value")


def test_one_call_at_a_time_cannot_be_had_and_that_is_told() -> None:
    assert "parallel_tool_calls" in request(tools=NOW, parallel_tool_calls=False)[1][0]
    assert request(tools=NOW, parallel_tool_calls=True)[1] == ()


def test_structured_output_is_a_type_and_a_schema() -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
    json_type = {"responseMimeType": "application/json"}
    assert config(response_format=asked) == {**json_type, "responseJsonSchema": SCHEMA}
    assert config(response_format={"type": "json_object"}) == json_type
    assert config(response_format={"type": "text"}) == {}
    assert config(model=OLD, response_format=asked)["responseSchema"]["type"] == "OBJECT"


def test_a_client_of_the_vendors_own_openai_mode_is_understood() -> None:
    google = {
        "thinking_config": {"thinking_budget": 7, "include_thoughts": True},
        "cached_content": "c/1",
        "x": 1,
    }
    body, warnings = request(reasoning_effort="high", extra_body={"google": google, "other": 1})
    assert body["cachedContent"] == "c/1"
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 7, "includeThoughts": True}
    assert warnings == ("extra_body.google.x was left out", "extra_body.other was left out")
    assert refused(extra_body=[1]) == ("extra_body", "invalid_type")


def test_log_probabilities_may_be_asked_for() -> None:
    assert config(logprobs=True) == {"responseLogprobs": True}
    assert config(logprobs=True, top_logprobs=3) == {"responseLogprobs": True, "logprobs": 3}
    assert config(logprobs=False, top_logprobs=0) == {}


def test_images_may_be_asked_for() -> None:
    assert config(modalities=["text", "image"]) == {"responseModalities": ["TEXT", "IMAGE"]}
    assert config(modalities=["text"]) == {}
    assert refused(modalities=["text", "audio"]) == ("modalities", "unsupported_parameter")


def test_safety_is_the_operators_and_goes_along() -> None:
    body, _ = request(safety={"HARASSMENT": "BLOCK_NONE"})
    assert body["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    assert "safetySettings" not in request()[0]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"functions": [{}]}, "functions", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0]", "invalid_type"),
        ({"stop": list("abcdef")}, "stop", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"tools": NOW, "tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
    ],
)
def test_what_would_be_missed_is_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    assert refused(**fields) == (param, code)


def test_what_only_steers_is_left_out_and_told() -> None:
    body, warnings = request(logit_bias={"1": 2}, user="ann", store=None)
    assert [*body] == ["contents"]
    assert warnings == ("logit_bias was left out", "user was left out")


def test_the_model_stands_in_the_url_and_not_in_the_body() -> None:
    assert "model" not in json.loads(json.dumps(request()[0]))


TEXTS = st.sampled_from(["", " ", "hello", "é\u2028🙂", '{"a": 1}'])
PARTS = st.lists(
    st.one_of(
        TEXTS.map(lambda text: {"type": "text", "text": text}),
        st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}),
        st.just({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}}),
    ),
    max_size=3,
)
SCHEMAS = st.sampled_from(
    [
        None,
        {},
        {"type": "object", "properties": {}},
        SCHEMA,
        {"$defs": {"c": {"enum": ["a", None]}}, "properties": {"c": {"$ref": "#/$defs/c"}}, "type": "object"},
        {
            "type": "object",
            "properties": {"n": {"const": 1}, "l": {"type": "array", "items": {"type": "string"}}},
        },
    ]
)


@st.composite
def steps(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Something said by a user or an assistant, or calls with their results in any order."""
    kind = draw(st.sampled_from(["user", "assistant", "system", "calls"]))
    if kind != "calls":
        return [{"role": kind, "content": draw(TEXTS if kind != "user" else TEXTS | PARTS)}]
    ids = draw(st.lists(st.sampled_from(["a", "b", "call_1", "ü"]), min_size=1, max_size=3, unique=True))
    said = called(*ids, signature=draw(st.sampled_from([None, "E=="])), content=draw(TEXTS))
    return [said, *(result(id, draw(TEXTS | PARTS)) for id in draw(st.permutations(ids)))]


@given(
    st.lists(steps(), min_size=1, max_size=6),
    st.sampled_from(
        [
            "gemini-2.0-flash",
            "gemini-2.5-pro",
            "gemini-2.5-flash",
            "gemini-3-pro",
            "gemini-4-argon",
            "gemma-3-27b-it",
        ]
    ),
    st.lists(SCHEMAS, max_size=2),
    st.sampled_from([None, "none", "minimal", "medium", "xhigh"]),
    SCHEMAS,
)
def test_whatever_is_sent_the_service_takes(
    talk: list[list[dict[str, Any]]], name: str, parameters: list[Any], effort: str | None, schema: Any
) -> None:
    fields: dict[str, Any] = {"reasoning_effort": effort}
    if parameters:
        fields["tools"] = [tool(name=f"f{at}", parameters=one) for at, one in enumerate(parameters)]
        fields["tool_choice"] = {"type": "function", "function": {"name": "f0"}}
    if schema:
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [message for step in talk for message in step]
    asked = {"model": "m", "messages": messages, **fields}
    try:
        made = generate_request(parse_chat(json.dumps(asked).encode()), model_of(name))
    except InvalidRequest as error:
        assert error.param == "messages"  # noqa: PT017 - nothing was said in it
        return
    assert read_generate(made.body, name, stream=True).model == name
