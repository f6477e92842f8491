"""The requests that a combination sends: the client's own, changed for a member or for the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest, JsonObject, Message
from server.coordinator.plan import PASSING, Plan, PlannedCall, members_call, tools_field
from server.coordinator.turns import join_turns, tools_as_text, turns_of, with_system, without_images
from server.settings import Summary

# What concerns the client's answer alone, or us: never a call within a combination.
_NEVER_SENT = ("stream_options", "antiphon", "conversation_id")
# Several choices come only from a call whose answer is passed on as it is.
_NOT_FOR_CALLS = ("n", *_NEVER_SENT)
_TOOLS = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
)
ADVICE = (
    "Tools cannot be called here. Where one is needed, say which one, with which arguments, and why; another "
    "model will call it."
)
_LIMITS = ("max_completion_tokens", "max_tokens")


def draft_request(
    chat: ChatRequest, plan: Plan, call: PlannedCall, *, blind: bool, calls: bool = True
) -> ChatRequest:
    """What a member is asked: the whole conversation, the client's wishes, else the member's own.

    ``blind``: its model is known not to see, so images of earlier turns become a line of text. ``calls``: it
    may call tools, if members get them; one that may not advises in words.
    """
    member = call.member
    wishes: dict[str, Any] = dict(member.params)
    if member.temperature is not None:
        wishes["temperature"] = member.temperature
    if member.top_p is not None:
        wishes["top_p"] = member.top_p
    limit = member.draft_max_tokens or plan.settings.draft_max_tokens
    passes = plan.strategy in PASSING
    gets_tools = passes or (calls and members_call(plan))
    left_out = (_NEVER_SENT if passes else _NOT_FOR_CALLS) if gets_tools else None
    changes = _changes(chat, call.model, wishes, force=member.force, limit=limit, left_out=left_out)
    offered = tools_field(chat) is not None
    advises = not gets_tools and (offered or plan.settings.tools == "summary")
    system = "\n\n".join(filter(None, [member.system, ADVICE if advises and offered else None]))
    if system or blind or advises:
        turns = turns_of(chat.raw_messages(), chat.messages)
        if blind:
            turns = [without_images(turn) for turn in turns]
        if advises:
            turns = tools_as_text(turns)
        data = with_system(turns, system) if system else [turn.data for turn in turns]
        changes["messages"] = join_turns(data)
    return chat.edit(changes)


def summary_request(
    chat: ChatRequest, summary: Summary, model: str, turns: Sequence[bytes], *, tools: bool = False
) -> ChatRequest:
    """What ``model`` is asked to write the answer from ``turns``; with ``tools`` it gets the client's.

    Without them, what members called before and got is told in words.
    """
    wishes: dict[str, Any] = dict(summary.params)
    if summary.temperature is not None:
        wishes["temperature"] = summary.temperature
    left_out = _NOT_FOR_CALLS if tools else None
    if not tools and tools_field(chat) is not None:
        turns = _in_words(turns)
    return chat.edit(_changes(chat, model, wishes, left_out=left_out) | {"messages": join_turns(turns)})


def final_request(chat: ChatRequest, model: str, turns: Sequence[bytes], limit: int | None) -> ChatRequest:
    """The client's request with other turns: its wishes, format and tools, and at most ``limit`` tokens."""
    left_out = ("stream_options", "antiphon", "conversation_id")
    changes = _changes(chat, model, {}, limit=limit, left_out=left_out)
    return chat.edit(changes | {"messages": join_turns(turns)})


def judge_request(model: str, turns: Sequence[bytes], temperature: float | None) -> ChatRequest:
    """What a judge is asked: nothing of the client's wishes for the answer is passed on."""
    fields: dict[str, Any] = {"model": model, "messages": Raw(join_turns(_in_words(turns))), "stream": True}
    if temperature is not None:
        fields["temperature"] = temperature
    # What the turns of a client of another dialect may hold is not known here.
    return ChatRequest(JsonObject(msgspec.json.encode(fields)), wide=True)


def direct_request(chat: ChatRequest, *, blind: bool) -> ChatRequest:
    """The client's request as it came, without our own field.

    A model known to be blind gets a line of text for each image of an earlier turn, which it would refuse.
    """
    if "antiphon" in chat.json:
        chat = chat.edit({"antiphon": None})
    if not blind or not any(turn.images for turn in chat.messages):
        return chat
    turns = turns_of(chat.raw_messages(), chat.messages)
    last = max((at for at, turn in enumerate(turns) if turn.view.role == "user"), default=-1)
    return chat.with_messages(
        [turn.data if at == last else without_images(turn).data for at, turn in enumerate(turns)]
    )


def _in_words(turns: Sequence[bytes]) -> list[bytes]:
    """The turns with calls of tools and their results in words, for a model that gets no tools."""
    views = [msgspec.json.decode(turn, type=Message) for turn in turns]
    return [turn.data for turn in tools_as_text(turns_of(turns, views))]


def _changes(
    chat: ChatRequest,
    model: str,
    wishes: Mapping[str, Any],
    *,
    force: bool = False,
    limit: int | None = None,
    left_out: tuple[str, ...] | None = None,
) -> dict[str, bytes | None]:
    values: dict[str, Any] = {"model": model, "stream": True}
    for key, value in wishes.items():
        sent = chat.max_tokens is not None if key in _LIMITS else chat.has(key)
        if force or not sent:
            values[key] = value
    if force and any(key in wishes for key in _LIMITS):
        # The limit has two names; the client's, under the other one, must not stand beside ours.
        values |= {key: None for key in _LIMITS if key not in wishes and key in chat.json}
    if limit is not None:
        values |= _limited(chat, values, limit)
    left_out = (*_NOT_FOR_CALLS, *_TOOLS) if left_out is None else left_out
    changes: dict[str, bytes | None] = {key: None for key in left_out if key in chat.json}
    return changes | {
        key: None if value is None else msgspec.json.encode(value) for key, value in values.items()
    }


def _limited(chat: ChatRequest, values: Mapping[str, Any], limit: int) -> dict[str, int]:
    """The fields that must be lowered to ``limit`` tokens; one is added if there is none."""
    found = {key: values.get(key, getattr(chat.fields, key)) for key in _LIMITS}
    limits = {key: value for key, value in found.items() if value is not None}
    if not limits:
        return {"max_tokens": limit}
    return {key: limit for key, value in limits.items() if not isinstance(value, int) or value > limit}
