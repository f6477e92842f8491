"""What a request to ``/api/chat`` asks for, refused in the words of Ollama where it refuses.

Fields that it does not know it passes over, as Go's decoder does; those that it knows must be of their type.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from server.simulators.asked import Asked
from server.simulators.errors import Fault, Refused

_ROLES = ("system", "user", "assistant", "tool")
_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty")
_INTEGERS = ("num_ctx", "num_predict", "top_k", "seed")
_GO = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


def read_request(body: bytes) -> tuple[Asked, dict[str, Any]]:
    """What a chat asks for, and its fields. Raises Refused for its first fault."""
    asked = _object(body, "api.ChatRequest")
    model = _typed(asked, "model", str, "string")
    if not model:
        raise bad("model is required")
    messages = _messages(asked)
    _check_tools(asked)
    _check_options(asked)
    if (format := asked.get("format")) is not None and format != "json" and not isinstance(format, dict):
        raise bad(
            f'invalid format: {orjson.dumps(format).decode()}; expected "json" or a valid JSON Schema object'
        )
    stream = _typed(asked, "stream", bool, "bool")
    users = [str(one.get("content") or "") for one in messages if one["role"] == "user"]
    texts = [str(one.get("content") or "") for one in messages]
    return Asked(
        model=model,
        stream=stream is not False,  # it streams unless told not to
        include_usage=True,
        n=1,
        logprobs=False,
        prompt_tokens=sum(len(text.split()) for text in texts),
        last_user=users[-1] if users else "",
        fields=frozenset(asked),
    ), asked


def read_embed(body: bytes) -> tuple[str, list[str], dict[str, Any]]:
    """What a request to ``/api/embed`` asks for: the model, the texts, all its fields. Raises Refused."""
    asked = _object(body, "api.EmbedRequest")
    model = _typed(asked, "model", str, "string")
    if not model:
        raise bad("model is required")
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else given
    if texts is None:
        texts = []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise bad("invalid input type")
    _typed(asked, "truncate", bool, "bool")
    _typed(asked, "dimensions", int, "int")
    _check_options(asked)
    return model, [text for text in texts if text or not isinstance(given, str)], asked


def read_pull(body: bytes) -> tuple[str, bool]:
    """What a request to ``/api/pull`` asks for: the model, and is it told as it goes? Raises Refused."""
    asked = _object(body, "api.PullRequest")
    model = _typed(asked, "model", str, "string")
    if not model:
        raise bad("model is required")
    return model, _typed(asked, "stream", bool, "bool") is not False


def _object(body: bytes, of: str) -> dict[str, Any]:
    if not body.strip():
        raise bad("missing request body")
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(f"invalid character in request body: {error}") from error
    if not isinstance(asked, dict):
        raise _wrong_type("", asked, of)
    return asked


def bad(message: str) -> Refused:
    """A request that is at fault."""
    return Refused(Fault(400, message))


def _messages(asked: dict[str, Any]) -> list[dict[str, Any]]:
    messages = _typed(asked, "messages", list, "[]api.Message") or []
    for message in messages:
        if not isinstance(message, dict):
            raise _wrong_type("messages", message, "api.Message")
        role = message.get("role")
        if role not in _ROLES:
            raise bad(f'invalid role: "{role}", must be one of [system user assistant tool]')
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise _wrong_type("messages.content", content, "string")
        for image in message.get("images") or ():
            _check_image(image)
        for call in message.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
                given = function.get("arguments") if isinstance(function, dict) else call
                raise _wrong_type(
                    "messages.tool_calls.function.arguments", given, "api.ToolCallFunctionArguments"
                )
    return messages


def _check_image(image: object) -> None:
    if not isinstance(image, str):
        raise _wrong_type("messages.images", image, "api.ImageData")
    try:
        data = base64.b64decode(image, validate=True)
    except binascii.Error as error:
        raise bad("illegal base64 data at input byte 0") from error
    if not data.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        raise Refused(
            Fault(500, "Failed to create new sequence: failed to process inputs: image: unknown format")
        )


def _check_tools(asked: dict[str, Any]) -> None:
    for tool in _typed(asked, "tools", list, "api.Tools") or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong_type("tools", tool, "api.Tool")
        if not isinstance(function.get("parameters", {}), dict):
            raise _wrong_type(
                "tools.function.parameters", function["parameters"], "api.ToolFunctionParameters"
            )


def _check_options(asked: dict[str, Any]) -> None:
    options = _typed(asked, "options", dict, "map[string]interface {}") or {}
    for name, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _NUMBERS and not number:
            raise bad(f'option "{name}" must be of type float32')
        if name in _INTEGERS and (not number or value != int(value)):
            raise bad(f'option "{name}" must be of type integer')
        if name == "stop" and not isinstance(value, list):
            raise bad('option "stop" must be of type array')


def _typed(asked: dict[str, Any], name: str, kind: type, word: str) -> Any:
    value = asked.get(name)
    if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
        raise _wrong_type(name, value, word)
    return value


def _wrong_type(field: str, value: object, wanted: str) -> Refused:
    got = _GO.get(type(value), "null")
    return bad(f"json: cannot unmarshal {got} into Go struct field ChatRequest.{field} of type {wanted}")
