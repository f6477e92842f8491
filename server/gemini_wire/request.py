"""A chat request → the body of generateContent, and what had to be adapted.

What changes the meaning and cannot be had is refused; what only steers (biases, end users' names) is left
out and told in ``warnings``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.foreign import (
    SCHEMA,
    Function,
    NativeRequest,
    decoded,
    left_out,
    plain_key,
    read_tool,
    refuse_outdated,
    refuse_two_limits,
    schema_asked,
    shortened,
    tool_choice,
    unsupported,
    wrong,
)
from server.foreign_fields import Carried, lost_fields
from server.gemini_settings import Category, Threshold
from server.gemini_wire.conversation import converse
from server.gemini_wire.models import GeminiModel
from server.gemini_wire.schema import OpenApiSchemas
from server.gemini_wire.thinking import FIELDS, thinking_config

# Fields whose values mean the same there, under another name.
_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_CARRIED = Carried(
    turns=frozenset(("extra_content", "images", "native_parts")), calls=frozenset(("extra_content",))
)
MOST_STOPS = 5
_MODALITIES = {"text": "TEXT", "image": "IMAGE"}
# All that is read here, or that is between the client and us.
_KNOWN = frozenset(
    {
        *_SAME,
        *FIELDS,
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "modalities",
        "logprobs",
        "top_logprobs",
        "extra_body",
        "antiphon",
        "conversation_id",
    }
)


def generate_request(
    chat: ChatRequest, model: GeminiModel, safety: Mapping[Category, Threshold] | None = None
) -> NativeRequest:
    """The request to a model that takes what ``model`` says; its name goes into the URL.

    ``safety`` is sent along if there is any. Raises ``InvalidRequest`` with the field that cannot be carried
    out.
    """
    refuse_outdated(chat)
    refuse_two_limits(chat)
    talk = converse(chat, signed=model.signed, instructed=model.instructed)
    warnings = list(talk.warnings)
    schemas = OpenApiSchemas() if model.schema == "openapi" else None
    body: dict[str, Any] = {}
    if talk.system:
        body["systemInstruction"] = {"parts": talk.system}
    body["contents"] = [{"role": content.role, "parts": content.parts} for content in talk.contents]
    _put_tools(chat, schemas, body, warnings)
    if safety:
        body["safetySettings"] = [
            {"category": f"HARM_CATEGORY_{category}", "threshold": threshold}
            for category, threshold in safety.items()
        ]
    generation = _generation(chat)
    _put_format(chat, schemas, generation)
    if (thinking := thinking_config(chat, model, warnings)) is not None:
        generation["thinkingConfig"] = thinking
    _put_own(chat, body, generation, warnings)
    if generation:
        body["generationConfig"] = generation
    if schemas is not None:
        lost = (plain_key(keyword) for keyword in sorted(schemas.left_out))
        warnings += [f"{keyword} was left out of a schema" for keyword in lost]
    warnings += lost_fields(chat, _CARRIED) + left_out(chat, _KNOWN)
    return NativeRequest(msgspec.json.encode(body), shortened(warnings))


def _put_tools(
    chat: ChatRequest, schemas: OpenApiSchemas | None, body: dict[str, Any], warnings: list[str]
) -> None:
    functions = [read_tool(raw, at).function for at, raw in enumerate(chat.fields.tools or ())]
    tools = [_declared(function, at, schemas) for at, function in enumerate(functions)]
    choice = tool_choice(chat)
    if not tools:
        if choice is not None and choice[0] in ("required", "function"):
            raise wrong("tool_choice", "wants tools; send them too", "invalid_value")
        return
    body["tools"] = [{"functionDeclarations": tools}]
    if chat.fields.parallel_tool_calls is False:
        warnings.append("parallel_tool_calls was left out: this model may call several tools at once")
    if choice is None:
        return
    kind, name = choice
    config: dict[str, Any] = {"mode": {"auto": "AUTO", "none": "NONE"}.get(kind, "ANY")}
    if name is not None:
        config["allowedFunctionNames"] = [name]
    body["toolConfig"] = {"functionCallingConfig": config}


def _declared(function: Function, at: int, schemas: OpenApiSchemas | None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": function.name}
    if function.description:
        made["description"] = function.description
    if bytes(function.parameters) not in (b"", b"null"):
        if schemas is None:
            made["parametersJsonSchema"] = function.parameters
        else:
            own = OpenApiSchemas()
            found = own.convert(msgspec.json.decode(function.parameters), f"tools[{at}].function.parameters")
            # A function without parameters has no schema there; one of no properties is refused.
            if found.get("properties"):
                made["parameters"] = found
                schemas.left_out |= own.left_out
    return made


def _generation(chat: ChatRequest) -> dict[str, Any]:
    fields = chat.fields
    made: dict[str, Any] = {
        theirs: Raw(chat.json.raw(ours) or b"") for ours, theirs in _SAME.items() if chat.has(ours)
    }
    if chat.max_tokens is not None:
        made["maxOutputTokens"] = chat.max_tokens
    if fields.stop:
        made["stopSequences"] = stops = [fields.stop] if isinstance(fields.stop, str) else fields.stop
        if len(stops) > MOST_STOPS:
            raise unsupported("stop", f"may hold {MOST_STOPS} words at most for this model")
    if chat.choices > 1:
        made["candidateCount"] = chat.choices
    if fields.logprobs:
        made["responseLogprobs"] = True
        if fields.top_logprobs:
            made["logprobs"] = fields.top_logprobs
    elif fields.top_logprobs:
        raise wrong("top_logprobs", "wants logprobs: true beside it", "invalid_value")
    asked = decoded(chat, "modalities")
    if asked is not None and asked != ["text"]:
        if not isinstance(asked, list) or not asked or any(one not in _MODALITIES for one in asked):
            raise unsupported("modalities", "may name text and image only for this model")
        made["responseModalities"] = [_MODALITIES[one] for one in asked]
    return made


def _put_format(chat: ChatRequest, schemas: OpenApiSchemas | None, generation: dict[str, Any]) -> None:
    asked = decoded(chat, "response_format")
    if asked is None:
        return
    kind = asked.get("type")
    if (schema := schema_asked(chat)) is not None:
        if schemas is None:
            generation["responseJsonSchema"] = schema
        else:
            generation["responseSchema"] = schemas.convert(schema, SCHEMA)
    elif kind == "text":
        return
    elif kind != "json_object":
        raise wrong("response_format.type", "must be text, json_object or json_schema", "invalid_value")
    generation["responseMimeType"] = "application/json"


def _put_own(
    chat: ChatRequest, body: dict[str, Any], generation: dict[str, Any], warnings: list[str]
) -> None:
    """What a client of the vendor's own OpenAI mode sends beside OpenAI's fields: ``extra_body.google``."""
    extra = decoded(chat, "extra_body")
    if extra is None:
        return
    own = extra.get("google", {}) if isinstance(extra, dict) else None
    if not isinstance(own, dict):
        raise wrong("extra_body", "must be an object, in it google as another", "invalid_type")
    for key, value in own.items():
        if key in ("cached_content", "cachedContent"):
            body["cachedContent"] = value
        elif key in ("thinking_config", "thinkingConfig") and isinstance(value, dict):
            generation["thinkingConfig"] = {_camel(name): one for name, one in value.items()}
        else:
            warnings.append(f"extra_body.google.{plain_key(key)} was left out")
    warnings += [f"extra_body.{plain_key(key)} was left out" for key in extra if key != "google"]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
