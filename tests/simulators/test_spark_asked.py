"""What the simulated Spark refuses in a request frame, with which code and words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.simulators.spark_asked import SparkAsked, SparkRules, count_tokens, read_frame
from server.simulators.spark_errors import SparkFault
from server.simulators.spark_models import (
    ASSISTANT,
    FINE_TUNED,
    IMAGE,
    LITE,
    MAX,
    PRO_128K,
    ULTRA,
    WEBSOCKET_PATHS,
    X1,
    Model,
    model_at,
)
from tests.simulators.spark_asking import frame

HI = {"role": "user", "content": "hi"}
BYE = {"role": "assistant", "content": "bye"}
SYSTEM = {"role": "system", "content": "be brief"}
FUNCTION = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}


def read(request: object, model: Model = MAX, rules: SparkRules | None = None) -> SparkAsked:
    data = request if isinstance(request, bytes) else json.dumps(request).encode()
    return read_frame(data, model, "simulate", rules or SparkRules())


def refusal(request: object, model: Model = MAX, rules: SparkRules | None = None) -> tuple[int, str]:
    with pytest.raises(SparkFault) as refused:
        read(request, model, rules)
    return refused.value.code, refused.value.detail or ""


def of(model: Model, text: Any = "hi", **chat: Any) -> dict[str, Any]:
    return frame(text, chat={"domain": model.domains[0], **chat})


@pytest.mark.parametrize("model", WEBSOCKET_PATHS.values(), ids=lambda model: model.name)
def test_every_model_takes_its_own_domains_and_no_other(model: Model) -> None:
    if not model.image:
        assert all(read(frame("hi", chat={"domain": one}), model).model is model for one in model.domains)
    other = of(ULTRA if model is not ULTRA else LITE)
    assert refusal(other, model) == (10003, "invalid model domain")
    assert refusal(other, model, SparkRules(domain_code=10004))[0] == 10004
    assert refusal(other, model, SparkRules(domain_code=11200))[1].startswith("domain.")


def test_the_case_of_a_domain_counts() -> None:
    assert refusal(frame(chat={"domain": "4.0ultra"}), ULTRA)[0] == 10003


def test_paths_lead_to_models() -> None:
    assert model_at("/v1.1/chat") is LITE
    assert model_at("/v1/assistants/abc") is ASSISTANT
    assert model_at("/v1/assistants/") is None
    assert model_at("/v3.5/chat/") is None


def test_a_patch_makes_any_domain_a_fine_tuned_model() -> None:
    asked = read(frame(header={"patch_id": ["r"]}, chat={"domain": "service"}), LITE)
    assert (asked.model, asked.name) == (FINE_TUNED, "service")
    assert refusal(frame(header={"patch_id": "r"}), LITE)[1].startswith("'$.header.patch_id'")


def test_an_assistant_needs_no_parameters() -> None:
    request = frame()
    del request["parameter"]
    assert read(request, ASSISTANT).name == "general"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b'"text"', b"\xff", b'{"header": '])
def test_what_is_not_a_json_object_is_refused(data: bytes) -> None:
    assert refusal(data)[0] == 10003


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({}, "$.header"),
        (frame(header={"app_id": None}), "$.header.app_id"),
        (frame(header={"app_id": ""}), "$.header.app_id"),
        (frame(header={"app_id": "123456789"}), "$.header.app_id"),
        (frame(header={"uid": "6f9619ff-8b86-d011-b42d-00cf4fc964ff"}), "$.header.uid"),
        ({**frame(), "parameter": {}}, "$.parameter.chat"),
        (frame(chat={"domain": None}), "$.parameter.chat.domain"),
        ({**frame(), "payload": {}}, "$.payload.message"),
        (frame([]), "$.payload.message.text"),
        (frame(["hi"]), "$.payload.message.text[0]"),
        (frame([{"role": "tool", "content": "x"}]), "$.payload.message.text[0].role"),
        (frame([{"role": "user"}]), "$.payload.message.text[0].content"),
        (frame([{"role": "user", "content": [{"type": "text"}]}]), "$.payload.message.text[0].content"),
        (frame([HI, BYE, SYSTEM, HI]), "$.payload.message.text[2].role"),
        (frame([{**HI, "content_type": "image"}]), "$.payload.message.text[0].content_type"),
        (frame(payload={"functions": {}}), "$.payload.functions.text"),
        (frame(payload={"functions": {"text": []}}), "$.payload.functions.text"),
        (
            frame(payload={"functions": {"text": [{"type": "function", "function": FUNCTION}]}}),
            "$.payload.functions.text[0].name",
        ),
        (frame(chat={"tools": [{"type": "weather"}]}), "$.parameter.chat.tools[0].type"),
        (
            frame(chat={"tools": [{"type": "web_search", "web_search": {"search_mode": "wide"}}]}),
            "$.parameter.chat.tools[0].web_search.search_mode",
        ),
    ],
)
def test_what_the_schema_forbids_is_refused_by_its_path(request_: dict[str, Any], path: str) -> None:
    code, detail = refusal(request_)
    assert code == 10004
    assert detail.startswith(f"'{path}' ")


def test_the_words_for_a_user_that_is_too_long_are_the_vendors() -> None:
    assert refusal(frame(header={"uid": "u" * 33})) == (
        10004,
        "'$.header.uid' length must be less or equal than 32; ",
    )
    assert read(frame(header={"uid": "u" * 32})).uid == "u" * 32


@pytest.mark.parametrize(
    "texts", [[BYE, HI], [HI, HI], [HI, BYE], [{**HI, "content": " "}], [SYSTEM], [SYSTEM, BYE, HI]]
)
def test_the_order_of_messages_counts_unless_the_rules_are_lax(texts: list[dict[str, Any]]) -> None:
    assert refusal(frame(texts))[0] == 10004
    read(frame(texts), MAX, SparkRules(strict=False))


def test_a_conversation_in_order_is_taken() -> None:
    assert read(frame([SYSTEM, HI, BYE, {**HI, "content": "again"}])).last_user == "again"


@pytest.mark.parametrize("model", [LITE, WEBSOCKET_PATHS["/v1.1/chat_kjwx"], WEBSOCKET_PATHS["/v2.1/chat"]])
def test_models_without_system_or_functions_refuse_them(model: Model) -> None:
    assert refusal(of(model, [SYSTEM, HI]), model)[0] == 10004
    request = of(model)
    request["payload"]["functions"] = {"text": []}
    assert refusal(request, model)[0] == 10003


@pytest.mark.parametrize(
    ("model", "name", "good", "bad"),
    [
        (MAX, "temperature", [0.01, 1], [0, 1.01, -1, "0.5", True]),
        (X1, "temperature", [0.01, 2], [0, 2.1]),
        (MAX, "top_k", [1, 6], [0, 7, 2.5]),
        (LITE, "max_tokens", [1, 4096], [0, 4097]),
        (MAX, "max_tokens", [8192], [8193, "10"]),
        (X1, "max_tokens", [65535], [65536]),
        (X1, "top_p", [1], [0, 1.1]),
        (X1, "thinking", [{"type": "auto"}], [{"type": "sometimes"}, "enabled"]),
        (MAX, "function_choice", ["f"], [{"name": "f"}]),
        (X1, "presence_penalty", [0, 3], ["high"]),
    ],
)
def test_parameters_have_ranges(model: Model, name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        read(of(model, **{name: value}), model)
    for value in bad:
        code, detail = refusal(of(model, **{name: value}), model)
        assert code == 10163
        assert detail.startswith("'$.parameter.cbm.")
    if name != "function_choice":
        assert refusal(of(model, **{name: bad[0]}), model, SparkRules(range_code=10005))[0] == 10005


def test_a_limit_that_is_passed_is_told_as_it_was_seen() -> None:
    detail = "'$.parameter.cbm.max_tokens' value must be less or equal than 8192"
    assert refusal(of(MAX, max_tokens=16384)) == (10163, detail)


def test_tokens_are_counted_over_all_messages() -> None:
    assert count_tokens("") == 0
    assert count_tokens("你好世界你好") == 4
    assert count_tokens("one two three four") == 5
    assert refusal(of(MAX, "word " * 7000))[0] == 10907
    assert read(of(PRO_128K, "word " * 7000), PRO_128K).prompt_tokens == 8750


def test_search_and_functions_do_not_go_together_in_models_that_reason() -> None:
    request = of(X1, tools=[{"type": "web_search", "web_search": {}}])
    request["payload"]["functions"] = {"text": [FUNCTION]}
    assert refusal(request, X1)[0] == 10163


def test_another_application_is_not_licensed() -> None:
    assert refusal(frame(header={"app_id": "foreign"})) == (11200, "domain.generalv3.5")


def test_an_image_comes_first() -> None:
    assert refusal(of(IMAGE), IMAGE)[1].startswith("'$.payload.message.text[0].content_type'")
