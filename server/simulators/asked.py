"""What a request to the simulated upstream asks for, refused in OpenAI's words where OpenAI refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from server.simulators.errors import Fault, Refused
from server.simulators.script import Script


class Asked(msgspec.Struct, frozen=True):
    """A chat request, as far as an answer depends on it."""

    model: str
    stream: bool
    include_usage: bool
    n: int
    logprobs: bool
    prompt_tokens: int  # its words: a count that is easy to check
    last_user: str  # the text of the last user message
    fields: frozenset[str]  # the names of the top level


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises Refused."""
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(Fault(400, f"We could not parse the JSON body of your request. ({error})")) from error
    if not isinstance(read, dict):
        raise Refused(Fault(400, "We expected the JSON body of your request to be an object."))
    return read


def read_chat(body: bytes) -> Asked:
    """What a chat request asks for. Raises Refused for its first fault, with OpenAI's words and ``param``."""
    chat = read_object(body)
    model = _model(chat)
    messages = _messages(chat)
    stream = _typed(chat, "stream", bool, "a boolean") or False
    options = _typed(chat, "stream_options", dict, "an object") or {}
    if options and not stream:
        raise _invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options", None
        )
    n = _typed(chat, "n", int, "an integer")
    if n is not None and not 1 <= n <= 128:
        code = "integer_below_min_value" if n < 1 else "integer_above_max_value"
        raise _invalid(f"Invalid 'n': expected a value from 1 to 128, but got {n} instead.", "n", code)
    temperature = _typed(chat, "temperature", (int, float), "a decimal")
    if temperature is not None and not 0 <= temperature <= 2:
        code = "decimal_below_min_value" if temperature < 0 else "decimal_above_max_value"
        raise _invalid(f"Invalid 'temperature': expected a value from 0 to 2, but got {temperature} instead.",
                       "temperature", code)  # fmt: skip
    _typed(chat, "tools", list, "an array of objects")
    said = [text_of(message.get("content")) for message in messages]
    asked_last = [text for text, message in zip(said, messages, strict=True) if message["role"] == "user"]
    return Asked(
        model=model,
        stream=stream,
        include_usage=options.get("include_usage") is True,
        n=1 if n is None else n,
        logprobs=_typed(chat, "logprobs", bool, "a boolean") or False,
        prompt_tokens=sum(len(text.split()) for text in said),
        last_user=asked_last[-1] if asked_last else "",
        fields=frozenset(chat),
    )


def refuse(script: Script, asked: Asked) -> None:
    """Refuse what the scripted upstream does not take. Raises Refused."""
    for name in script.refuse_fields:
        if name in asked.fields:
            raise _invalid(f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
    if script.needs_stream and not asked.stream:
        raise _invalid("This model only supports stream mode.", "stream", "invalid_parameter_error")


def text_of(content: object) -> str:
    """The text of a message's content: a string, or its text parts, one a line."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _model(chat: dict[str, Any]) -> str:
    model = chat.get("model")
    if model is None or model == "":
        raise Refused(Fault(400, "you must provide a model parameter"))
    if not isinstance(model, str):
        raise _wrong_type("model", "a string", model)
    return model


def _messages(chat: dict[str, Any]) -> list[dict[str, Any]]:
    messages = chat.get("messages")
    if messages is None:
        raise _invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise _invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty "
            "array instead.",
            "messages",
            "empty_array",
        )
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong_type(f"messages[{place}]", "an object", message)
        role, name = message.get("role"), f"messages[{place}].role"
        if role is None:
            raise _invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
        if not isinstance(role, str):
            raise _wrong_type(name, "a string", role)
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise _wrong_type(f"messages[{place}].content", "a string or an array of objects", content)
    return messages


def _typed(chat: dict[str, Any], name: str, types: type | tuple[type, ...], expected: str) -> Any:
    value = chat.get(name)
    wants_bool = types is bool
    if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and not wants_bool)):
        raise _wrong_type(name, expected, value)
    return value


_JSON_NAMES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _wrong_type(param: str, expected: str, value: object) -> Refused:
    got = _JSON_NAMES.get(type(value), "something else")
    message = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    return _invalid(message, param, "invalid_type")


def _invalid(message: str, param: str, code: str | None) -> Refused:
    return Refused(Fault(400, message, param=param, code=code))
