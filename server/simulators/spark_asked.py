"""What a request frame asks of a simulated Spark, refused with Spark's codes where Spark refuses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from server.simulators.spark_errors import SparkFault
from server.simulators.spark_images import IMAGE_TOKENS, check_image
from server.simulators.spark_models import ASSISTANT, FINE_TUNED, Model

_CHINESE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uff00-\uffef]")
_ROLES = ("user", "assistant", "system")


class SparkRules(msgspec.Struct, frozen=True):
    """Where the facts leave a choice."""

    strict: bool = True  # roles alternate, the last is the user's, contents are not empty, one picture
    domain_code: int = 10003  # of a domain that does not fit the path: 10003, 10004 or 11200
    range_code: int = 10163  # of a parameter out of its range


class SparkAsked(msgspec.Struct, frozen=True):
    """A request, as far as an answer depends on it."""

    model: Model
    name: str  # the domain, or over HTTP the model
    app_id: str
    uid: str
    last_user: str
    prompt_tokens: int
    question_tokens: int
    thinks: bool
    shows_sources: bool
    stream: bool = True
    calls_as_list: bool = True
    keep_alive: bool = False


def count_tokens(text: str) -> int:
    """By the vendor's rule of thumb: 1.5 Chinese characters, or 0.8 of a word."""
    chinese = len(_CHINESE.findall(text))
    words = len(_CHINESE.sub(" ", text).split())
    return math.ceil(chinese / 1.5 + max(words / 0.8, (len(text) - chinese) / 8))


def read_frame(data: bytes, model: Model, app_id: str, rules: SparkRules) -> SparkAsked:
    """What a websocket message asks for. Raises SparkFault for its first fault."""
    frame = read_json(data)
    header = _object(frame, "$.header")
    _text(header, "$.header.app_id", 8, required=True)
    uid = _text(header, "$.header.uid", 32)
    if "patch_id" in header:
        patches = header["patch_id"]
        if not isinstance(patches, list) or not patches or not all(isinstance(one, str) for one in patches):
            raise _schema("$.header.patch_id", "must be an array of strings")
        model = FINE_TUNED
    chat = _parameters(frame, model)
    domain = _domain(chat, model, rules)
    if header["app_id"] != app_id:
        raise SparkFault(11200, f"domain.{domain}")
    check_ranges(chat, model, rules, "$.parameter.cbm")
    payload = _object(frame, "$.payload")
    texts = _object(payload, "$.payload.message").get("text")
    messages = read_messages(texts, "$.payload.message.text", _roles(model), rules, image=model.image)
    if "functions" in payload:
        _functions(payload, model)
    tokens = [IMAGE_TOKENS if one.get("content_type") == "image" else count_tokens(one["content"])
              for one in messages]  # fmt: skip
    if sum(tokens) > model.input_tokens:
        raise SparkFault(10907)
    search = web_search(chat.get("tools"))
    if search is not None and model.reasons and "functions" in payload:
        raise SparkFault(10163, "'$.parameter.chat.tools' web_search cannot be used together with functions")
    return SparkAsked(
        model=model,
        name=domain,
        app_id=header["app_id"],
        uid=uid or "",
        last_user=last_user(messages),
        prompt_tokens=sum(tokens),
        question_tokens=tokens[-1],
        thinks=thinks(chat, model),
        shows_sources=model.shows_sources and search is not None and search.get("show_ref_label") is True,
    )


def read_json(data: bytes) -> dict[str, Any]:
    """The JSON object that a message is. Raises SparkFault."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise SparkFault(10003, "message is not json") from error
    if not isinstance(frame, dict):
        raise SparkFault(10003, "message is not a json object")
    return frame


def check_ranges(chat: Mapping[str, Any], model: Model, rules: SparkRules, where: str) -> None:
    """Raise SparkFault for a parameter of the wrong type or out of its range."""
    _within(chat, "temperature", 0, model.max_temperature, rules, where, above=True)
    _within(chat, "top_k", 1, 6, rules, where, whole=True)
    _within(chat, "max_tokens", 1, model.max_tokens, rules, where, whole=True)
    _within(chat, "top_p", 0, 1, rules, where, above=True)
    if model.reasons:
        _within(chat, "presence_penalty", -2, 10, rules, where)
        _within(chat, "frequency_penalty", -2, 10, rules, where)
        thinking = chat.get("thinking")
        if thinking is not None and (
            not isinstance(thinking, dict) or thinking.get("type") not in ("enabled", "disabled", "auto")
        ):
            raise SparkFault(
                rules.range_code, f"'{where}.thinking.type' must be one of enabled, disabled, auto"
            )
    for name in ("function_choice", "tool_choice", "chat_id", "auditing", "question_type"):
        if where == "$.parameter.cbm" and not isinstance(chat.get(name, ""), str):
            shown = "tool_choice" if name == "function_choice" else name
            raise SparkFault(10163, f"'{where}.{shown}' must be a string")


def read_messages(
    texts: object, where: str, roles: tuple[str, ...], rules: SparkRules, *, image: bool = False
) -> list[dict[str, Any]]:
    """The messages, each checked. Raises SparkFault."""
    if not isinstance(texts, list) or not texts:
        raise _schema(where, "must be an array of at least 1 item")
    for place, message in enumerate(texts):
        at = f"{where}[{place}]"
        if not isinstance(message, dict):
            raise _schema(at, "must be an object")
        role = message.get("role")
        if role not in roles:
            raise _schema(f"{at}.role", f"must be one of {', '.join(roles)}")
        if not isinstance(message.get("content"), str):
            raise _schema(f"{at}.content", "must be a string")
        if role == "system" and place:
            raise _schema(f"{at}.role", "system must come first")
        if message.get("content_type", "text") not in (("text", "image") if image else ("text",)):
            raise _schema(f"{at}.content_type", "is invalid")
    if image:
        _check_images(texts, where, rules)
    if rules.strict:
        _check_order(texts, where, image=image)
    return texts


def last_user(messages: list[dict[str, Any]]) -> str:
    """The text of the last message that is the user's."""
    asked = (
        one for one in reversed(messages) if one["role"] == "user" and one.get("content_type") != "image"
    )
    return next((str(one["content"]) for one in asked), "")


def web_search(tools: object) -> dict[str, Any] | None:
    """The web search that a request asks for; None when it is off. Raises SparkFault."""
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise _schema("$.parameter.chat.tools", "must be an array")
    for place, tool in enumerate(tools):
        at = f"$.parameter.chat.tools[{place}]"
        if not isinstance(tool, dict) or tool.get("type") not in ("web_search", "function"):
            raise _schema(f"{at}.type", "is invalid")
        if tool["type"] == "web_search":
            search = tool.get("web_search", {})
            if not isinstance(search, dict):
                raise _schema(f"{at}.web_search", "must be an object")
            if search.get("search_mode", "normal") not in ("normal", "deep"):
                raise _schema(f"{at}.web_search.search_mode", "must be one of normal, deep")
            return search if search.get("enable", True) is True else None
    return None


def thinks(chat: Mapping[str, Any], model: Model) -> bool:
    """Whether the model reasons in this answer."""
    thinking = chat.get("thinking")
    off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return model.reasons and not off and chat.get("enable_thinking") is not False


def _parameters(frame: dict[str, Any], model: Model) -> dict[str, Any]:
    if model is ASSISTANT and "parameter" not in frame:
        return {}
    return _object(_object(frame, "$.parameter"), "$.parameter.chat")


def _domain(chat: dict[str, Any], model: Model, rules: SparkRules) -> str:
    domain = chat.get("domain")
    if domain is None and (model.image or model is ASSISTANT):
        return "general"
    if not isinstance(domain, str) or not domain:
        raise _schema("$.parameter.chat.domain", "is required")
    if model.domains and domain not in model.domains:
        details = {10003: "invalid model domain", 11200: f"domain.{domain}"}
        raise SparkFault(
            rules.domain_code, details.get(rules.domain_code, "'$.parameter.chat.domain' invalid; ")
        )
    return domain


def _roles(model: Model) -> tuple[str, ...]:
    return _ROLES if model.system else _ROLES[:2]


def _functions(payload: dict[str, Any], model: Model) -> None:
    at = "$.payload.functions"
    if not model.functions:
        raise SparkFault(10003, "functions are not supported")
    listed = _object(payload, at).get("text")
    if not isinstance(listed, list) or not listed:
        raise _schema(f"{at}.text", "must be an array of at least 1 item")
    for place, function in enumerate(listed):
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _schema(f"{at}.text[{place}].name", "is required")


def _check_images(texts: list[dict[str, Any]], where: str, rules: SparkRules) -> None:
    images = [place for place, one in enumerate(texts) if one.get("content_type") == "image"]
    if images[:1] != [0]:
        raise _schema(f"{where}[0].content_type", "must be image")
    if rules.strict and len(images) > 1:
        raise _schema(f"{where}[{images[1]}].content_type", "only one image is allowed")
    for place in images:
        if texts[place]["role"] != "user":
            raise _schema(f"{where}[{place}].role", "must be user")
        check_image(texts[place]["content"])


def _check_order(texts: list[dict[str, Any]], where: str, *, image: bool) -> None:
    spoken = texts[1:] if image or texts[0]["role"] == "system" else texts
    first = len(texts) - len(spoken)
    for place, message in enumerate(spoken):
        at = f"{where}[{first + place}]"
        if not message["content"].strip():
            raise _schema(f"{at}.content", "must not be empty")
        if message["role"] != ("assistant" if place % 2 else "user"):
            raise _schema(f"{at}.role", "user and assistant must alternate")
    if not spoken or spoken[-1]["role"] != "user":
        raise _schema(f"{where}[{len(texts) - 1}].role", "the last must be user")


def _within(
    chat: Mapping[str, Any],
    name: str,
    low: float,
    high: float,
    rules: SparkRules,
    where: str,
    *,
    above: bool = False,
    whole: bool = False,
) -> None:
    value = chat.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise SparkFault(
            rules.range_code, f"'{where}.{name}' must be {'an integer' if whole else 'a number'}"
        )
    if value > high:
        raise SparkFault(rules.range_code, f"'{where}.{name}' value must be less or equal than {high:g}")
    if value < low or (above and value == low):
        than = "greater than" if above else "greater or equal than"
        raise SparkFault(rules.range_code, f"'{where}.{name}' value must be {than} {low:g}")


def _object(parent: dict[str, Any], path: str) -> dict[str, Any]:
    value = parent.get(path.rpartition(".")[2])
    if not isinstance(value, dict):
        raise _schema(path, "is required" if value is None else "must be an object")
    return value


def _text(parent: dict[str, Any], path: str, longest: int, *, required: bool = False) -> str | None:
    value = parent.get(path.rpartition(".")[2])
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        raise _schema(path, "is required" if not value else "must be a string")
    if len(value) > longest:
        raise _schema(path, f"length must be less or equal than {longest}")
    return value


def _schema(path: str, problem: str) -> SparkFault:
    return SparkFault(10004, f"'{path}' {problem}; ")
