"""The names of a chat's fields → those of the request that it was made of: errors speak of the latter."""

from __future__ import annotations

import re

from server.chat import ChatRequest

_TURN = re.compile(r"messages\.?\[(\d{1,9})\](.*)", re.DOTALL)
_FUNCTION = re.compile(r"(tools\[\d{1,9}\])\.function(.*)", re.DOTALL)
_NAMES = {
    "stop": "stop_sequences",
    "max_completion_tokens": "max_tokens",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}


def own_param(chat: ChatRequest, param: str) -> str:
    """The client's name for a field of the chat that was made of its request.

    The parts of a turn are not in the order of the client's blocks, so of a turn only its content is named.
    """
    if (turn := _TURN.fullmatch(param)) is not None:
        place = _place(chat, int(turn[1]))
        if place is None:
            return "system"
        return f"messages[{place}].content" if turn[2] else f"messages[{place}]"
    if (function := _FUNCTION.fullmatch(param)) is not None:
        return function[1] + re.sub(r"\.parameters\b", ".input_schema", function[2])
    name, dot, rest = param.partition(".")
    if name == "response_format":
        return "output_config.format"
    return _NAMES.get(name, name) + dot + rest


def _place(chat: ChatRequest, at: int) -> int | None:
    """The client's turn that turn ``at`` of the chat was made of; None: the system prompt.

    Each result of a tool is a turn of its own there, before the words of the same turn.
    """
    roles = [message.role for message in chat.messages]
    place, before = -1, ""
    for role in roles[: at + 1]:
        if place < 0 and role == "system" and not before:
            before = role  # it stands in a field of its own
            continue
        if before != "tool" or role not in ("tool", "user"):
            place += 1
        before = role
    return None if place < 0 else place
