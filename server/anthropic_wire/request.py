"""A chat request → the body of a Messages request, and what had to be adapted.

What changes the meaning and cannot be had is refused; what only steers (seeds, penalties, biases) is left
out and told in ``warnings``.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Raw

from server.anthropic_wire.conversation import Conversation, converse, lacks_thoughts
from server.anthropic_wire.models import AnthropicModel
from server.chat import ChatRequest
from server.errors import InvalidRequest
from server.foreign import (
    FIELDS,
    OWN_EXTRA,
    SERVICE_TIERS,
    NativeRequest,
    decoded,
    is_function,
    left_out,
    plain_key,
    read_tool,
    refuse_audio,
    refuse_logprobs,
    refuse_outdated,
    refuse_two_limits,
    schema_asked,
    shortened,
    tool_choice,
    unsupported,
    wrong,
)
from server.foreign_fields import Carried, lost_fields

# Fields that mean the same there: a client that knows the service may use them.
_NATIVE = ("container", "cache_control")
_EFFORTS = {"minimal": "low"} | {effort: effort for effort in ("low", "medium", "high", "xhigh", "max")}
# Tokens to think with, for models that want a number.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
LEAST_BUDGET = 1024
# What may stand beside a tool of the service's own dialect.
_OF_TOOLS = frozenset(
    ("cache_control", "input_examples", "defer_loading", "eager_input_streaming", "allowed_callers")
)
_CARRIED = Carried(
    turns=frozenset(("thinking_blocks", "is_error", "cache_control", "native_citations")),
    parts=frozenset(("cache_control", "citations", "anthropic_block")),
    files=frozenset(("filename",)),
    calls=frozenset(("cache_control",)),
    tools=_OF_TOOLS,
    functions=frozenset(("strict",)),
    own=OWN_EXTRA,
)
_ONLY_JSON = "Answer with one JSON object and nothing else."
# All that is read here, or that is between the client and us.
_KNOWN = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "user",
        "thinking",
        "metadata",
        "service_tier",
        "container",
        "cache_control",
        "output_config",
        "n",
        "logprobs",
        "top_logprobs",
        "anthropic_beta",
        "antiphon",
        "conversation_id",
        "modalities",
        FIELDS,
    }
)


def messages_request(chat: ChatRequest, model: AnthropicModel, name: str) -> NativeRequest:
    """The request to the model that the service calls ``name``.

    Raises ``InvalidRequest`` with the field that cannot be carried out.
    """
    _refuse(chat)
    fields = chat.fields
    talk = converse(chat)
    warnings = list(talk.warnings)
    body: dict[str, Any] = {"model": name, "max_tokens": model.max_tokens}
    if chat.max_tokens is not None:
        body["max_tokens"] = chat.max_tokens
    if chat.stream:
        body["stream"] = True
    system = [*talk.system, *_format(chat, body, warnings)]
    if system:
        body["system"] = system
    body["messages"] = [{"role": turn.role, "content": turn.content} for turn in talk.turns]
    stop = [fields.stop] if isinstance(fields.stop, str) else fields.stop or []
    if words := [word for word in stop if word.strip()]:
        body["stop_sequences"] = words
    if len(words) < len(stop):
        warnings.append("stop was left out where it is blank: this model takes no such word")
    _tools(chat, body)
    _think(chat, model, talk, body, warnings)
    _sample(chat, model, body, warnings)
    _pass_on(chat, body, warnings)
    if chat.wide:
        body = _object(chat, FIELDS) | body
    warnings += lost_fields(chat, _CARRIED) + left_out(chat, _KNOWN)
    return NativeRequest(msgspec.json.encode(body), shortened(warnings))


def _refuse(chat: ChatRequest) -> None:
    """What cannot be had, and would be missed."""
    refuse_outdated(chat)
    refuse_two_limits(chat)
    if chat.choices > 1:
        raise unsupported("n", "must be 1: this model gives one choice")
    refuse_logprobs(chat)
    refuse_audio(chat)


def _format(chat: ChatRequest, body: dict[str, Any], warnings: list[str]) -> list[dict[str, Any]]:
    """``response_format``: a schema in ``body``, or words for the system prompt."""
    asked = decoded(chat, "response_format")
    if (schema := schema_asked(chat)) is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif asked is None or asked.get("type") == "text":
        pass
    elif asked.get("type") == "json_object":
        warnings.append("response_format was put into words: this model is held to schemas only")
        return [{"type": "text", "text": _ONLY_JSON}]
    else:
        raise wrong("response_format.type", "must be text, json_object or json_schema", "invalid_value")
    return []


def _tools(chat: ChatRequest, body: dict[str, Any]) -> None:
    tools = [
        raw if chat.wide and not is_function(raw) else _tool(raw, at)
        for at, raw in enumerate(chat.fields.tools or ())
    ]
    choice = _choice(chat)
    if not tools:
        if choice is not None and choice["type"] in ("any", "tool"):
            raise InvalidRequest("tool_choice wants tools; send them too.", param="tool_choice")
        return
    body["tools"] = tools
    if chat.fields.parallel_tool_calls is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice is not None:
        body["tool_choice"] = choice


def _tool(raw: Raw, at: int) -> dict[str, Any]:
    tool = read_tool(raw, at)
    made: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        made["description"] = tool.function.description
    given = bytes(tool.function.parameters) not in (b"", b"null")
    made["input_schema"] = tool.function.parameters if given else {"type": "object", "properties": {}}
    if tool.function.strict is not None:
        made["strict"] = tool.function.strict
    fields = msgspec.json.decode(raw, type=dict[str, Raw])
    return made | {key: fields[key] for key in fields if key in _OF_TOOLS and bytes(fields[key]) != b"null"}


def _choice(chat: ChatRequest) -> dict[str, Any] | None:
    asked = tool_choice(chat)
    if asked is None:
        return None
    kind, name = asked
    if name is not None:
        return {"type": "tool", "name": name}
    return {"type": "any" if kind == "required" else kind}


def _think(
    chat: ChatRequest, model: AnthropicModel, talk: Conversation, body: dict[str, Any], warnings: list[str]
) -> None:
    """``thinking`` and the effort: the client's own, or by ``reasoning_effort``."""
    own = _object(chat, "output_config")
    if own:
        body["output_config"] = body.get("output_config", {}) | own
    if (thinking := chat.json.raw("thinking")) is not None and thinking != b"null":
        body["thinking"] = Raw(thinking)
        if chat.has("reasoning_effort"):
            warnings.append("reasoning_effort was left out: thinking says how to think")
        return
    effort = decoded(chat, "reasoning_effort")
    if effort is None:
        return
    if effort == "none":
        if model.thinking == "adaptive":
            body["thinking"] = {"type": "disabled"}
        return
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise InvalidRequest(
            "reasoning_effort must be none, minimal, low, medium, high, xhigh or max.",
            param="reasoning_effort",
        )
    why = _cannot_think(model, talk, body)
    if why:
        warnings.append(f"reasoning_effort was left out: {why}")
    elif model.thinking == "adaptive":
        body["thinking"] = {"type": "adaptive"}
        body["output_config"] = {"effort": _EFFORTS[effort]} | body.get("output_config", {})
        if _EFFORTS[effort] != effort:
            warnings.append("reasoning_effort was raised to low, the least of this model")
    else:
        # Thoughts count into max_tokens, and some of it must be left for the answer.
        budget = max(LEAST_BUDGET, min(_BUDGETS[effort], body["max_tokens"] * 3 // 4))
        if budget < _BUDGETS[effort]:
            warnings.append("reasoning_effort was lowered to fit into max_tokens")
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _cannot_think(model: AnthropicModel, talk: Conversation, body: dict[str, Any]) -> str:
    if model.thinking == "no":
        return "the model is not known to think"
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        return "no thinking where a tool must be called"
    if model.thinking == "budget" and body["max_tokens"] <= LEAST_BUDGET:
        return f"max_tokens must be above {LEAST_BUDGET} for it"
    if model.thinking == "budget" and lacks_thoughts(talk.turns):
        return "the thinking_blocks of the turn that called the tools did not come back"
    return ""


def _sample(chat: ChatRequest, model: AnthropicModel, body: dict[str, Any], warnings: list[str]) -> None:
    given = {key: decoded(chat, key) for key in ("temperature", "top_p", "top_k")}
    given = {key: value for key, value in given.items() if value is not None}
    thinks = isinstance(made := body.get("thinking"), dict) and made["type"] != "disabled"
    if not model.sampling or thinks:
        why = "while it thinks" if model.sampling else "by this model"
        warnings += [f"{key} was left out: it is not taken {why}" for key in given]
        return
    if "temperature" in given and "top_p" in given:
        del given["top_p"]
        warnings.append("top_p was left out: it is not taken beside temperature")
    if given.get("temperature", 0) > 1:
        given["temperature"] = 1
        warnings.append("temperature was lowered to 1")
    body |= given


def _pass_on(chat: ChatRequest, body: dict[str, Any], warnings: list[str]) -> None:
    """Fields that a client uses who knows the service, and who the end user is."""
    for key in _NATIVE:
        if chat.has(key):
            body[key] = Raw(chat.json.raw(key) or b"")
    tier = chat.json.raw("service_tier")
    if tier in SERVICE_TIERS:
        body["service_tier"] = Raw(tier)
    elif chat.has("service_tier"):
        warnings.append("service_tier was left out: it is auto or standard_only there")
    metadata = chat.fields.metadata or {}
    if "user_id" in metadata:
        body["metadata"] = {"user_id": metadata["user_id"]}
        if chat.fields.user:
            warnings.append("user was left out: metadata.user_id says who it is")
    elif chat.fields.user:
        digest = hashlib.blake2s(chat.fields.user.encode(), digest_size=16).hexdigest()
        body["metadata"] = {"user_id": digest}
    warnings += [f"metadata.{plain_key(key)} was left out" for key in metadata if key != "user_id"]


def _object(chat: ChatRequest, key: str) -> dict[str, Any]:
    value = decoded(chat, key)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{key} must be an object.", param=key, code="invalid_type")
    return value or {}
