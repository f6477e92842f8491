"""A Messages request → a chat.

The canonical form is OpenAI's. What only an upstream of Anthropic's own dialect understands (``thinking``,
marks for the cache, signed thoughts) stays in it by its own name: the chat is ``wide``. Fields that have no
name here wait in ``anthropic_fields``, and tools of the service's own are as they came.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest, JsonObject
from server.errors import InvalidRequest
from server.foreign import FIELDS, SERVICE_TIERS
from server.messages_wire.turns import Turn, chat_turns, text_of_blocks
from server.openai_wire import parse_chat, read_json

# Fields that mean the same to an upstream of the same dialect, or that are between the client and us.
_AS_THEY_ARE = (
    "temperature",
    "top_p",
    "top_k",
    "thinking",
    "metadata",
    "service_tier",
    "container",
    "cache_control",
    "anthropic_beta",
    "antiphon",
    "conversation_id",
)
_READ = frozenset(
    (
        *("model", "messages", "max_tokens", "system", "stream", "stop_sequences", "tools", "tool_choice"),
        *("output_config", "output_format"),
    )
)
# What of a tool is said by OpenAI's; further fields stand beside it, by their own names.
_OF_TOOLS = frozenset(("name", "type", "description", "input_schema", "strict"))
# The vendor's word for it, by which its own clients know that they have to send the whole conversation.
_NO_THREADS = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_BOM = b"\xef\xbb\xbf"


class Asked(msgspec.Struct, frozen=True):
    """What is asked: ``chat`` in our terms. ``thoughts``: are what the model thinks blocks of the answer?

    They are where ``thinking`` asks for them, and where tools are, for there they must come back.
    """

    chat: ChatRequest
    thoughts: bool


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: Raw = Raw()
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: str
    schema: Raw = Raw()


class _Output(msgspec.Struct):
    format: _Format | None = None


class _Thinking(msgspec.Struct):
    type: str
    display: str | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    messages: list[Turn] | None = None
    max_tokens: int | None = None
    system: str | list[Raw] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Raw] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None
    metadata: dict[str, Raw] | None = None


_BODY = msgspec.json.Decoder(_Body)
_TOOL = msgspec.json.Decoder(_Tool)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


def parse_messages(body: bytes, *, beta: str = "", need_model: bool = True, to_count: bool = False) -> Asked:
    """Check and take in a request; ``to_count``: it is only to be counted, and need not limit its answer.

    ``beta`` is its header ``anthropic-beta``, which goes on beside the other fields, as ``anthropic_beta``.
    Raises ``InvalidRequest`` with the field's place in ``param``.
    """
    body = body.removeprefix(_BOM)
    asked, json = read_json(body, lambda data: (_BODY.decode(data), JsonObject(data)))
    if need_model and not asked.model:
        raise _missing("model", "Name a model; GET /v1/models lists them.")
    if not asked.messages:
        raise _missing("messages", "Send at least one message.")
    if json.raw("thread") not in (None, b"null"):
        raise InvalidRequest(
            "thread: no conversation is held here; send all of it, without thread.",
            param="thread",
            code="unsupported_parameter",
            details=_NO_THREADS,
        )
    if asked.max_tokens is None and not to_count:
        raise _missing("max_tokens", "Say how long the answer may be.")
    if asked.max_tokens is not None and asked.max_tokens < 1:
        raise InvalidRequest("max_tokens must be at least 1.", param="max_tokens")
    fields: dict[str, Any] = {"model": asked.model, "messages": _messages(asked)}
    if asked.max_tokens is not None:
        fields["max_tokens"] = asked.max_tokens
    if asked.stream is not None:
        fields["stream"] = asked.stream
    if asked.stop_sequences:
        fields["stop"] = asked.stop_sequences
    fields |= {key: Raw(json.raw(key) or b"") for key in _AS_THEY_ARE if json.raw(key) not in (None, b"null")}
    if names := [name for one in beta.split(",") if _PLAIN_NAME.fullmatch(name := one.strip())]:
        fields["anthropic_beta"] = names
    _put_tools(asked, fields)
    _put_format(asked, json, fields)
    _put_others(json, fields)
    chat = parse_chat(msgspec.json.encode(fields), need_model=need_model)
    return Asked(ChatRequest(chat.json, chat.fields, wide=True), _wants_thoughts(asked))


def _put_others(json: JsonObject, fields: dict[str, Any]) -> None:
    """What has no name here is for an upstream of the same dialect alone; it waits in a field of its own."""
    others = {key: Raw(json.raw(key) or b"") for key in json if key not in _READ and key not in _AS_THEY_ARE}
    if "service_tier" in fields and bytes(fields["service_tier"]) not in SERVICE_TIERS:
        others["service_tier"] = fields.pop("service_tier")
    others = {key: value for key, value in others.items() if bytes(value) != b"null"}
    if others:
        fields[FIELDS] = others


def _messages(asked: _Body) -> list[Any]:
    turns: list[Any] = []
    if asked.system:
        system = asked.system
        content = system if isinstance(system, str) else text_of_blocks(system, "system")
        if content:
            turns.append({"role": "system", "content": content})
    return turns + chat_turns(asked.messages or [])


def _put_tools(asked: _Body, fields: dict[str, Any]) -> None:
    tools = [_tool(raw, at) for at, raw in enumerate(asked.tools or ())]
    if tools:
        fields["tools"] = tools
    choice = asked.tool_choice
    if choice is None:
        return
    if choice.type in ("auto", "none"):
        fields["tool_choice"] = choice.type
    elif choice.type == "any":
        fields["tool_choice"] = "required"
    elif choice.type == "tool" and choice.name:
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        raise InvalidRequest(
            "tool_choice.type must be auto, any, none or tool, the last with a name.", param="tool_choice"
        )
    if tools and choice.disable_parallel_tool_use is not None:
        fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use


def _tool(raw: Raw, at: int) -> Raw | dict[str, Any]:
    """A function in a chat's terms; a tool of the service's own as it came."""
    param = f"tools[{at}]"
    try:
        tool = _TOOL.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"{param} must be a tool with a name and an input_schema ({error}).", param=param
        ) from None
    if tool.type not in (None, "custom"):
        return raw
    if not bytes(tool.input_schema).startswith(b"{"):
        raise _missing(f"{param}.input_schema", "It is a JSON Schema object.")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    made: dict[str, Any] = {"type": "function", "function": function}
    more = {key: value for key, value in _OBJECT.decode(raw).items() if key not in _OF_TOOLS}
    return more | made


def _put_format(asked: _Body, json: JsonObject, fields: dict[str, Any]) -> None:
    """A schema for the answer is OpenAI's ``response_format``; the rest of ``output_config`` stays."""
    config = _OBJECT.decode(json.raw("output_config") or b"{}") if asked.output_config is not None else {}
    config.pop("format", None)
    if config:
        fields["output_config"] = config
    wanted = asked.output_format
    if asked.output_config is not None and asked.output_config.format is not None:
        wanted = asked.output_config.format
    if wanted is None:
        return
    if wanted.type != "json_schema" or not bytes(wanted.schema).startswith(b"{"):
        raise InvalidRequest(
            "output_config.format must be of type json_schema, with a schema.", param="output_config.format"
        )
    schema = {"name": "answer", "schema": wanted.schema, "strict": True}
    fields["response_format"] = {"type": "json_schema", "json_schema": schema}


def _wants_thoughts(asked: _Body) -> bool:
    if asked.thinking is None:
        return bool(asked.tools)
    return asked.thinking.type != "disabled" and asked.thinking.display != "omitted"


def _missing(param: str, advice: str) -> InvalidRequest:
    return InvalidRequest(f"{param} is missing. {advice}", param=param, code="missing_required_parameter")
