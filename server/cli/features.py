"""What each kind of upstream makes of each feature of a chat, as tables in Markdown.

Nobody wrote them down: the code that makes requests is asked, with a chat that uses the feature, and what it
does with that is what the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from server.anthropic_wire import messages_request
from server.anthropic_wire.models import model_of as anthropic_model
from server.chat import ChatRequest
from server.errors import InvalidRequest
from server.gemini_wire import generate_request
from server.gemini_wire.models import model_of as gemini_model
from server.ollama_settings import Ollama
from server.ollama_wire import chat_request
from server.openai_wire import parse_chat
from server.presets import PRESETS
from server.settings import Channel
from server.spark.models import MODELS
from server.spark.request import request_frame
from server.spark.signing import Credentials
from server.surface_settings import SurfaceName
from server.surfaces import SURFACES, offered_by
from server.upstreams.local import refuse_what_it_cannot
from server.upstreams.preset_rules import fit

# The request's bytes and the warnings.
Made: TypeAlias = tuple[bytes, tuple[str, ...]]
Maker: TypeAlias = Callable[[ChatRequest], Made]

YES, RELAYED, ADAPTED, LEFT_OUT, REFUSED = "yes", "as it came", "changed", "left out", "400"

# What is no more than left out is in the first table.
_LEFT_OUT = " was left out"
BEGIN, END = "<!-- features -->\n", "<!-- end of features -->\n"

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
_FUNCTION = {"name": "look", "parameters": _SCHEMA}
_TOOL = {"type": "function", "function": _FUNCTION}
_TOOLS = {"tools": [_TOOL]}


_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": "b"}'}}
_HI = {"role": "user", "content": "hi"}


class Feature(NamedTuple):
    """Fields of a chat that uses it, and those that it cannot be used without."""

    uses: Mapping[str, Any]
    beside: Mapping[str, Any] = {}


def _shown(**part: Any) -> Mapping[str, Any]:
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "hi"}]}]}


def _part(**part: Any) -> Feature:
    return Feature(_shown(**part))


_IMAGE = {"url": f"data:image/png;base64,{_PIXEL}"}


FEATURES = {
    "a system prompt": Feature({"messages": [{"role": "system", "content": "Be brief."}, _HI]}),
    "an image (data URI)": _part(type="image_url", image_url=_IMAGE),
    "an image's `detail`": Feature(
        _shown(type="image_url", image_url={**_IMAGE, "detail": "low"}),
        _shown(type="image_url", image_url=_IMAGE),
    ),
    "a message's `name`": Feature({"messages": [{**_HI, "name": "bob"}]}),
    "a PDF file": _part(type="file", file={"file_data": "data:application/pdf;base64,JVBERi0="}),
    "a sound": _part(type="input_audio", input_audio={"data": "UklGRg==", "format": "wav"}),
    "`tools`": Feature(_TOOLS),
    "a tool's `strict`": Feature(
        {"tools": [{"type": "function", "function": {**_FUNCTION, "strict": True}}]}, _TOOLS
    ),
    "calls and their results": Feature(
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "fine"},
            ]
        },
        _TOOLS,
    ),
    "`tool_choice: required`": Feature({"tool_choice": "required"}, _TOOLS),
    "`parallel_tool_calls: false`": Feature({"parallel_tool_calls": False}, _TOOLS),
    "`reasoning_effort`": Feature({"reasoning_effort": "low"}),
    "`response_format: json_object`": Feature({"response_format": {"type": "json_object"}}),
    "`response_format: json_schema`": Feature(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}}
    ),
    "`max_completion_tokens`": Feature({"max_completion_tokens": 2000}),
    "`temperature`": Feature({"temperature": 0.5}),
    "`top_p`": Feature({"top_p": 0.5}),
    "`top_k`": Feature({"top_k": 4}),
    "`stop`": Feature({"stop": ["."]}),
    "`seed`": Feature({"seed": 1}),
    "`presence_penalty`": Feature({"presence_penalty": 0.5}),
    "`frequency_penalty`": Feature({"frequency_penalty": 0.5}),
    "`logit_bias`": Feature({"logit_bias": {"1": 1}}),
    "`user`": Feature({"user": "somebody"}),
    "`metadata`": Feature({"metadata": {"task": "a"}}),
    "`service_tier`": Feature({"service_tier": "flex"}),
    "`verbosity`": Feature({"verbosity": "low"}),
    "`prediction`": Feature({"prediction": {"type": "content", "content": "a"}}),
    "`web_search_options`": Feature({"web_search_options": {}}),
    "several choices (`n`)": Feature({"n": 2}),
    "`logprobs`": Feature({"logprobs": True}),
    "audio as an answer": Feature(
        {"modalities": ["text", "audio"], "audio": {"voice": "a", "format": "wav"}}
    ),
}


def _relayed(chat: ChatRequest) -> Made:
    return chat.json.data, ()


def _anthropic(chat: ChatRequest) -> Made:
    name = "claude-sonnet-4-6"
    made = messages_request(chat, anthropic_model(name), name)
    return made.body, made.warnings


def _gemini(chat: ChatRequest) -> Made:
    made = generate_request(chat, gemini_model("gemini-3-pro-preview"), {})
    return made.body, made.warnings


def _ollama(chat: ChatRequest) -> Made:
    made = chat_request(chat, Ollama(), "qwen3")
    return made.body, made.warnings


def _spark(chat: ChatRequest) -> Made:
    request = request_frame(
        chat, MODELS["spark-ultra"], Credentials(app_id="", api_key="", api_secret=""), uid=chat.fields.user
    )
    # Stops are carried out here, on the answer.
    return request.data + repr(request.stops).encode(), request.warnings


def _local(chat: ChatRequest) -> Made:
    refuse_what_it_cannot(chat)
    return chat.json.data, ()


def _preset(name: str) -> Maker:
    # What is sent where the client says nothing is no answer to what it says.
    rules = msgspec.structs.replace(PRESETS[name].rules, default={})

    def made(chat: ChatRequest) -> Made:
        fitted, warnings = fit(chat, rules, ask_usage=False)
        return fitted.json.data, warnings

    return made


KINDS: dict[str, Maker] = {
    "openai": _relayed,
    "azure": _relayed,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "ollama": _ollama,
    "spark": _spark,
    "local": _local,
}


def verdict(make: Maker, feature: Feature) -> str:
    """What becomes of a feature where requests are made so."""
    without, with_ = _chat(feature.beside), _chat({**feature.beside, **feature.uses})
    try:
        base, told = make(without)
        body, warnings = make(with_)
    except InvalidRequest:
        return REFUSED
    if body == with_.json.data:
        return RELAYED
    if body == base:
        return LEFT_OUT
    return ADAPTED if warnings != told else YES


def _chat(fields: Mapping[str, Any]) -> ChatRequest:
    return parse_chat(msgspec.json.encode({"model": "m", "messages": [_HI], **fields}))


def kinds_table() -> str:
    """Feature by feature, what each kind makes of it."""
    rows = [[name, *(verdict(make, one) for make in KINDS.values())] for name, one in FEATURES.items()]
    channels = msgspec.convert([{"name": "a", "kind": kind} for kind in KINDS], list[Channel])
    names = dict.fromkeys(surface.name for surface in SURFACES)
    rows += [[f"`{name}`", *(_offers(channel, name) for channel in channels)] for name in names]
    return _table(["", *KINDS], rows)


def _offers(channel: Channel, surface: SurfaceName) -> str:
    """What becomes of a request beside chats."""
    if surface not in offered_by(channel):
        return REFUSED
    return RELAYED if channel.kind in ("openai", "azure") else YES


def words_table() -> str:
    """Kind by kind, in which words the header tells what was changed, or left out for a reason."""
    rows = []
    for kind, make in KINDS.items():
        words = dict.fromkeys(word for one in FEATURES.values() for word in told_of(make, one))
        if said := [word for word in words if not word.endswith(_LEFT_OUT)]:
            rows.append([kind, "<br>".join(said)])
    return _table(["", "in the words of `x-antiphon-warnings`"], rows)


def told_of(make: Maker, feature: Feature) -> list[str]:
    """What is told of a feature where requests are made so; nothing where it is refused."""
    try:
        _, before = make(_chat(feature.beside))
        _, warnings = make(_chat({**feature.beside, **feature.uses}))
    except InvalidRequest:
        return []
    return [word for word in warnings if word not in before]


def presets_table() -> str:
    """What each preset does not send on as it came; the others send all."""
    rows = []
    for preset in PRESETS:
        make = _preset(preset)
        said = {name: verdict(make, one) for name, one in FEATURES.items()}
        found = [f"{name}: {what}" for name, what in said.items() if what != RELAYED]
        if found:
            rows.append([f"`{preset}`", "; ".join(found)])
    return _table(["preset", "not as it came"], rows)


def document() -> str:
    """The tables, as they stand in docs/providers.md."""
    return f"{kinds_table()}\n\n{words_table()}\n\n{presets_table()}\n"


def put_into(page: str) -> str:
    """The page with the tables between their marks. Raises ValueError for a page without these."""
    before, begin, after = page.partition(BEGIN)
    _, end, rest = after.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} … {END.strip()}")
    return f"{before}{begin}{document()}{end}{rest}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
