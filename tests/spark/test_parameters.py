"""Parameters fit the model's ranges; what cannot be had is refused, never quietly dropped."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.spark.models import MODELS, assistant, fine_tuned
from server.spark.parameters import SparkOptions, adapted, functions_of, instruction, parameters, stops
from tests.spark.spark_chats import chat

FUNCTION = {"name": "weather", "description": "d", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": {**FUNCTION, "strict": True}}
OTHER = {"type": "function", "function": {"name": "other"}}
SEARCH = {"type": "web_search", "web_search": {"enable": True, "search_mode": "deep"}}


def sent(model: str = "spark-max", *, functions: bool = False, **fields: Any) -> dict[str, Any]:
    return parameters(chat(**fields), MODELS[model], SparkOptions(), functions)


def called(model: str = "spark-max", **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(
        msgspec.json.encode(functions_of(chat(**fields), MODELS[model]))
    )
    return found


@pytest.mark.parametrize(
    ("model", "given_", "expected"),
    [
        ("spark-lite", {"temperature": 0}, {"temperature": 0.01}),
        ("spark-lite", {"temperature": 1.7}, {"temperature": 1}),
        ("spark-x1", {"temperature": 1.7}, {"temperature": 1.7}),
        ("spark-x1", {"temperature": 3}, {"temperature": 2}),
        ("spark-lite", {"top_k": 40}, {"top_k": 6}),
        ("spark-lite", {"top_k": 0}, {"top_k": 1}),
        ("spark-lite", {"max_tokens": 100_000}, {"max_tokens": 4096}),
        ("spark-pro", {"max_tokens": 100_000}, {"max_tokens": 8192}),
        ("spark-x1", {"max_tokens": 100_000}, {"max_tokens": 65535}),
        ("spark-kjwx", {"max_tokens": 100_000}, {"max_tokens": 8192}),
        ("spark-lite", {"max_completion_tokens": 7, "max_tokens": 7}, {"max_tokens": 7}),
        ("spark-lite", {"max_tokens": -1}, {"max_tokens": 1}),
        ("spark-lite", {"max_tokens": None, "temperature": None, "top_k": None}, {}),
        ("spark-lite", {"top_p": 0.5, "presence_penalty": 1, "seed": 1, "logit_bias": {"1": 1}}, {}),
        ("spark-x1", {"top_p": 0, "presence_penalty": -2}, {"top_p": 0.01, "presence_penalty": 0}),
        ("spark-x1", {"frequency_penalty": 2}, {"frequency_penalty": 1}),
        ("spark-x1", {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        ("spark-lite", {"thinking": {"type": "disabled"}}, {}),
        ("spark-x1", {"thinking": None}, {}),
    ],
)
def test_a_value_is_brought_into_the_models_range(
    model: str, given_: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = sent(model, **given_)
    assert made.pop("domain") == MODELS[model].domain
    made.pop("tools", None)
    assert made == expected


@given(st.floats(-10, 10), st.integers(-(2**40), 2**40), st.sampled_from(sorted(MODELS)))
def test_any_number_is_within_the_range(temperature: float, tokens: int, name: str) -> None:
    made = sent(name, temperature=temperature, max_tokens=tokens)
    assert 0 < made["temperature"] <= MODELS[name].max_temperature
    assert 1 <= made["max_tokens"] <= (MODELS[name].max_tokens or 2**40)


def test_a_limit_is_sent_as_it_is_where_the_range_is_not_known() -> None:
    tuned = fine_tuned("mine", "service")
    made = parameters(chat(max_tokens=100_000), tuned, SparkOptions(), False)
    assert made == {"domain": "service", "max_tokens": 100_000}


def test_an_assistant_has_no_domain() -> None:
    assert parameters(chat(), assistant("a", "1"), SparkOptions(), False) == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"top_k": "4"}, "top_k"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"thinking": True}, "thinking.type"),
    ],
)
def test_what_cannot_be_carried_out_is_a_400_with_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent("spark-x1", **fields)
    assert caught.value.param == param


def test_functions_go_bare_and_without_what_spark_has_no_word_for() -> None:
    assert called(tools=[TOOL]) == [FUNCTION]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, []),
        ({"tools": []}, []),
        ({"tools": [TOOL, OTHER]}, ["weather", "other"]),
        ({"tools": [TOOL], "tool_choice": "none"}, []),
        ({"tools": [TOOL], "tool_choice": "required"}, ["weather"]),
        (
            {"tools": [TOOL, OTHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            ["other"],
        ),
        ({"tools": [TOOL, OTHER], "tool_choice": {"type": "function", "name": "weather"}}, ["weather"]),
        ({"tools": [SEARCH]}, []),
    ],
)
def test_tool_choice_decides_which_functions_are_sent(fields: dict[str, Any], names: list[str]) -> None:
    assert [one["name"] for one in called(**fields)] == names


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [TOOL, {"type": "retrieval"}]}, "tools[1]"),
        ({"tools": [1]}, "tools"),
        ({"tools": [TOOL, OTHER], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"functions": [FUNCTION]}, "functions"),
    ],
)
def test_tools_that_cannot_be_offered_are_a_400(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        called(**fields)
    assert caught.value.param == param


def test_functions_for_a_model_without_are_a_400_unless_none_may_be_called() -> None:
    with pytest.raises(InvalidRequest, match="spark-lite") as caught:
        called("spark-lite", tools=[TOOL])
    assert caught.value.param == "tools"
    assert called("spark-lite", tools=[TOOL], tool_choice="none") == []


def test_the_named_function_is_preferred_by_name() -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    assert sent(functions=True, tools=[TOOL], tool_choice=choice)["function_choice"] == "weather"


def test_the_web_is_searched_only_on_demand() -> None:
    assert sent()["tools"] == [{"type": "web_search", "web_search": {"enable": False}}]
    assert "tools" not in sent("spark-lite")
    (asked,) = sent(tools=[SEARCH])["tools"]
    assert asked["web_search"] == {"enable": True, "show_ref_label": True, "search_mode": "deep"}
    (openais,) = sent(web_search_options={})["tools"]
    assert openais["web_search"]["enable"]
    assert sent(tools=[{"type": "web_search", "web_search": {"enable": False}}])["tools"] == sent()["tools"]
    always = parameters(chat(), MODELS["spark-pro"], SparkOptions(web_search=True), False)
    assert always["tools"][0]["web_search"]["enable"]


def test_a_search_that_cannot_be_had_is_a_400() -> None:
    with pytest.raises(InvalidRequest, match="spark-lite"):
        sent("spark-lite", tools=[SEARCH])
    with pytest.raises(InvalidRequest, match="functions"):
        sent("spark-x1", functions=True, tools=[SEARCH, TOOL])
    assert "tools" not in sent("spark-x1", functions=True, tools=[TOOL])


def test_a_response_format_is_asked_for_in_words() -> None:
    assert instruction(chat()) == ""
    assert instruction(chat(response_format={"type": "text"})) == ""
    assert "JSON object" in instruction(chat(response_format={"type": "json_object"}))
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}
    assert '"array"' in instruction(chat(response_format=schema))


@pytest.mark.parametrize(
    "format_", [{"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}]
)
def test_a_response_format_that_is_none_is_a_400(format_: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="response_format"):
        instruction(chat(response_format=format_))


@pytest.mark.parametrize(
    ("stop", "expected"), [(None, ()), ("a", ("a",)), (["a", "", "b"], ("a", "b")), ([], ()), ("", ())]
)
def test_stop_words_are_read_in_every_form(stop: Any, expected: tuple[str, ...]) -> None:
    assert stops(chat(stop=stop)) == expected


def test_the_only_function_is_named_where_one_must_be_called() -> None:
    asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    assert sent(functions=True, **asked)["function_choice"] == "weather"
    assert [one["name"] for one in called(**asked)] == ["weather"]
    assert sent(functions=True, **(asked | {"tools": [SEARCH, TOOL]}))["function_choice"] == "weather"


def test_what_is_left_out_or_clamped_is_told_in_names_and_no_values() -> None:
    asked: dict[str, Any] = {"temperature": 1.7, "top_k": 40, "max_tokens": 100_000, "top_p": 0.5}
    asked |= {"seed": 31337, "logprobs": True, "odd": 1, "thinking": {"type": "disabled"}}
    assert adapted(chat(**asked), MODELS["spark-lite"]) == (
        "temperature was brought into the range of the model",
        "top_k was brought into the range of the model",
        "max_tokens was brought into the range of the model",
        "top_p was left out",
        "seed was left out",
        "logprobs was left out",
        "odd was left out",
        "thinking was left out",
    )
    assert adapted(chat(**asked), MODELS["spark-x1"])[2:] == (
        "seed was left out",
        "logprobs was left out",
        "odd was left out",
    )


def test_what_is_carried_out_or_asks_for_nothing_is_not_told() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    asked: dict[str, Any] = {"temperature": 0, "stop": ["x"], "tools": [tool]}
    asked |= {"logprobs": False, "seed": None, "user": "u", "stream": True, "n": 1, "max_tokens": 5}
    assert adapted(chat(**asked), MODELS["spark-max"]) == ()


def test_what_is_asked_for_otherwise_is_told() -> None:
    asked: dict[str, Any] = {"response_format": {"type": "json_object"}, "parallel_tool_calls": False}
    asked |= {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}
    asked |= {"thinking": {"type": "enabled", "budget_tokens": 9}}
    asked |= {"web_search_options": {"search_context_size": "low"}}
    assert adapted(chat(**asked), MODELS["spark-x1"]) == (
        "response_format was put into words: Spark is held to no format",
        "parallel_tool_calls was left out: Spark calls one function at a time",
        "web_search_options.search_context_size was left out",
        "thinking.budget_tokens was left out",
        "strict of tools was left out",
    )


def test_audio_as_an_answer_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="audio") as refused:
        sent(modalities=["text", "audio"])
    assert (refused.value.param, refused.value.code) == ("modalities", "unsupported_parameter")
