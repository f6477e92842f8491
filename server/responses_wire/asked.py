"""A Responses request → a chat, and what the response says again of it."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec import Raw

from server.chat import ChatRequest, JsonObject
from server.errors import InvalidRequest
from server.foreign import plain_key, shortened
from server.openai_wire import parse_chat, read_json
from server.responses_wire.items import all_turns, text_item

# What has a meaning of its own here, or none; all other fields go on as they came.
_READ = frozenset(
    (
        *("model", "input", "instructions", "stream", "stream_options", "tools", "tool_choice", "text"),
        *("reasoning", "max_output_tokens", "store", "previous_response_id", "include", "metadata"),
        *("truncation", "background", "conversation", "prompt", "max_tool_calls", "top_logprobs"),
        *("prompt_cache_options", "moderation", "context_management", "image", "access_programs"),
        "parallel_tool_calls",
    )
)
_REFUSED = ("conversation", "prompt", "moderation")
_LEFT_OUT = ("max_tool_calls", "context_management", "image", "access_programs", "prompt_cache_options")
_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = "reasoning.encrypted_content"
_OF_TOOLS = ("type", "name", "description", "parameters", "strict")
_NOTHING = (None, b"null", b"[]", b"{}", b"0", b"false")


class Recall(Protocol):
    """What is remembered of earlier responses to this client. Raises ``ServerError`` for what is not."""

    def items(self, response_id: str) -> list[bytes]:
        """All that was said up to a response and in it, oldest first."""

    def item(self, item_id: str, param: str) -> bytes:
        """One item that a response said; ``param`` is where it is asked for."""


class Asked(msgspec.Struct, frozen=True):
    """What is asked: ``chat`` in our terms.

    ``history`` and ``items`` are what was said before and what came with the request. ``echo`` are the fields
    of the response that repeat the request. ``summaries``: thoughts are told as their summary. ``warnings``
    tell in ASCII words what was left out.
    """

    chat: ChatRequest
    history: list[bytes]
    items: list[bytes]
    echo: dict[str, Any]
    summaries: bool
    store: bool
    background: bool
    warnings: tuple[str, ...]


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Format(msgspec.Struct):
    type: str
    name: str = "answer"
    description: str | None = None
    schema: Raw = Raw()
    strict: bool | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    input: str | list[Raw] | None = None
    instructions: str | None = None
    stream: bool | None = None
    tools: list[Raw] | None = None
    tool_choice: str | _Choice | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    max_output_tokens: int | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: int | None = None


_BODY = msgspec.json.Decoder(_Body)
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_TOOL = msgspec.json.Decoder(_Tool)


def parse_response(body: bytes, recall: Recall, *, need_model: bool = True) -> Asked:
    """Check and take in a request.

    Raises ``InvalidRequest`` with the field's place in ``param``, and what ``recall`` raises.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    asked, json = read_json(body, lambda data: (_BODY.decode(data), JsonObject(data)))
    if need_model and not asked.model:
        raise _missing("model", "Name a model; GET /v1/models lists them.")
    _refuse(asked, json)
    given = asked.input
    if not given and asked.previous_response_id is None:
        raise _missing("input", "Send a text or a list of items.")
    if isinstance(given, str):
        items: list[tuple[bytes | Raw, str]] = [(text_item(given), "input")]
    else:
        items = [(raw, f"input[{at}]") for at, raw in enumerate(given or ())]
    history = [] if asked.previous_response_id is None else recall.items(asked.previous_response_id)
    turns, kept, wide = all_turns(history, items, recall.item)
    if asked.instructions:
        turns.insert(0, {"role": "system", "content": asked.instructions})
    fields: dict[str, Any] = {"model": asked.model, "messages": turns}
    fields |= {key: Raw(json.raw(key) or b"") for key in json if key not in _READ}
    _put(asked, fields)
    chat = parse_chat(msgspec.json.encode(fields), need_model=need_model)
    reasoning = asked.reasoning or _Reasoning()
    return Asked(
        chat=ChatRequest(chat.json, chat.fields, wide=wide),
        history=history,
        items=kept,
        echo=_echo(asked, json),
        summaries=(reasoning.summary or reasoning.generate_summary) is not None,
        store=asked.store is not False,
        background=bool(asked.background),
        warnings=_warnings(asked, json),
    )


def _warnings(asked: _Body, json: JsonObject) -> tuple[str, ...]:
    """What of the request no upstream is sent, and nobody here carries out."""
    told = [f"{key} was left out" for key in _LEFT_OUT if json.raw(key) not in _NOTHING]
    if json.raw("truncation") not in (*_NOTHING, b'"disabled"'):
        told.append("truncation was left out: nothing is cut from the input")
    if any(wish != _INCLUDED for wish in asked.include or ()):
        told.append(f"include was left out but for {_INCLUDED}")
    fields = {key for raw in asked.tools or () for key in _FIELDS.decode(raw) if key not in _OF_TOOLS}
    told += [f"{plain_key(key)} of tools was left out" for key in sorted(fields)]
    return shortened(told)


def _refuse(asked: _Body, json: JsonObject) -> None:
    for key in _REFUSED:
        if json.raw(key) not in _NOTHING:
            raise _unsupported(key, "cannot be had here; leave it out")
    if json.raw("n") not in (*_NOTHING, b"1"):
        raise _unsupported("n", "cannot be had: a response has one choice; ask by POST /v1/chat/completions")
    if asked.top_logprobs or _LOGPROBS in (asked.include or ()):
        raise _unsupported("top_logprobs", "cannot be had here; ask by POST /v1/chat/completions")
    if asked.max_output_tokens is not None and asked.max_output_tokens < 1:
        raise InvalidRequest("max_output_tokens must be at least 1.", param="max_output_tokens")


def _put(asked: _Body, fields: dict[str, Any]) -> None:
    if asked.stream is not None:
        fields["stream"] = asked.stream
    if asked.max_output_tokens is not None:
        fields["max_tokens"] = asked.max_output_tokens
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        fields["reasoning_effort"] = asked.reasoning.effort
    if asked.text is not None:
        if asked.text.verbosity is not None:
            fields["verbosity"] = asked.text.verbosity
        if asked.text.format is not None and asked.text.format.type != "text":
            fields["response_format"] = _format(asked.text.format)
    if asked.tools:
        fields["tools"] = [_tool(raw, at) for at, raw in enumerate(asked.tools)]
        if asked.parallel_tool_calls is not None:
            fields["parallel_tool_calls"] = asked.parallel_tool_calls
    choice = asked.tool_choice
    if isinstance(choice, str):
        fields["tool_choice"] = choice
    elif choice is not None:
        if choice.type != "function" or not choice.name:
            raise _unsupported("tool_choice", "must be auto, none, required, or of type function with a name")
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}


def _format(wanted: _Format) -> dict[str, Any]:
    param = "text.format"
    if wanted.type == "json_object":
        return {"type": "json_object"}
    if wanted.type != "json_schema":
        raise InvalidRequest(f"{param}.type must be text, json_object or json_schema.", param=f"{param}.type")
    if not bytes(wanted.schema).startswith(b"{"):
        raise _missing(f"{param}.schema", "It is a JSON Schema object.")
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        schema["description"] = wanted.description
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


def _tool(raw: Raw, at: int) -> dict[str, Any]:
    param = f"tools[{at}]"
    try:
        tool = _TOOL.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{param} must be a tool with a type ({error}).", param=param) from None
    if tool.type != "function":
        raise _unsupported(f"{param}.type", "must be function: no other tool is carried out here")
    if not tool.name:
        raise _missing(f"{param}.name", "A function has a name.")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if bytes(tool.parameters) not in (b"", b"null"):
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _echo(asked: _Body, json: JsonObject) -> dict[str, Any]:
    """What the response says again of the request, absent fields by what they mean."""

    def said(key: str, otherwise: object) -> object:
        raw = json.raw(key)
        return otherwise if raw in (None, b"null") else Raw(raw)

    reasoning = asked.reasoning or _Reasoning()
    effort = {"effort": reasoning.effort, "summary": reasoning.summary or reasoning.generate_summary}
    return {
        "background": bool(asked.background),
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": None,
        "metadata": said("metadata", {}),
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": said("prompt_cache_key", None),
        "reasoning": effort,
        "safety_identifier": said("safety_identifier", None),
        "service_tier": said("service_tier", "default"),
        "store": asked.store is not False,
        "temperature": said("temperature", None),
        "text": said("text", {"format": {"type": "text"}}),
        "tool_choice": said("tool_choice", "auto"),
        "tools": said("tools", []),
        "top_p": said("top_p", None),
        "truncation": said("truncation", "disabled"),
        "user": said("user", None),
    }


def _missing(param: str, advice: str) -> InvalidRequest:
    return InvalidRequest(f"{param} is missing. {advice}", param=param, code="missing_required_parameter")


def _unsupported(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{param} {what}.", param=param, code="unsupported_parameter")
