"""A chat's parameters as Anthropic takes them."""

from __future__ import annotations

from typing import Any

import pytest

from server.anthropic_wire import AnthropicModel
from server.errors import InvalidRequest
from tests.anthropic_wire.messages import ADAPTIVE, BUDGET, called, request, result, user

WEATHER = {"name": "weather", "description": "Tells it", "parameters": {"type": "object"}, "strict": True}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": function}


def test_the_least_that_is_sent() -> None:
    body, warnings = request()
    hello = [{"type": "text", "text": "hello"}]
    assert body == {"model": "claude", "max_tokens": 8192, "messages": [{"role": "user", "content": hello}]}
    assert warnings == ()


def test_a_limit_goes_by_either_name_and_a_stream_is_asked_for() -> None:
    assert request(max_tokens=5)[0]["max_tokens"] == 5
    body, warnings = request(
        max_tokens=7, max_completion_tokens=7, stream=True, stream_options={"include_usage": True}
    )
    assert (body["max_tokens"], body["stream"], warnings) == (7, True, ())


def test_tools_are_bare_with_a_schema_always() -> None:
    body, _ = request(tools=[tool(**WEATHER), tool(name="now")])
    assert body["tools"] == [
        {"name": "weather", "description": "Tells it", "input_schema": {"type": "object"}, "strict": True},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    ("choice", "theirs"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "now"}}, {"type": "tool", "name": "now"}),
    ],
)
def test_a_choice_of_tools_is_said_in_their_words(choice: Any, theirs: dict[str, Any]) -> None:
    assert request(tools=[tool(name="now")], tool_choice=choice)[0]["tool_choice"] == theirs


def test_one_call_at_a_time_is_part_of_the_choice() -> None:
    alone = request(tools=[tool(name="now")], parallel_tool_calls=False)[0]["tool_choice"]
    assert alone == {"type": "auto", "disable_parallel_tool_use": True}
    none = request(tools=[tool(name="now")], parallel_tool_calls=False, tool_choice="none")[0]["tool_choice"]
    assert none == {"type": "none"}
    assert "tool_choice" not in request(parallel_tool_calls=False, tool_choice="auto")[0]


def test_stop_words_are_a_list_without_blank_ones() -> None:
    assert request(stop="END")[0]["stop_sequences"] == ["END"]
    assert request(stop=["a", "\n", ""])[0]["stop_sequences"] == ["a"]
    assert "stop_sequences" not in request(stop=[" "])[0]


def test_sampling_is_brought_into_range_and_told() -> None:
    body, warnings = request(temperature=1.7, top_p=0.5, top_k=3)
    assert (body["temperature"], body["top_k"], "top_p" in body) == (1, 3, False)
    assert len(warnings) == 2
    assert request(temperature=0.3)[0]["temperature"] == 0.3
    assert request(top_p=0.5)[0]["top_p"] == 0.5


def test_a_model_that_takes_no_sampling_gets_none() -> None:
    body, warnings = request(model=AnthropicModel(sampling=False), temperature=0.3, top_p=0.1)
    assert not {"temperature", "top_p"} & body.keys()
    assert len(warnings) == 2


def test_an_effort_is_adaptive_thinking_and_goes_without_sampling() -> None:
    body, warnings = request(reasoning_effort="minimal", temperature=0.5)
    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"] == {"effort": "low"}
    assert "temperature" not in body
    assert [warning.split()[0] for warning in warnings] == ["reasoning_effort", "temperature"]
    assert request(reasoning_effort="xhigh")[1] == ()
    assert request(reasoning_effort="none")[0]["thinking"] == {"type": "disabled"}


def test_an_effort_is_a_budget_below_the_limit_for_older_models() -> None:
    def budget(**fields: Any) -> Any:
        return request(model=BUDGET, **fields)[0].get("thinking")

    assert budget(reasoning_effort="low") == {"type": "enabled", "budget_tokens": 2048}
    assert budget(reasoning_effort="high") == {"type": "enabled", "budget_tokens": 6144}
    assert budget(reasoning_effort="high", max_tokens=1100) == {"type": "enabled", "budget_tokens": 1024}
    assert budget(reasoning_effort="high", max_tokens=1024) is None
    assert budget(reasoning_effort="none") is None


def test_thinking_is_left_out_where_it_is_not_taken() -> None:
    cases: list[tuple[AnthropicModel, dict[str, Any]]] = [
        (AnthropicModel(), {}),
        (ADAPTIVE, {"tools": [tool(name="now")], "tool_choice": "required"}),
        (BUDGET, {"messages": [user("a"), called("c"), result("c")]}),
    ]
    for model, fields in cases:
        messages = fields.pop("messages", [])
        body, warnings = request(*messages, model=model, reasoning_effort="high", **fields)
        assert "thinking" not in body
        assert [warning.startswith("reasoning_effort was left out: ") for warning in warnings] == [True]


def test_thoughts_that_came_back_let_a_budget_model_think_on() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "Eq"}
    body, _ = request(
        user("a"), called("c", thinking_blocks=[thought]), result("c"), model=BUDGET, reasoning_effort="low"
    )
    assert body["thinking"]["type"] == "enabled"


def test_a_schema_goes_along_and_bare_json_is_asked_for_in_words() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body, _ = request(response_format=asked, reasoning_effort="max")
    assert body["output_config"] == {"effort": "max", "format": {"type": "json_schema", "schema": schema}}
    bare, warnings = request(response_format={"type": "json_object"})
    assert "JSON" in bare["system"][-1]["text"]
    assert warnings == ("response_format was put into words: this model is held to schemas only",)
    asked["json_schema"]["description"] = "An x."  # type: ignore[index]
    described = request(response_format=asked)[0]["output_config"]["format"]["schema"]
    assert described == {"description": "An x.", **schema}
    assert "system" not in request(response_format={"type": "text"})[0]


def test_who_knows_the_service_may_use_its_own_fields() -> None:
    own: dict[str, Any] = {
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "container": "c",
        "service_tier": "standard_only",
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low"},
    }
    body, warnings = request(**own, user="someone", reasoning_effort="max")
    assert {key: body[key] for key in own} == own
    assert [warning.split()[0] for warning in warnings] == ["reasoning_effort", "user"]


def test_stop_words_of_blanks_are_left_out_and_told() -> None:
    body, warnings = request(stop=["\n\n", "."])
    assert body["stop_sequences"] == ["."]
    assert warnings == ("stop was left out where it is blank: this model takes no such word",)


def test_what_stands_beside_a_tool_goes_along_if_the_service_knows_it() -> None:
    tool = {"type": "function", "function": {"name": "f"}, "defer_loading": True, "odd": 1}
    body, warnings = request(tools=[tool])
    assert body["tools"][0]["defer_loading"] is True
    assert "odd" not in body["tools"][0]
    assert warnings == ("odd of tools was left out",)


@pytest.mark.parametrize(("key", "value"), [("logprobs", True), ("top_logprobs", 2)])
def test_log_probabilities_are_refused_by_the_name_that_asked_for_them(key: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(**{key: value})
    assert (refused.value.param, refused.value.code) == (key, "unsupported_parameter")


def test_the_end_user_is_told_hashed() -> None:
    body, _ = request(user="mail@example.com")
    assert "mail" not in body["metadata"]["user_id"]
    assert body == request(user="mail@example.com")[0]


def test_what_only_steers_is_left_out_and_told() -> None:
    body, warnings = request(
        seed=1, presence_penalty=0.1, logit_bias={"1": 2}, x_new=1, service_tier="flex", metadata={"a": "b"}
    )
    assert body.keys() == {"model", "max_tokens", "messages"}
    assert sorted(warning.split()[0] for warning in warnings) == [
        "logit_bias", "metadata.a", "presence_penalty", "seed", "service_tier", "x_new",
    ]  # fmt: skip


def test_what_is_told_fits_a_header_whatever_a_client_sends() -> None:
    odd: dict[str, Any] = {"odd\r\nname": 1, "日本": 1, "metadata": {"é": "b"}}
    _, warnings = request(**odd, **dict[str, Any]({f"x{at}": at for at in range(100)}))
    assert len(warnings) == 17
    assert warnings[-1] == "and 87 more"
    assert all(warning.isascii() and warning.isprintable() for warning in warnings)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        (
            {"tools": [{"type": "custom", "function": {"name": "f"}}]},
            "tools[0].type",
            "unsupported_parameter",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0]", "invalid_type"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
        ({"reasoning_effort": "heroic"}, "reasoning_effort", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
        ({"output_config": 1}, "output_config", "invalid_type"),
    ],
)
def test_what_changes_the_meaning_is_refused(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)
