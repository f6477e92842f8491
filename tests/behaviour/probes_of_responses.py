"""Parameters of OpenAI's Responses and of its text completions; see ``probes``."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

from tests.behaviour.probes import CHAT_PLACE, CONFIG, PIXEL, SCHEMA, URI, Probe, openai


def _asked(name: str, value: Any, *, words: tuple[str, ...] = (), **seen: tuple[str, Any]) -> Probe:
    return Probe(name, {name: value}, words or (name,), seen)


_FUNCTION = {"type": "function", "name": "look", "parameters": SCHEMA}
RESPONSES: tuple[Probe, ...] = (
    *(
        _asked(name, value)
        for name, value in {
            "access_programs": ["a"],
            "context_management": [{"type": "compaction"}],
            "conversation": "c1",
            "image": {"a": 1},
            "max_tool_calls": 3,
            "moderation": {"model": "m"},
            "prompt": {"id": "p"},
            "prompt_cache_options": {"a": 1},
            "top_logprobs": 2,
            "truncation": "auto",
        }.items()
    ),
    *(
        _asked(name, value, **openai(name, value))
        for name, value in {
            "prompt_cache_key": "a",
            "prompt_cache_retention": "24h",
            "safety_identifier": "a",
            "service_tier": "flex",
            "an_unknown_field": 1,
        }.items()
    ),
    _asked("include", ["web_search_call.action.sources"]),
    _asked("include", ["message.output_text.logprobs"], words=("top_logprobs",)),
    _asked(
        "instructions",
        "Be brief.",
        **openai("messages.0.content", "Be brief."),
        anthropic=("system.0.text", "Be brief."),
        gemini=("systemInstruction.parts.0.text", "Be brief."),
        ollama=("messages.0.content", "Be brief."),
        spark=("payload.message.text.0.content", "Be brief."),
    ),
    _asked(
        "max_output_tokens",
        77,
        **openai("max_tokens", 77),
        anthropic=("max_tokens", 77),
        gemini=(f"{CONFIG}.maxOutputTokens", 77),
        ollama=("options.num_predict", 77),
        spark=(f"{CHAT_PLACE}.max_tokens", 77),
    ),
    Probe(
        "parallel_tool_calls",
        {"parallel_tool_calls": False, "tools": [_FUNCTION]},
        ("parallel_tool_calls",),
        {
            **openai("parallel_tool_calls", False),
            "anthropic": ("tool_choice.disable_parallel_tool_use", True),
        },
    ),
    Probe(
        "reasoning",
        {"reasoning": {"effort": "low"}},
        ("reasoning.effort",),
        {
            **openai("reasoning_effort", "low"),
            "anthropic": ("output_config.effort", "low"),
            "gemini": (f"{CONFIG}.thinkingConfig.thinkingLevel", "low"),
        },
    ),
    _asked(
        "temperature",
        0.5,
        **openai("temperature", 0.5),
        anthropic=("temperature", 0.5),
        gemini=(f"{CONFIG}.temperature", 0.5),
        ollama=("options.temperature", 0.5),
        spark=(f"{CHAT_PLACE}.temperature", 0.5),
    ),
    Probe(
        "text: format",
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        ("text.format",),
        {
            **openai("response_format.json_schema.schema", SCHEMA),
            "anthropic": ("output_config.format.schema", SCHEMA),
            "gemini": (f"{CONFIG}.responseJsonSchema", SCHEMA),
            "ollama": ("format", SCHEMA),
        },
    ),
    Probe("text: verbosity", {"text": {"verbosity": "low"}}, ("verbosity",), openai("verbosity", "low")),
    Probe(
        "tool_choice",
        {"tool_choice": {"type": "function", "name": "look"}, "tools": [_FUNCTION]},
        ("tool_choice",),
        {
            **openai("tool_choice.function.name", "look"),
            "anthropic": ("tool_choice.name", "look"),
            "gemini": ("toolConfig.functionCallingConfig.allowedFunctionNames", ["look"]),
            "spark": (f"{CHAT_PLACE}.function_choice", "look"),
        },
    ),
    Probe(
        "tool_choice: custom",
        {"tool_choice": {"type": "custom", "name": "c"}, "tools": [_FUNCTION]},
        ("tool_choice",),
    ),
    Probe(
        "tools: strict",
        {"tools": [{**_FUNCTION, "strict": True}]},
        ("strict",),
        {**openai("tools.0.function.strict", True), "anthropic": ("tools.0.strict", True)},
    ),
    Probe("tools: defer_loading", {"tools": [{**_FUNCTION, "defer_loading": True}]}, ("defer_loading",)),
    *(
        Probe(f"tools: {kind}", {"tools": [{"type": kind, "name": "c"}]}, ("tools[0]",))
        for kind in ("custom", "web_search", "mcp", "image_generation")
    ),
    _asked(
        "top_p",
        0.5,
        **openai("top_p", 0.5),
        anthropic=("top_p", 0.5),
        gemini=(f"{CONFIG}.topP", 0.5),
        ollama=("options.top_p", 0.5),
    ),
    _asked(
        "user",
        "somebody",
        **openai("user", "somebody"),
        anthropic=("metadata.user_id", ANY),
        spark=("header.uid", ANY),
    ),
    Probe(
        "input: an image in an output",
        {
            "input": [
                {"type": "message", "role": "user", "content": "hi"},
                {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
                {
                    "type": "function_call_output",
                    "call_id": "call_1",
                    "output": [{"type": "input_image", "image_url": URI}],
                },
            ],
            "tools": [_FUNCTION],
        },
        ("results of tools", "input"),
        {"anthropic": ("messages.2.content.0.content.0.source.data", PIXEL)},
    ),
    Probe(
        "input: a file's id",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        ("input[0].content[0]",),
    ),
)

COMPLETIONS: tuple[Probe, ...] = (
    Probe("prompt: several", {"prompt": ["a", "b"]}, ("prompt",)),
    Probe("prompt: tokens", {"prompt": [1, 2]}, ("prompt",)),
    Probe("suffix", {"suffix": "z"}, ("suffix",)),
    Probe("logprobs", {"logprobs": 2}, ("logprobs",)),
    Probe("best_of", {"best_of": 3}, ("best_of",)),
)
