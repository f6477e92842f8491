"""Carries out the rules of a preset: for a request's fields, finish reasons and errors."""

from __future__ import annotations

import hashlib
import re
from typing import Any, assert_never

import msgspec

from server.chat import ChatRequest
from server.errors import (
    ContentFiltered,
    InsufficientQuota,
    InvalidRequest,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamRefused,
)
from server.foreign import left_out, shortened
from server.presets import Meaning, Preset, Rules
from server.upstreams.params import clamped

# What asks for nothing, in JSON.
_NOTHING = (b"null", b"false", b"0", b"[]", b"{}", b'""')
# A server that loads its model says so at once, and not for how long. (seconds)
LOADING_S = 3.0
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class PresetRules:
    """The rules of one preset, prepared once."""

    def __init__(self, preset: Preset) -> None:
        self._rules = preset.rules
        self._models = [(re.compile(pattern), rules) for pattern, rules in preset.models.items()]
        self._meanings = {code.lower(): meaning for code, meaning in preset.codes.items()}
        self._phrases = preset.phrases
        self._finish = {theirs.encode(): ours.encode() for theirs, ours in preset.finish.items()}
        reasons = b"|".join(map(re.escape, self._finish))
        # Within a string the quotes would be escaped: only a field of the answer itself is meant.
        self._reason = re.compile(rb'("finish_reason"\s*:\s*")(%s)(?=")' % reasons)
        self.mends = bool(self._finish)

    def of(self, model: str) -> Rules:
        """The rules for a model, by the vendor's name."""
        return next((rules for name, rules in self._models if name.fullmatch(model)), self._rules)

    def mend(self, data: bytes) -> bytes:
        """A chunk or a completion with OpenAI's finish reasons in place of the vendor's."""
        return self._reason.sub(lambda found: found[1] + self._finish[found[2]], data)

    def explained(self, error: ServerError) -> ServerError:
        """An error by what its code, its type or its words mean to this vendor."""
        for code in (error.upstream_code, error.upstream_type):
            if (meaning := self._meanings.get(code.lower())) is not None:
                return _told(meaning, error)
        for phrase, meaning in self._phrases.items():
            if phrase in error.upstream_said:
                return _told(meaning, error)
        return error


def fit(chat: ChatRequest, rules: Rules, *, ask_usage: bool) -> tuple[ChatRequest, tuple[str, ...]]:
    """The request as the vendor takes it, and what was left out or changed, in words of fields alone.

    Raises InvalidRequest for what would no longer mean the same.
    """
    _refuse(chat, rules)
    changes: dict[str, bytes | None] = {}
    warnings: list[str] = []
    for name in rules.drop:
        if chat.has(name):
            changes[name] = None
            warnings.append(f"{name} was left out")
    for name, theirs in rules.rename.items():
        if chat.has(name):
            changes[name] = None
            if not chat.has(theirs):
                changes[theirs] = chat.json.raw(name)
            elif chat.json.raw(theirs) != chat.json.raw(name):
                raise InvalidRequest(
                    f"{theirs} says something else than {name}; send one of them.", param=theirs
                )
    for name, words in rules.words.items():
        if (word := _word(chat, name)) in words:
            changes[name] = msgspec.json.encode(words[word])
    for name, bounds in rules.clamp.items():
        if (bound := clamped(chat.json.raw(name), bounds)) is not None:
            changes[name] = bound
            warnings.append(f"{name} was changed to {bound.decode()}")
    for name, value in rules.default.items():
        if not chat.has(name):
            changes[name] = msgspec.json.encode(value)
    if rules.only:
        known = {*rules.only, *changes}
        warnings += left_out(chat, (*known, "stream_options", "antiphon", "conversation_id"))
        changes |= {name: None for name in chat.json if name not in known}
    if rules.stream_only and not chat.stream:
        changes["stream"] = b"true"
        if ask_usage:
            changes["stream_options"] = b'{"include_usage":true}'
    if rules.call_ids and (turns := _with_short_ids(chat, rules.call_ids)) is not None:
        changes["messages"] = turns
        warnings.append("ids of tool calls were replaced")
    return chat.edit(changes), shortened(warnings)


def _refuse(chat: ChatRequest, rules: Rules) -> None:
    for name in rules.refuse:
        value = chat.json.raw(name)
        if value is not None and value not in _NOTHING and not (name == "n" and value == b"1"):
            raise _unsupported(name, name)
    for name, words in rules.refuse_values.items():
        if (word := _word(chat, name)) in words:
            raise _unsupported(name, f"{name} {word!r}")


def _unsupported(field: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"The vendor of this model does not take {what}; leave it out, or ask another model.",
        param=field,
        code="unsupported_parameter",
    )


def _word(chat: ChatRequest, name: str) -> str:
    """A field's value if it is a string; else ""."""
    raw = chat.json.raw(name)
    return msgspec.json.decode(raw, type=str) if raw is not None and raw.startswith(b'"') else ""


def _with_short_ids(chat: ChatRequest, length: int) -> bytes | None:
    """The messages with ids of tool calls that fit, by a fixed rule; None if all do."""
    raw = chat.json.raw("messages") or b"[]"
    if b'"tool_call' not in raw:
        return None
    fits = re.compile(rf"[0-9A-Za-z]{{{length}}}")
    turns: list[dict[str, Any]] = [
        msgspec.json.decode(turn, type=dict[str, msgspec.Raw]) for turn in chat.raw_messages()
    ]
    replaced = False

    def short(id: object) -> object:
        nonlocal replaced
        if not isinstance(id, str) or fits.fullmatch(id):
            return id
        replaced = True
        digest = hashlib.blake2s(id.encode("utf-8", "surrogatepass"), digest_size=length).digest()
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest)

    for turn in turns:
        if "tool_call_id" in turn:
            turn["tool_call_id"] = short(msgspec.json.decode(turn["tool_call_id"]))
        if turn.get("tool_calls", b"null") != b"null":
            calls = msgspec.json.decode(turn["tool_calls"], type=list[dict[str, Any]])
            turn["tool_calls"] = [call | {"id": short(call.get("id"))} for call in calls]
    return msgspec.json.encode(turns) if replaced else None


def _told(meaning: Meaning, error: ServerError) -> ServerError:
    told = _meant(meaning, error)
    told.upstream_status, told.upstream_code = error.upstream_status, error.upstream_code
    told.upstream_type, told.upstream_said = error.upstream_type, error.upstream_said
    if told.status in (429, 503):
        told.retry_after_s = error.retry_after_s or told.retry_after_s
    return told


def _meant(meaning: Meaning, error: ServerError) -> ServerError:
    said, param = error.upstream_said, error.param
    match meaning:
        case "quota":
            return InsufficientQuota("The upstream account has no quota left; the operator must top it up.")
        case "auth":
            return UpstreamAuth(
                "The upstream refused the channel's credentials; the operator must mend them."
            )
        case "busy":
            return Overloaded("The upstream is busy; try again later.")
        case "loading":
            return Overloaded(
                "The upstream is loading its model; try again shortly.", retry_after_s=LOADING_S
            )
        case "rate":
            return RateLimited(said or "The upstream asks for fewer requests; try again later.")
        case "content":
            return ContentFiltered(said or "The upstream's moderation refused the request.", param=param)
        case "length":
            said = said or "The conversation is too long for this model."
            return UpstreamRefused(said, param=param, code="context_length_exceeded")
        case "request":
            return UpstreamRefused(said or "The upstream refused the request.", param=param)
        case _ as never:
            assert_never(never)
