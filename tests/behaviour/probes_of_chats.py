"""Parameters of OpenAI's chats; see ``probes``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import ANY

from tests.behaviour.probes import CHAT_PLACE, CONFIG, HI, PDF, PIXEL, SCHEMA, URI, Probe


def tool(name: str, **function: Any) -> dict[str, Any]:
    """A function as a chat has it."""
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **function}}


def _chat(name: str, value: Any, **seen: tuple[str, Any]) -> Probe:
    """A top-level field that goes to kinds of OpenAI's dialect as it came."""
    return Probe(name, {name: value}, (name,), seen, as_it_came=True)


def _turns(
    name: str, *turns: Mapping[str, Any], words: tuple[str, ...] = (), **seen: tuple[str, Any]
) -> Probe:
    fields = {"messages": list(turns), "tools": [tool("look")]}
    return Probe(f"messages: {name}", fields, words or (name,), seen, as_it_came=True)


def _tools(name: str, entry: Mapping[str, Any], words: tuple[str, ...], **seen: tuple[str, Any]) -> Probe:
    return Probe(f"tools: {name}", {"tools": [entry]}, words, seen, as_it_came=True)


_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Rome"}'}}
_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "fine"}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "description": "An answer.", "schema": SCHEMA}}
_DESCRIBED = {"description": "An answer.", **SCHEMA}


def _assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "Hm.", **fields}


def _part(**part: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "hi"}, part]}


CHATS: tuple[Probe, ...] = (
    _chat("audio", {"voice": "a", "format": "wav"}),
    Probe("modalities", {"modalities": ["text", "audio"]}, ("modalities",), as_it_came=True),
    _chat(
        "frequency_penalty",
        0.5,
        gemini=(f"{CONFIG}.frequencyPenalty", 0.5),
        ollama=("options.frequency_penalty", 0.5),
    ),
    _chat(
        "presence_penalty",
        0.5,
        gemini=(f"{CONFIG}.presencePenalty", 0.5),
        ollama=("options.presence_penalty", 0.5),
    ),
    _chat("function_call", "auto"),
    _chat("functions", [{"name": "f", "parameters": SCHEMA}]),
    _chat("logit_bias", {"1": 2}),
    _chat("logprobs", True, gemini=(f"{CONFIG}.responseLogprobs", True)),
    Probe(
        "top_logprobs",
        {"logprobs": True, "top_logprobs": 2},
        ("logprobs", "top_logprobs"),
        {"gemini": (f"{CONFIG}.logprobs", 2)},
        as_it_came=True,
    ),
    Probe("top_logprobs alone", {"top_logprobs": 2}, ("top_logprobs",), as_it_came=True),
    *(
        _chat(
            name,
            77,
            anthropic=("max_tokens", 77),
            gemini=(f"{CONFIG}.maxOutputTokens", 77),
            ollama=("options.num_predict", 77),
            spark=(f"{CHAT_PLACE}.max_tokens", 77),
        )
        for name in ("max_tokens", "max_completion_tokens")
    ),
    _chat("metadata", {"task": "a"}),
    _chat("moderation", {"model": "m"}),
    _chat("n", 2, gemini=(f"{CONFIG}.candidateCount", 2)),
    Probe(
        "parallel_tool_calls",
        {"parallel_tool_calls": False, "tools": [tool("look")]},
        ("parallel_tool_calls",),
        {"anthropic": ("tool_choice.disable_parallel_tool_use", True)},
        as_it_came=True,
    ),
    _chat("prediction", {"type": "content", "content": "a"}),
    _chat("prompt_cache_key", "a"),
    _chat("prompt_cache_options", {"a": 1}),
    _chat("prompt_cache_retention", "24h"),
    _chat(
        "reasoning_effort",
        "low",
        anthropic=("output_config.effort", "low"),
        gemini=(f"{CONFIG}.thinkingConfig.thinkingLevel", "low"),
    ),
    Probe(
        "reasoning_effort: xhigh",
        {"reasoning_effort": "xhigh"},
        ("reasoning_effort",),
        {"anthropic": ("output_config.effort", "xhigh")},
        as_it_came=True,
    ),
    Probe(
        "reasoning_effort: minimal", {"reasoning_effort": "minimal"}, ("reasoning_effort",), as_it_came=True
    ),
    Probe(
        "response_format: json_object",
        {"response_format": {"type": "json_object"}},
        ("response_format",),
        {"gemini": (f"{CONFIG}.responseMimeType", "application/json"), "ollama": ("format", "json")},
        as_it_came=True,
    ),
    Probe(
        "response_format: json_schema",
        {"response_format": _FORMAT},
        ("response_format",),
        {
            "anthropic": ("output_config.format.schema", _DESCRIBED),
            "gemini": (f"{CONFIG}.responseJsonSchema", _DESCRIBED),
            "ollama": ("format", _DESCRIBED),
        },
        as_it_came=True,
    ),
    _chat("safety_identifier", "a"),
    _chat("seed", 7, gemini=(f"{CONFIG}.seed", 7), ollama=("options.seed", 7)),
    _chat("service_tier", "flex"),
    Probe(
        "service_tier: auto",
        {"service_tier": "auto"},
        ("service_tier",),
        {"anthropic": ("service_tier", "auto")},
        as_it_came=True,
    ),
    Probe(
        "stop",
        {"stop": ["§"]},
        ("stop",),
        {
            "anthropic": ("stop_sequences", ["§"]),
            "gemini": (f"{CONFIG}.stopSequences", ["§"]),
            "ollama": ("options.stop", ["§"]),
            "spark": (CHAT_PLACE, ANY),  # carried out here, on the answer
        },
        as_it_came=True,
    ),
    Probe(
        "stop: six words",
        {"stop": list("abcdef")},
        ("stop",),
        {
            "anthropic": ("stop_sequences", list("abcdef")),
            "ollama": ("options.stop", list("abcdef")),
            "spark": (CHAT_PLACE, ANY),
        },
        as_it_came=True,
    ),
    Probe(
        "stop: a blank",
        {"stop": ["\n\n"]},
        ("stop",),
        {
            "gemini": (f"{CONFIG}.stopSequences", ["\n\n"]),
            "ollama": ("options.stop", ["\n\n"]),
            "spark": (CHAT_PLACE, ANY),
        },
        as_it_came=True,
    ),
    _chat("store", True),
    _chat(
        "temperature",
        0.5,
        anthropic=("temperature", 0.5),
        gemini=(f"{CONFIG}.temperature", 0.5),
        ollama=("options.temperature", 0.5),
        spark=(f"{CHAT_PLACE}.temperature", 0.5),
    ),
    Probe(
        "tool_choice",
        {"tool_choice": "required", "tools": [tool("look")]},
        ("tool_choice",),
        {
            "anthropic": ("tool_choice.type", "any"),
            "gemini": ("toolConfig.functionCallingConfig.mode", "ANY"),
            "spark": (f"{CHAT_PLACE}.function_choice", "look"),
        },
        as_it_came=True,
    ),
    _tools(
        "function",
        tool("look", description="Looks."),
        ("tools",),
        anthropic=("tools.0.description", "Looks."),
        gemini=("tools.0.functionDeclarations.0.description", "Looks."),
        ollama=("tools.0.function.description", "Looks."),
        spark=("payload.functions.text.0.description", "Looks."),
    ),
    _tools("strict", tool("look", strict=True), ("strict",), anthropic=("tools.0.strict", True)),
    _tools("custom", {"type": "custom", "custom": {"name": "c"}}, ("tools[0]",)),
    _tools(
        "web_search",
        {"type": "web_search", "web_search": {"enable": True}},
        ("tools[0]",),
        spark=(f"{CHAT_PLACE}.tools.0.web_search.enable", True),
    ),
    _tools("unknown field", {**tool("look"), "odd": 1}, ("odd",)),
    Probe(
        "top_k",
        {"top_k": 4},
        ("top_k",),
        {
            "anthropic": ("top_k", 4),
            "gemini": (f"{CONFIG}.topK", 4),
            "ollama": ("options.top_k", 4),
            "spark": (f"{CHAT_PLACE}.top_k", 4),
        },
        as_it_came=True,
    ),
    _chat(
        "top_p", 0.5, anthropic=("top_p", 0.5), gemini=(f"{CONFIG}.topP", 0.5), ollama=("options.top_p", 0.5)
    ),
    _chat("user", "somebody", anthropic=("metadata.user_id", ANY), spark=("header.uid", ANY)),
    _chat("verbosity", "low"),
    _chat("web_search_options", {}, spark=(f"{CHAT_PLACE}.tools.0.web_search.enable", True)),
    Probe(
        "web_search_options: their parts",
        {"web_search_options": {"search_context_size": "low"}},
        ("web_search_options",),
        as_it_came=True,
    ),
    _chat(
        "thinking",
        {"type": "adaptive"},
        anthropic=("thinking.type", "adaptive"),
        gemini=(f"{CONFIG}.thinkingConfig.includeThoughts", True),
    ),
    _chat("an_unknown_field", {"a": 1}),
    # messages
    _turns(
        "developer",
        {"role": "developer", "content": "Be brief."},
        HI,
        anthropic=("system.0.text", "Be brief."),
        gemini=("systemInstruction.parts.0.text", "Be brief."),
        ollama=("messages.0.content", "Be brief."),
        spark=("payload.message.text.0.content", "Be brief."),
    ),
    _turns("name", {**HI, "name": "bob"}),
    _turns(
        "refusal",
        HI,
        {"role": "assistant", "content": None, "refusal": "No."},
        HI,
        anthropic=("messages.1.content.0.text", "No."),
        gemini=("contents.1.parts.0.text", "No."),
        ollama=("messages.1.content", "No."),
        spark=("payload.message.text.1.content", "No."),
    ),
    _turns("audio", HI, _assistant(audio={"id": "a"}), HI),
    _turns("annotations", HI, _assistant(annotations=[{"type": "url_citation"}]), HI),
    _turns("function_call", HI, _assistant(function_call={"name": "f", "arguments": "{}"}), HI),
    _turns(
        "a function's turn",
        HI,
        {"role": "function", "name": "look", "content": "fine"},
        words=("role",),
        spark=("payload.message.text.0.content", "hi\nResult of look: fine"),
    ),
    _turns(
        "reasoning_content",
        HI,
        _assistant(reasoning_content="Well."),
        HI,
        ollama=("messages.1.thinking", "Well."),
    ),
    _turns(
        "extra_content",
        HI,
        _assistant(extra_content={"google": {"thought_signature": "c2ln"}}),
        HI,
        gemini=("contents.1.parts.0.thoughtSignature", "c2ln"),
    ),
    _turns(
        "thinking_blocks",
        HI,
        _assistant(thinking_blocks=[{"type": "thinking", "thinking": "a", "signature": "s"}]),
        HI,
        anthropic=("messages.1.content.0.signature", "s"),
    ),
    _turns(
        "native_citations",
        HI,
        _assistant(native_citations=[{"type": "char_location", "index": 0}]),
        HI,
        anthropic=("messages.1.content.0.citations.0.type", "char_location"),
    ),
    _turns(
        "tool_calls",
        HI,
        _assistant(tool_calls=[_CALL]),
        _RESULT,
        anthropic=("messages.1.content.1.input.city", "Rome"),
        gemini=("contents.1.parts.1.functionCall.args.city", "Rome"),
        ollama=("messages.1.tool_calls.0.function.arguments.city", "Rome"),
        spark=("payload.message.text.1.content", 'Hm.\nCall look with {"city": "Rome"}'),
    ),
    _turns(
        "an image in a result",
        HI,
        _assistant(tool_calls=[_CALL]),
        {**_RESULT, "content": [{"type": "image_url", "image_url": {"url": URI}}]},
        words=("image", "content"),
        anthropic=("messages.2.content.0.content.0.source.data", PIXEL),
        gemini=("contents.2.parts.1.inlineData.data", PIXEL),
        ollama=("messages.2.images.0", PIXEL),
    ),
    _turns(
        "a custom call",
        HI,
        _assistant(tool_calls=[{"id": "a", "type": "custom", "custom": {"name": "c", "input": ""}}]),
        words=("tool_calls",),
    ),
    _turns(
        "image_url",
        _part(type="image_url", image_url={"url": URI}),
        words=("messages[0].content",),
        anthropic=("messages.0.content.1.source.data", PIXEL),
        gemini=("contents.0.parts.1.inlineData.data", PIXEL),
        ollama=("messages.0.images.0", PIXEL),
    ),
    _turns(
        "detail",
        _part(type="image_url", image_url={"url": URI, "detail": "low"}),
        words=("detail", "messages[0].content"),
    ),
    _turns(
        "input_audio",
        _part(type="input_audio", input_audio={"data": "UklGRg==", "format": "wav"}),
        words=("messages[0].content[1]",),
        gemini=("contents.0.parts.1.inlineData.data", "UklGRg=="),
    ),
    _turns(
        "file",
        _part(type="file", file={"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}),
        words=("messages[0].content[1]", "filename"),
        anthropic=("messages.0.content.1.title", "a.pdf"),
    ),
    _turns("a file's id", _part(type="file", file={"file_id": "file-1"}), words=("messages[0].content[1]",)),
    _turns("an unknown part", _part(type="hologram", hologram={}), words=("messages[0].content[1]",)),
)
