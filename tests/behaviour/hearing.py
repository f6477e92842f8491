"""What a simulated upstream of each kind was really asked, read from its own record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.simulators.record import RecordedRequest


@dataclass
class Heard:
    """One request in the same words for all kinds. ``said`` are role and text of each turn that has one."""

    system: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    """In base64."""


def heard(kind: str, record: RecordedRequest) -> Heard:
    """What ``record`` asked; ``kind`` is the upstream's."""
    body = record.json()
    readers = {"anthropic": _of_anthropic, "gemini": _of_gemini, "ollama": _of_ollama, "spark": _of_spark}
    return readers.get(kind, _of_openai)(body)


def _of_openai(body: Mapping[str, Any]) -> Heard:
    found = Heard(tools=[tool["function"]["name"] for tool in body.get("tools", ())])
    for turn in body["messages"]:
        content = turn.get("content") or []
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        found.images += [
            part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"
        ]
        _note(found, turn["role"], text)
        for call in turn.get("tool_calls", ()):
            found.calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
    return found


def _note(found: Heard, role: str, text: str) -> None:
    if role in ("system", "developer"):
        found.system += text
    elif role == "tool":
        found.results.append(text)
    elif text:
        found.said.append((role, text))


def _of_anthropic(body: Mapping[str, Any]) -> Heard:
    system = body.get("system", "")
    found = Heard(
        system=system if isinstance(system, str) else "".join(block["text"] for block in system),
        tools=[tool["name"] for tool in body.get("tools", ())],
    )
    for turn in body["messages"]:
        content = turn["content"]
        blocks: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            match block["type"]:
                case "text":
                    found.said.append((turn["role"], block["text"]))
                case "image":
                    found.images.append(block["source"]["data"])
                case "tool_use":
                    found.calls.append((block["name"], block["input"]))
                case "tool_result":
                    inner = block["content"]
                    found.results.append(
                        inner if isinstance(inner, str) else "".join(part["text"] for part in inner)
                    )
    return found


def _of_gemini(body: Mapping[str, Any]) -> Heard:
    found = Heard(
        system="".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", ())),
        tools=[one["name"] for tool in body.get("tools", ()) for one in tool["functionDeclarations"]],
    )
    for turn in body["contents"]:
        for part in turn["parts"]:
            if "text" in part:
                found.said.append(("assistant" if turn["role"] == "model" else "user", part["text"]))
            elif "inlineData" in part:
                found.images.append(part["inlineData"]["data"])
            elif "functionCall" in part:
                found.calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
            elif "functionResponse" in part:
                found.results.append(part["functionResponse"]["response"]["result"])
    return found


def _of_ollama(body: Mapping[str, Any]) -> Heard:
    found = Heard(tools=[tool["function"]["name"] for tool in body.get("tools", ())])
    for turn in body["messages"]:
        _note(found, turn["role"], turn.get("content", ""))
        found.images += turn.get("images", ())
        for call in turn.get("tool_calls", ()):
            found.calls.append((call["function"]["name"], call["function"]["arguments"]))
    return found


def _of_spark(body: Mapping[str, Any]) -> Heard:
    functions = body["payload"].get("functions", {}).get("text", ())
    found = Heard(tools=[function["name"] for function in functions])
    for turn in body["payload"]["message"]["text"]:
        if turn.get("content_type") == "image":
            found.images.append(turn["content"])
        else:
            _note(found, turn["role"], turn["content"])
    return found
