"""A chat request → the body of ``/api/chat``. What the server cannot do is refused; what is lost, told."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.errors import InvalidRequest
from server.foreign import (
    Calls,
    NativeRequest,
    Part,
    Turn,
    decoded,
    left_out,
    odd_role,
    read_arguments,
    read_data_uri,
    read_tool,
    read_turn,
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
from server.ollama_settings import Ollama, OllamaModel

# Its names in ``options`` for fields of OpenAI's.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
}
_KNOWN = frozenset(
    {
        *_OPTIONS,
        *(
            "model",
            "messages",
            "stream",
            "stream_options",
            "stop",
            "max_tokens",
            "max_completion_tokens",
            "n",
        ),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"),
        *("logprobs", "top_logprobs", "options", "keep_alive", "think", "format", "modalities"),
        *("antiphon", "conversation_id"),
    }
)
_CARRIED = Carried(turns=frozenset(("reasoning_content",)))
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


class _Thought(msgspec.Struct):
    reasoning_content: str | None = None


def chat_request(chat: ChatRequest, settings: Ollama, name: str) -> NativeRequest:
    """The request to the model ``name``.

    Raises ``InvalidRequest`` with the field that cannot be carried out.
    """
    _refuse(chat)
    warnings: list[str] = []
    body: dict[str, Any] = {"model": name, "messages": _messages(chat), "stream": chat.stream}
    if tools := _tools(chat, warnings):
        body["tools"] = tools
    if (format := _format(chat)) is not None:
        body["format"] = format
    own = settings.models.get(name, OllamaModel())
    if (think := _think(chat, own, name, warnings)) is not None:
        body["think"] = think
    if options := _options(chat, settings, own):
        body["options"] = options
    keep = decoded(chat, "keep_alive")
    if (keep := settings.keep_alive if keep is None else keep) is not None:
        body["keep_alive"] = keep
    warnings += lost_fields(chat, _CARRIED) + left_out(chat, _KNOWN)
    return NativeRequest(msgspec.json.encode(body), shortened(warnings))


def _refuse(chat: ChatRequest) -> None:
    """What cannot be had, and would be missed."""
    refuse_outdated(chat)
    refuse_two_limits(chat)
    if chat.choices != 1:
        raise unsupported("n", "must be 1 for this model")
    refuse_logprobs(chat)
    modalities = decoded(chat, "modalities")
    if isinstance(modalities, list) and set(map(str, modalities)) - {"text"}:
        raise unsupported("modalities", "may only be text for this model")


def _messages(chat: ChatRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    called = Calls()  # whose names their results must say
    for place, raw in enumerate(chat.raw_messages()):
        turn = read_turn(raw, place)
        message: dict[str, Any] = {"role": turn.role, "content": ""}
        if turn.role == "developer":
            message["role"] = "system"
        elif turn.role == "tool":
            message["tool_name"] = called.answered(turn.tool_call_id, place)
        elif turn.role not in ("system", "user", "assistant"):
            raise odd_role(place)
        message["content"], images = _content(turn, place)
        if images:
            message["images"] = images
        if turn.role == "assistant":
            if thought := msgspec.json.decode(raw, type=_Thought).reasoning_content:
                message["thinking"] = thought
            for at, call in enumerate(turn.tool_calls or ()):
                arguments = read_arguments(call, f"messages[{place}].tool_calls[{at}]")
                called.made(call.id, call.function.name)
                function = {"name": call.function.name, "arguments": arguments}
                message.setdefault("tool_calls", []).append({"function": function})
        messages.append(message)
    return messages


def _content(turn: Turn, place: int) -> tuple[str, list[str]]:
    """The text of a turn, and the images in it, in base64."""
    if not isinstance(turn.content, list):
        return turn.content or "", []
    texts: list[str] = []
    images: list[str] = []
    for at, part in enumerate(turn.content):
        param = f"messages[{place}].content[{at}]"
        if part.type == "image_url" and part.image_url is not None:
            images.append(_image(part, param))
        elif part.type in ("text", "refusal"):
            texts.append(part.text or part.refusal or "")
        else:
            raise unsupported(f"{param}.type", "must be text or image_url for this model")
    return "\n".join(filter(None, texts)), images


def _image(part: Part, param: str) -> str:
    assert part.image_url is not None  # the caller has looked
    media, data = read_data_uri(part.image_url.url, f"{param}.image_url.url")
    if not media.startswith("image/"):
        raise InvalidRequest(
            f"{param}.image_url.url must hold an image.", param=f"{param}.image_url.url", code="invalid_image"
        )
    return data


def _tools(chat: ChatRequest, warnings: list[str]) -> list[dict[str, Any]]:
    tools = [read_tool(raw, at).function for at, raw in enumerate(chat.fields.tools or ())]
    choice = tool_choice(chat)
    if choice is not None and choice[0] in ("required", "function"):
        raise unsupported(
            "tool_choice", "may only be auto or none for this model, which cannot be made to call"
        )
    if choice is not None and choice[0] == "none":
        return []  # it knows no such word: without tools it calls none
    if tools and chat.fields.parallel_tool_calls is False:
        warnings.append("parallel_tool_calls was left out: this model may call several tools at once")
    made = []
    for tool in tools:
        function: dict[str, Any] = {"name": tool.name, "description": tool.description or ""}
        parameters = bytes(tool.parameters)
        function["parameters"] = Raw(parameters) if parameters else {"type": "object", "properties": {}}
        made.append({"type": "function", "function": function})
    return made


def _format(chat: ChatRequest) -> Any:
    """``json``, a schema, or None for plain text."""
    if (own := decoded(chat, "format")) is not None:
        return own
    asked = decoded(chat, "response_format")
    if asked is None:
        return None
    kind = asked.get("type")
    if (schema := schema_asked(chat)) is not None:
        return schema
    if kind == "json_object":
        return "json"
    if kind not in (None, "text"):
        raise unsupported("response_format.type", "must be text, json_object or json_schema")
    return None


def _think(chat: ChatRequest, own: OllamaModel, name: str, warnings: list[str]) -> str | bool | None:
    """How it is to think; None: as the model does by itself. Only gpt-oss knows levels, by its name."""
    if (asked := decoded(chat, "think")) is not None:
        if not isinstance(asked, bool | str):
            raise wrong("think", "must be true, false or a level", "invalid_type")
        return asked
    effort = decoded(chat, "reasoning_effort")
    if effort is None:
        return None
    if effort != "none" and (not isinstance(effort, str) or effort not in _LEVELS):
        raise wrong("reasoning_effort", "must be none, minimal, low, medium, high or xhigh", "invalid_value")
    known = own.thinking or ("level" if "gpt-oss" in name else "switch")
    if known == "no" or (known == "level" and effort == "none"):
        warnings.append("reasoning_effort was left out")
        return None
    if known == "level":
        if _LEVELS[effort] != effort:
            warnings.append(f"reasoning_effort was changed to {_LEVELS[effort]}")
        return _LEVELS[effort]
    if effort != "none":
        warnings.append("reasoning_effort was changed to on: this model knows no levels")
    return bool(effort != "none")


def _options(chat: ChatRequest, settings: Ollama, own: OllamaModel) -> dict[str, Any]:
    """What its engine is told: the channel's, over it the request's, over both the client's ``options``."""
    options: dict[str, Any] = dict(settings.options)
    if (context := own.num_ctx or settings.num_ctx) is not None:
        options["num_ctx"] = context
    for name, theirs in _OPTIONS.items():
        if (value := decoded(chat, name)) is not None:
            options[theirs] = value
    if (limit := chat.max_tokens) is not None:
        options["num_predict"] = limit
    if stop := chat.fields.stop:
        options["stop"] = [stop] if isinstance(stop, str) else list(stop)
    given = decoded(chat, "options")
    if given is not None and not isinstance(given, dict):
        raise wrong("options", "must be an object", "invalid_type")
    return options | (given or {})
