"""What the simulated Gemini refuses, as the vendor does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.simulators.asked import Asked
from server.simulators.errors import Refused
from server.simulators.gemini_asked import read_generate

OLD, NEW = "gemini-2.5-flash", "gemini-3-pro-preview"
DECLARED = {"name": "f", "parametersJsonSchema": {"type": "object", "additionalProperties": False}}
TOOLS = [{"functionDeclarations": [DECLARED]}]
JSON = {"responseMimeType": "application/json"}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts) or [{"text": "hello there"}]}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def call(name: str = "f", id: str = "c1", **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": {}, "id": id}, **more}


def response(name: str = "f", id: str = "c1", value: Any = None) -> dict[str, Any]:
    given = {"result": "x"} if value is None else value
    return {"functionResponse": {"name": name, "id": id, "response": given}}


def read(name: str = OLD, *, contents: Any = None, **fields: Any) -> Asked:
    body = {"contents": [user()] if contents is None else contents, **fields}
    return read_generate(json.dumps(body).encode(), name, stream=True)


def test_what_is_asked_is_read_in_either_spelling() -> None:
    picture = {"inline_data": {"mime_type": "image/png", "data": "AAAA"}}
    asked = read(
        contents=[user({"text": "one"}), model(call()), user(response(), {"text": "two words"}, picture)],
        systemInstruction={"parts": [{"text": "be brief"}]},
        generation_config={"candidate_count": 2},
        tools=[{"function_declarations": [DECLARED]}],
    )
    assert (asked.model, asked.stream, asked.n) == (OLD, True, 2)
    assert (asked.prompt_tokens, asked.last_user) == (5, "two words")


def test_what_the_vendors_own_sdk_sends_is_taken() -> None:
    declared = {**DECLARED, "response_json_schema": {"type": "object"}, "behavior": "BLOCKING"}
    answered = {"functionResponse": {"name": "f", "response": {"result": {"t": 3}}}}
    asked = read(
        NEW,
        contents=[user(), model(call(thoughtSignature="E==")), user(answered)],
        systemInstruction={"parts": [{"text": "be brief"}], "role": "user"},
        tools=[{"functionDeclarations": [declared]}, {"googleSearch": {}}],
        generationConfig={"thinkingConfig": {"include_thoughts": True, "thinking_level": "LOW"}},
    )
    assert asked.last_user == ""


def test_newer_models_want_the_signature_of_each_step_since_the_user_spoke() -> None:
    past = [user(), model(call()), user(response()), model({"text": "done"}), user({"text": "again"})]
    signed = [model(call(thoughtSignature="E=="), call(id="c2")), user(response(), response(id="c2"))]
    assert read(NEW, contents=[*past, *signed]).last_user == ""
    with pytest.raises(Refused, match="missing a thought_signature"):
        read(NEW, contents=[*past, model(call()), user(response())])
    assert read(OLD, contents=[*past, model(call()), user(response())]).n == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"contents": []}, "contents is not specified"),
        ({"messages": []}, 'Unknown name "messages"'),
        ({"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]}, "valid role"),
        ({"contents": [user(), user()]}, "alternate between"),
        ({"contents": [model({"text": "a"})]}, "begin with a user turn"),
        ({"contents": [{"role": "user", "parts": []}]}, "parts must not be empty"),
        ({"contents": [user({"text": ""})]}, "required oneof field 'data'"),
        ({"contents": [user({"thoughtSignature": "E=="})]}, "required oneof field 'data'"),
        ({"contents": [user({"text": "a", "id": 1})]}, "Unknown name \"id\" at 'contents[0].parts[0]'"),
        ({"contents": [user({"text": 7})]}, "TYPE_STRING"),
        (
            {"contents": [user({"inlineData": {"mimeType": "image/gif", "data": ""}})]},
            "Unsupported MIME type",
        ),
        (
            {"contents": [user({"inlineData": {"mimeType": "image/png", "data": "?"}})]},
            "Base64 decoding failed",
        ),
        ({"contents": [user({"fileData": {}})]}, "file_uri must not be empty"),
        ({"contents": [user(), model(call())]}, "number of function response parts"),
        ({"contents": [user(), model(call()), user({"text": "?"})]}, "number of function response parts"),
        ({"contents": [user(), model(call()), user(response("g"))]}, "names match"),
        ({"contents": [user(), model(call()), user(response(id="x"))]}, "ids match"),
        ({"contents": [user(), model(call()), user({"text": "a"}, response())]}, "come before other parts"),
        ({"contents": [user(), model(call()), user(response(value=[1]))]}, "response'"),
        ({"contents": [user(call()), model(response())]}, "in a model turn"),
        ({"systemInstruction": {"parts": [call()]}}, "Only text"),
        ({"tools": [{"functionDeclarations": [{"name": "1f"}]}]}, "Invalid function name"),
        ({"tools": [{"functionDeclarations": [{**DECLARED, "parameters": {}}]}]}, "Only one of parameters"),
        (
            {
                "tools": [
                    {"functionDeclarations": [{"name": "f", "parameters": {"additionalProperties": False}}]}
                ]
            },
            'Unknown name "additionalProperties"',
        ),
        ({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "without function_declarations"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "mode"),
        (
            {"tools": TOOLS, "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"]}}},
            "only when function calling mode is ANY",
        ),
        (
            {
                "tools": TOOLS,
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}},
            },
            "not declared",
        ),
        ({"generationConfig": {"temperature": 2.1}}, "temperature"),
        ({"generationConfig": {"max_tokens": 1}}, 'Unknown name "max_tokens"'),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "stop_sequences"),
        ({"generationConfig": {"candidateCount": 9}}, "candidateCount"),
        ({"generationConfig": {"logprobs": 3}}, "response_logprobs"),
        ({"generationConfig": {"responseJsonSchema": {}}}, "response_mime_type"),
        (
            {"generationConfig": {**JSON, "responseSchema": {}, "responseJsonSchema": {}}},
            "Only one of response",
        ),
        ({"generationConfig": {**JSON, "responseSchema": {"$ref": "#"}}}, 'Unknown name "$ref"'),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}}, "not supported for this model"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "low", "thinkingBudget": 1}}},
            "only set only one",
        ),
        ({"safetySettings": [{"category": "HARM_CATEGORY_FUN", "threshold": "OFF"}]}, "category"),
        ({"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "LOW"}]}, "threshold"),
        ({"generationConfig": []}, "generation_config"),
    ],
)
def test_what_the_vendor_refuses_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as refused:
        read(**fields)
    assert (refused.value.fault.status, refused.value.fault.type) == (400, "INVALID_ARGUMENT")
    assert words in refused.value.fault.message


def test_open_models_take_no_system_instruction() -> None:
    with pytest.raises(Refused, match="Developer instruction is not enabled"):
        read("gemma-3-27b-it", systemInstruction={"parts": [{"text": "be brief"}]})
    assert read("gemma-3-27b-it").n == 1


@pytest.mark.parametrize(
    ("name", "thinking", "words"),
    [
        (NEW, {"thinkingLevel": "minimal"}, "minimal is not supported"),
        (NEW, {"thinkingBudget": 0}, "only works in thinking mode"),
        ("gemini-2.5-pro", {"thinkingBudget": 0}, "only works in thinking mode"),
    ],
)
def test_larger_models_always_think(name: str, thinking: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        read(name, generationConfig={"thinkingConfig": thinking})
    assert read("gemini-3-flash", generationConfig={"thinkingConfig": {"thinkingLevel": "MINIMAL"}}).n == 1
