"""Parameters of Anthropic's Messages; see ``probes``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import ANY

from tests.behaviour.probes import CHAT_PLACE, CONFIG, HI, PDF, PIXEL, SCHEMA, Probe, openai


def _block(
    name: str, *blocks: Mapping[str, Any], words: tuple[str, ...] = (), **seen: tuple[str, Any]
) -> Probe:
    messages = [{"role": "user", "content": [*blocks, {"type": "text", "text": "hi"}]}]
    return Probe(f"messages: {name}", {"messages": messages}, words or (name,), seen)


def _own(name: str, value: Any, *, words: tuple[str, ...] = (), **seen: tuple[str, Any]) -> Probe:
    return Probe(name, {name: value}, words or (name,), seen)


def _own_tool(name: str, value: Any, **seen: tuple[str, Any]) -> Probe:
    tools = [{"name": "look", "input_schema": SCHEMA, name: value}]
    return Probe(f"tools: {name}", {"tools": tools}, (name,), seen)


def _kept(name: str, value: Any) -> Probe:
    """What only the kind of the same dialect has, by the same name."""
    return _own(name, value, anthropic=(name, value))


_MARK = {"type": "ephemeral"}
_SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3, "cache_control": _MARK}
_TEXT = {"type": "text", "media_type": "text/plain", "data": "Long."}
_USES = [
    HI,
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "call_1", "name": "look", "input": {"city": "Rome"}}],
    },
]


def _result(
    name: str, words: tuple[str, ...] = (), seen: Mapping[str, tuple[str, Any]] | None = None, **fields: Any
) -> Probe:
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "fine", **fields}
    asked = {"messages": [*_USES, {"role": "user", "content": [result]}]}
    asked["tools"] = [{"name": "look", "input_schema": SCHEMA}]
    return Probe(f"tool_result: {name}", asked, words or (name,), seen or {})


MESSAGES: tuple[Probe, ...] = (
    _own("thread", {"type": "create"}),
    _kept("cache_control", _MARK),
    _kept("container", "c1"),
    *(
        _kept(name, value)
        for name, value in {
            "billing_policy": {"a": 1},
            "compaction": {"a": 1},
            "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
            "diagnostics": {"a": 1},
            "fallback_credit_token": "a",
            "fallbacks": [{"model": "m"}],
            "inference_geo": "eu",
            "mcp_servers": [{"type": "url", "url": "https://a", "name": "a"}],
            "speed": "fast",
            "user_profile_id": "a",
            "workspace_id": "a",
        }.items()
    ),
    _own(
        "max_tokens",
        77,
        **openai("max_tokens", 77),
        anthropic=("max_tokens", 77),
        gemini=(f"{CONFIG}.maxOutputTokens", 77),
        ollama=("options.num_predict", 77),
        spark=(f"{CHAT_PLACE}.max_tokens", 77),
    ),
    _kept("metadata", {"user_id": "u"}),
    Probe(
        "output_config: effort",
        {"output_config": {"effort": "low"}},
        ("output_config.effort",),
        {
            **openai("reasoning_effort", "low"),
            "anthropic": ("output_config.effort", "low"),
            "gemini": (f"{CONFIG}.thinkingConfig.thinkingLevel", "low"),
        },
    ),
    Probe(
        "output_config: more",
        {"output_config": {"task_budget": {"total": 9}}},
        ("output_config",),
        {"anthropic": ("output_config.task_budget.total", 9)},
    ),
    Probe(
        "output_config: format",
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ("output_config.format",),
        {
            **openai("response_format.json_schema.schema", SCHEMA),
            "anthropic": ("output_config.format.schema", SCHEMA),
            "gemini": (f"{CONFIG}.responseJsonSchema", SCHEMA),
            "ollama": ("format", SCHEMA),
        },
    ),
    _kept("service_tier", "standard_only"),
    Probe(
        "service_tier: a new one",
        {"service_tier": "odd"},
        ("service_tier",),
        {"anthropic": ("service_tier", "odd")},
    ),
    Probe(
        "stop_sequences",
        {"stop_sequences": ["§"]},
        ("stop",),
        {
            **openai("stop", ["§"]),
            "anthropic": ("stop_sequences", ["§"]),
            "gemini": (f"{CONFIG}.stopSequences", ["§"]),
            "ollama": ("options.stop", ["§"]),
            "spark": (CHAT_PLACE, ANY),
        },
    ),
    _own(
        "system",
        "Be brief.",
        **openai("messages.0.content", "Be brief."),
        anthropic=("system.0.text", "Be brief."),
        gemini=("systemInstruction.parts.0.text", "Be brief."),
        ollama=("messages.0.content", "Be brief."),
        spark=("payload.message.text.0.content", "Be brief."),
    ),
    Probe(
        "system: cache_control",
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": _MARK}]},
        ("cache_control",),
        {"anthropic": ("system.0.cache_control", _MARK)},
    ),
    Probe(
        "thinking",
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4000},
        ("thinking",),
        {"anthropic": ("thinking.budget_tokens", 1024)},
    ),
    Probe(
        "tool_choice",
        {
            "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
            "tools": [{"name": "look", "input_schema": SCHEMA}],
        },
        ("tool_choice",),
        {
            **openai("parallel_tool_calls", False),
            "anthropic": ("tool_choice.disable_parallel_tool_use", True),
        },
    ),
    Probe(
        "tools",
        {"tools": [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}]},
        ("tools",),
        {
            **openai("tools.0.function.description", "Looks."),
            "anthropic": ("tools.0.description", "Looks."),
            "gemini": ("tools.0.functionDeclarations.0.description", "Looks."),
            "ollama": ("tools.0.function.description", "Looks."),
            "spark": ("payload.functions.text.0.description", "Looks."),
        },
    ),
    _own_tool("strict", True, **openai("tools.0.function.strict", True), anthropic=("tools.0.strict", True)),
    *(
        _own_tool(name, value, anthropic=(f"tools.0.{name}", value))
        for name, value in {
            "allowed_callers": ["direct"],
            "cache_control": _MARK,
            "defer_loading": True,
            "eager_input_streaming": True,
            "input_examples": [{"city": "Rome"}],
        }.items()
    ),
    Probe(
        "tools: web_search",
        {"tools": [_SEARCH]},
        ("tools[0]",),
        {"anthropic": ("tools.0", _SEARCH)},
    ),
    Probe(
        "betas",
        {},
        ("anthropic-beta",),
        {"anthropic": ("headers.anthropic-beta", "one-2025-01-01,two-2025-02-02")},
        headers=("anthropic-beta: one-2025-01-01, two-2025-02-02",),
    ),
    # blocks
    _block(
        "cache_control",
        {"type": "text", "text": "a", "cache_control": _MARK},
        anthropic=("messages.0.content.0.cache_control", _MARK),
    ),
    _block(
        "a document of text",
        {"type": "document", "source": _TEXT, "title": "T", "context": "C", "citations": {"enabled": True}},
        words=("documents were put into text",),
        anthropic=(
            "messages.0.content.0",
            {
                "type": "document",
                "source": _TEXT,
                "title": "T",
                "context": "C",
                "citations": {"enabled": True},
            },
        ),
    ),
    _block(
        "citations of a document of text",
        {"type": "document", "source": _TEXT, "citations": {"enabled": True}},
        words=("citations",),
        anthropic=("messages.0.content.0.citations", {"enabled": True}),
    ),
    *(
        _block(
            f"{name} of a PDF",
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                name: value,
            },
            words=(name, "messages[0].content"),
            anthropic=(f"messages.0.content.0.{name}", value),
            **({} if name != "title" else openai("messages.0.content.0.file.filename", value)),
        )
        for name, value in {"title": "T", "context": "C", "citations": {"enabled": True}}.items()
    ),
    *(
        _block(
            f"{kind} by {source['type']}",
            {"type": kind, "source": source, "cache_control": _MARK},
            words=("messages[0].content",),
            anthropic=("messages.0.content.0", {"type": kind, "source": source, "cache_control": _MARK}),
        )
        for kind, source in (
            ("document", {"type": "url", "url": "https://a/b.pdf"}),
            ("document", {"type": "file", "file_id": "file_1"}),
            ("image", {"type": "file", "file_id": "file_1"}),
        )
    ),
    _block(
        "container_upload",
        {"type": "container_upload", "file_id": "file_1"},
        words=("messages[0].content",),
        anthropic=("messages.0.content.0", {"type": "container_upload", "file_id": "file_1"}),
    ),
    _block(
        "search_result",
        {
            "type": "search_result",
            "source": "https://a",
            "title": "T",
            "content": [{"type": "text", "text": "a"}],
        },
        words=("search results were put into text",),
        anthropic=("messages.0.content.0.type", "search_result"),
    ),
    Probe(
        "messages: citations of an answer",
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "a", "citations": [{"type": "char_location"}]}],
                },
                HI,
            ]
        },
        ("citations",),
        {"anthropic": ("messages.1.content.0.citations.0.type", "char_location")},
    ),
    Probe(
        "messages: signed thoughts",
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "a", "signature": "s"},
                        {"type": "text", "text": "a"},
                    ],
                },
                HI,
            ]
        },
        ("thinking_blocks",),
        {"anthropic": ("messages.1.content.0.signature", "s")},
    ),
    _result(
        "cache_control",
        seen={"anthropic": ("messages.2.content.0.cache_control", _MARK)},
        cache_control=_MARK,
    ),
    _result(
        "is_error",
        seen={
            **openai("messages.2.content", "Error: fine"),
            "anthropic": ("messages.2.content.0.is_error", True),
            "gemini": ("contents.2.parts.0.functionResponse.response.result", "Error: fine"),
            "ollama": ("messages.2.content", "Error: fine"),
            "spark": ("payload.message.text.2.content", "Result of look: Error: fine"),
        },
        is_error=True,
    ),
    _result(
        "an image",
        ("results of tools", "messages"),
        seen={"anthropic": ("messages.2.content.0.content.1.source.data", PIXEL)},
        content=[
            {"type": "text", "text": "See:"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        ],
    ),
)
