"""A chat's parameters → ``parameter.chat`` and ``payload.functions``, within each model's ranges.

Numbers are clamped, for a value beyond the range fails the whole request. What changes the meaning and
cannot be had (several choices, tools on a model without) is refused; seeds, biases, log probabilities and
fields that Spark does not know are left out. What was changed or left out is told (``adapted``).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.errors import InvalidRequest
from server.foreign import (
    decoded,
    left_out,
    plain_key,
    refuse_audio,
    refuse_two_limits,
    schema_asked,
    shortened,
)
from server.foreign_fields import Carried, lost_fields
from server.spark.models import SparkModel

# The range of a temperature is open at 0.
LEAST_TEMPERATURE = 0.01
_FUNCTION = frozenset({"name", "description", "parameters"})
_THINKING = frozenset({"enabled", "disabled", "auto"})
# Tools of its own.
_CARRIED = Carried(turns=frozenset(("name",)), tools=frozenset(("web_search",)))
# Fields that are carried out, refused where they cannot be, or about nothing that Spark would have to know.
_KNOWN = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "user", "n", "stop", "response_format"),
        *("max_tokens", "max_completion_tokens", "temperature", "top_k", "modalities", "audio"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "web_search_options"),
        *("antiphon", "conversation_id"),
    }
)


class SparkOptions(msgspec.Struct, frozen=True):
    """Choices that the vendor leaves open.

    ``web_search``: what a request gets that does not ask (on by the vendor's default: slower and dearer).
    ``warned``: how an answer ends that came with a warning of moderation (10019). ``legacy_fields`` keeps
    ``question_tokens`` in the usage, and adds ``version`` and ``domain`` to the answer.
    """

    web_search: bool = False
    warned: str = "content_filter"
    legacy_fields: bool = False


class _Tool(msgspec.Struct):
    type: str = "function"
    function: dict[str, Raw] | None = None
    web_search: dict[str, Any] | None = None


def parameters(
    chat: ChatRequest, model: SparkModel, options: SparkOptions, functions: bool
) -> dict[str, Any]:
    """``parameter.chat``. Raises ``InvalidRequest`` with the field that cannot be carried out."""
    fields = chat.fields
    if chat.choices > 1:
        raise InvalidRequest("Spark gives one choice; leave n out or send 1.", param="n")
    refuse_audio(chat)
    refuse_two_limits(chat)
    made: dict[str, Any] = {} if model.domain is None else {"domain": model.domain}
    if fields.temperature is not None:
        made["temperature"] = _clamp(fields.temperature, LEAST_TEMPERATURE, model.max_temperature)
    if (top_k := _integer(chat, "top_k")) is not None:
        made["top_k"] = _clamp(top_k, 1, model.max_top_k)
    if (limit := max_tokens(chat, model)) is not None:
        made["max_tokens"] = limit
    if model.top_p and fields.top_p is not None:
        made["top_p"] = _clamp(fields.top_p, LEAST_TEMPERATURE, 1.0)
    if model.presence_penalty and fields.presence_penalty is not None:
        made["presence_penalty"] = _clamp(fields.presence_penalty, *model.presence_penalty)
    if model.frequency_penalty and fields.frequency_penalty is not None:
        made["frequency_penalty"] = _clamp(fields.frequency_penalty, *model.frequency_penalty)
    if model.reasoning and (thinking := _thinking(chat)):
        made["thinking"] = {"type": thinking}
    if search := _web_search(chat, model, options, functions):
        made["tools"] = [search]
    if functions and (name := _chosen(chat)):
        made["function_choice"] = name
    return made


def adapted(chat: ChatRequest, model: SparkModel) -> tuple[str, ...]:
    """In short ASCII words what was left out or brought into the model's range."""
    fields = chat.fields
    known = {*_KNOWN, "version"} if chat.model == "spark-api" else set(_KNOWN)
    ranges: list[tuple[str, float | None, float, float | None]] = [
        ("temperature", fields.temperature, 0, model.max_temperature),
        ("top_k", _integer(chat, "top_k"), 1, model.max_top_k),
        ("max_tokens", chat.max_tokens, 1, model.max_tokens),
    ]
    if model.top_p:
        known.add("top_p")
        ranges.append(("top_p", fields.top_p, 0, 1))
    if model.presence_penalty:
        known.add("presence_penalty")
        ranges.append(("presence_penalty", fields.presence_penalty, *model.presence_penalty))
    if model.frequency_penalty:
        known.add("frequency_penalty")
        ranges.append(("frequency_penalty", fields.frequency_penalty, *model.frequency_penalty))
    if model.reasoning:
        known.add("thinking")
    if not fields.logprobs:
        known.add("logprobs")
    warnings = [
        f"{name} was brought into the range of the model"
        for name, value, least, most in ranges
        if value is not None and (value < least or (most is not None and value > most))
    ]
    return shortened(
        [*warnings, *_in_words(chat, model), *lost_fields(chat, _CARRIED), *left_out(chat, known)]
    )


def _in_words(chat: ChatRequest, model: SparkModel) -> list[str]:
    """What is asked for otherwise than the client did, and parts of fields that have no place."""
    told: list[str] = []
    if instruction(chat):
        told.append("response_format was put into words: Spark is held to no format")
    if chat.fields.parallel_tool_calls is not None and chat.fields.tools:
        told.append("parallel_tool_calls was left out: Spark calls one function at a time")
    if any(turn.name and turn.role not in ("tool", "function") for turn in chat.messages):
        told.append("name of messages was left out")
    fields = {"thinking": ("type",)} if model.reasoning else {}
    for key, known in ({"web_search_options": ()} | fields).items():
        given = decoded(chat, key)
        names = given if isinstance(given, dict) else ()
        told += [f"{key}.{plain_key(name)} was left out" for name in names if name not in known]
    return told


def max_tokens(chat: ChatRequest, model: SparkModel) -> int | None:
    """The client's limit within the model's range; None if it set none."""
    if chat.max_tokens is None:
        return None
    return max(1, chat.max_tokens if model.max_tokens is None else min(chat.max_tokens, model.max_tokens))


def functions_of(chat: ChatRequest, model: SparkModel) -> list[dict[str, Raw]]:
    """The bare functions that the model may call. Raises ``InvalidRequest`` if it cannot call any."""
    if chat.has("functions"):
        raise InvalidRequest("functions is out of date; send them as tools.", param="functions")
    choice = chat.fields.tool_choice
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise InvalidRequest(
            "tool_choice must be auto, none, required or name a function.", param="tool_choice"
        )
    if choice == "none":
        return []
    found = []
    for place, tool in enumerate(_tools(chat)):
        if tool.type == "web_search":
            continue
        if tool.type != "function" or not tool.function or "name" not in tool.function:
            raise InvalidRequest(
                f"tools[{place}] must be a function with a name, or web_search.", param=f"tools[{place}]"
            )
        # Spark checks a schema: what it has no word for (strict) stays out.
        found.append({key: value for key, value in tool.function.items() if key in _FUNCTION})
    if found and not model.functions:
        raise InvalidRequest(
            f"{model.name} calls no functions; use a Spark model that does (spark-max, spark-ultra).",
            param="tools",
            code="unsupported_parameter",
        )
    if choice == "required" and len(found) != 1:
        raise InvalidRequest(
            "Spark can be held to one function only; name it, or send one tool.", param="tool_choice"
        )
    if name := _chosen(chat):
        found = [one for one in found if msgspec.json.decode(one["name"]) == name]
        if not found:
            raise InvalidRequest("tool_choice names a function that is not in tools.", param="tool_choice")
    return found


def instruction(chat: ChatRequest) -> str:
    """What ``response_format`` asks for, in words: Spark's websocket knows no such field."""
    format_ = chat.fields.response_format or {}
    kind = msgspec.json.decode(format_["type"]) if "type" in format_ else "text"
    if kind == "json_object":
        return "Answer with one JSON object and nothing else."
    if (schema := schema_asked(chat)) is not None:
        text = msgspec.json.encode(schema).decode()
        return f"Answer with one JSON value and nothing else. It must fit this JSON schema: {text}"
    if kind != "text":
        raise InvalidRequest(
            "response_format.type must be text, json_object or json_schema.", param="response_format.type"
        )
    return ""


def stops(chat: ChatRequest) -> tuple[str, ...]:
    """The stop words; Spark does not know them, so the answer is cut here."""
    stop = chat.fields.stop
    return tuple(filter(None, [stop] if isinstance(stop, str) else stop or ()))


def _tools(chat: ChatRequest) -> list[_Tool]:
    try:
        return [msgspec.json.decode(raw, type=_Tool) for raw in chat.fields.tools or ()]
    except msgspec.DecodeError:
        raise InvalidRequest("tools must hold objects with type and function.", param="tools") from None


def _chosen(chat: ChatRequest) -> str:
    """The function that must be called, by its name or as the only one; "" if none must."""
    choice = chat.fields.tool_choice
    if choice == "required":  # ``functions_of`` has seen that there is one only
        only = next(tool.function for tool in _tools(chat) if tool.type == "function" and tool.function)
        return msgspec.json.decode(only["name"], type=str)
    if not isinstance(choice, dict):
        return ""
    try:
        if "function" in choice:
            choice = msgspec.json.decode(choice["function"], type=dict[str, Raw])
        return msgspec.json.decode(choice["name"], type=str)
    except (KeyError, msgspec.DecodeError):
        raise InvalidRequest("tool_choice must name a function.", param="tool_choice") from None


def _web_search(
    chat: ChatRequest, model: SparkModel, options: SparkOptions, functions: bool
) -> dict[str, Any] | None:
    asked = next((tool.web_search or {} for tool in _tools(chat) if tool.type == "web_search"), None)
    if asked is None and chat.has("web_search_options"):
        asked = {}
    if asked is not None and asked.get("enable") is False:
        asked, wanted = None, False
    else:
        wanted = options.web_search or asked is not None
    blocked = functions and not model.search_with_functions
    if not model.web_search or blocked:
        if asked is not None:
            why = "together with functions" if blocked else f"with {model.name}"
            raise InvalidRequest(
                f"Spark cannot search the web {why}.", param="tools", code="unsupported_parameter"
            )
        return None
    if not wanted:
        return {"type": "web_search", "web_search": {"enable": False}}
    fields = {"enable": True, "show_ref_label": model.sources, "search_mode": "normal"} | (asked or {})
    return {"type": "web_search", "web_search": fields}


def _thinking(chat: ChatRequest) -> str:
    raw = chat.json.raw("thinking")
    if raw is None or raw == b"null":
        return ""
    try:
        kind = msgspec.json.decode(raw, type=dict[str, Raw])["type"]
        found = msgspec.json.decode(kind, type=str)
    except (KeyError, msgspec.DecodeError):
        found = ""
    if found == "adaptive":  # Anthropic's word for it
        return "auto"
    if found not in _THINKING:
        raise InvalidRequest("thinking.type must be enabled, disabled or auto.", param="thinking.type")
    return found


def _integer(chat: ChatRequest, key: str) -> int | None:
    raw = chat.json.raw(key)
    try:
        return None if raw is None else msgspec.json.decode(raw, type=int | None)
    except msgspec.DecodeError:
        raise InvalidRequest(f"{key} must be an integer.", param=key) from None


def _clamp(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
