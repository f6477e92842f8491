"""Golden conversations: one talk in each client's dialect, and what it is on both sides of the server.

``python -m tests.behaviour.golden`` writes tests/data/golden/ anew; what changes there is to be read.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from server.simulators.script import ToolCall
from tests.behaviour.asking import post
from tests.behaviour.kinds import kind_of

FOLDER = Path(__file__).parents[1] / "data" / "golden"
KINDS = ("openai", "azure", "anthropic", "gemini", "ollama", "spark")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
URI = f"data:image/png;base64,{PIXEL}"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SYSTEM = "Be brief – 简短."
QUESTION, LATER = "Where is this? 🎶", "And tomorrow?"
THOUGHT, SIGNATURE = "The tower …", "EqSim=="
ARGUMENTS = {"city": "Paris – 巴黎"}
RESULT = "18 °C, 晴"
# Ids and times of ours are new each time.
_NEW = re.compile(r'"(?:resp|msg|rs|fc|cmpl|chatcmpl|call|req|run)_?-?[0-9a-f]{12,}(?:_\d+)*"')
_TIMES = re.compile(r'"(created|created_at|completed_at)":\s?\d{10}(?:\.\d+)?')


def chats(*, image: bool) -> dict[str, Any]:
    """The talk as ``/v1/chat/completions`` is asked to go on with it."""
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS, ensure_ascii=False)},
    }
    seen = [{"type": "image_url", "image_url": {"url": URI}}] if image else []
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}, *seen]},
            {
                "role": "assistant",
                "content": "I look.",
                "reasoning_content": THOUGHT,
                "thinking_blocks": [{"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}],
                "tool_calls": [call],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
            {"role": "assistant", "content": "Paris, 18 °C."},
            {"role": "user", "content": LATER},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "reasoning_effort": "low",
        "max_completion_tokens": 2000,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def messages(*, image: bool) -> dict[str, Any]:
    """The same for ``/v1/messages``."""
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    seen = [{"type": "image", "source": source}] if image else []
    return {
        "system": SYSTEM,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": QUESTION}, *seen]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": ARGUMENTS},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": RESULT}],
            },
            {"role": "assistant", "content": "Paris, 18 °C."},
            {"role": "user", "content": LATER},
        ],
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
        "output_config": {"effort": "low"},
        "max_tokens": 2000,
        "stream": True,
    }


def responses(*, image: bool) -> dict[str, Any]:
    """The same for ``/v1/responses``; the thought is told without its seal, which only we can make."""
    seen = [{"type": "input_image", "image_url": URI}] if image else []
    return {
        "instructions": SYSTEM,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": QUESTION}, *seen]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": THOUGHT}],
            },
            {"role": "assistant", "content": "I look."},
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "weather",
                "arguments": json.dumps(ARGUMENTS, ensure_ascii=False),
            },
            {"type": "function_call_output", "call_id": "call_1", "output": RESULT},
            {"role": "assistant", "content": "Paris, 18 °C."},
            {"role": "user", "content": LATER},
        ],
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
        "reasoning": {"effort": "low"},
        "max_output_tokens": 2000,
        "stream": True,
    }


DIALECTS: dict[str, Any] = {
    "/v1/chat/completions": chats,
    "/v1/messages": messages,
    "/v1/responses": responses,
}


async def conversation(kind: str) -> dict[str, Any]:
    """Path → what the upstream was sent, and the lines of the stream that the client got."""
    told: dict[str, Any] = {}
    spark = kind == "spark"  # sees nothing beside tools, and reasons on its own
    async with kind_of(kind) as served:
        for path, talk in DIALECTS.items():
            call = ToolCall(name="weather", arguments='{"city": "Lyon"}', id=None if spark else "call_9")
            said: dict[str, Any] = {"text": "" if spark else "Let me see – 看.", "tools": (call,)}
            served.say(**said, reasoning=() if spark else ("Tomorrow", " …"))
            body = {"model": "spark-ultra" if spark else served.model, **talk(image=not spark)}
            answer = await post(served.server, body, path=path)
            told[path] = {
                "warnings": answer.headers.get("x-antiphon-warnings", ""),
                "sent": json.loads(_settled(served.sim.requests[-1].body.decode())),
                "told": _settled(answer.body.decode()).splitlines(),
            }
    if spark:
        for one in told.values():
            one["sent"]["header"].pop("uid", None)  # new each time
    return told


def _settled(text: str) -> str:
    """With ids and times that are the same each time."""
    names: dict[str, str] = {}
    ids = _NEW.sub(lambda found: names.setdefault(found[0], f'"id {len(names) + 1}"'), text)
    return _TIMES.sub(r'"\1":0', ids)


async def write() -> None:
    """Write all of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        told = json.dumps(await conversation(kind), indent=1, ensure_ascii=False)
        (FOLDER / f"{kind}.json").write_text(told + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(write())
