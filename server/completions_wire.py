"""OpenAI's legacy text completions over chats: a prompt is one user turn, the answer's text the completion.

No socket, no task, no clock. What a chat cannot carry out is refused by name: ``suffix``, ``logprobs``, more
than one prompt, token numbers for text, ``best_of`` above ``n``. Thoughts have no place in a completion and
are left out.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
from msgspec import Raw

from server.chat import ChatRequest, JsonObject
from server.deltas import (
    Batch,
    Delta,
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import InvalidRequest, ServerError
from server.openai_wire import error_event, read_json, usage_json
from server.sse import DONE

_OBJECT = "text_completion"
_OF_CHATS = ("messages", "tools", "functions", "response_format")
_json = msgspec.json.encode


class Prompt(msgspec.Struct, frozen=True):
    """What is asked: ``chat`` in our terms; ``echo`` is what the text begins with, "" for nothing."""

    chat: ChatRequest
    echo: str = ""


class _Fields(msgspec.Struct):
    """The fields that a chat has not, and ``n``."""

    model: str | None = None
    prompt: str | list[Raw] | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | bool | None = None
    suffix: str | None = None


_FIELDS = msgspec.json.Decoder(_Fields)


def parse_completion(body: bytes, *, need_model: bool = True) -> Prompt:
    """Check and take in a request. Raises ``InvalidRequest`` with the field's place in ``param``."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    asked, json = read_json(body, lambda data: (_FIELDS.decode(data), JsonObject(data)))
    if need_model and not asked.model:
        raise _missing("model", "Name a model; GET /v1/models lists them.")
    prompt = _prompt(asked)
    _refuse(asked, json)
    turn = {"role": "user", "content": prompt}
    own = {key: None for key in ("prompt", "best_of", "echo", "logprobs", "suffix") if key in json}
    edited = json.edit({**own, "messages": _json([turn])})
    return Prompt(read_json(edited, lambda data: ChatRequest(JsonObject(data))), prompt if asked.echo else "")


def _prompt(asked: _Fields) -> str:
    if asked.prompt is None:
        raise _missing("prompt", "Send a text.")
    if isinstance(asked.prompt, str):
        return asked.prompt
    if len(asked.prompt) != 1:
        raise InvalidRequest(
            "prompt must be one text; send each prompt in a request of its own.",
            param="prompt",
            code="unsupported_parameter",
        )
    try:
        return msgspec.json.decode(asked.prompt[0], type=str)
    except msgspec.ValidationError:
        raise InvalidRequest(
            "prompt must be a text; numbers of tokens cannot be taken here.",
            param="prompt",
            code="unsupported_parameter",
        ) from None


def _refuse(asked: _Fields, json: JsonObject) -> None:
    if asked.n is not None and asked.n < 1:
        raise InvalidRequest("n must be at least 1.", param="n")
    if asked.suffix:
        raise _unsupported("suffix", "cannot be had: models are asked in chats, which insert nothing")
    if asked.logprobs is not None and asked.logprobs is not False:
        raise _unsupported("logprobs", "cannot be had here; ask by POST /v1/chat/completions")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise _unsupported("best_of", "cannot be had; leave it out, or ask a combination that picks the best")
    for key in _OF_CHATS:
        if json.raw(key) not in (None, b"null", b"[]"):
            raise _unsupported(key, "belongs to POST /v1/chat/completions")


def _missing(param: str, advice: str) -> InvalidRequest:
    return InvalidRequest(f"{param} is missing. {advice}", param=param, code="missing_required_parameter")


def _unsupported(param: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{param} {what}.", param=param, code="unsupported_parameter")


class CompletionEncoder:
    """One client's stream. ``created`` is in Unix seconds; ``echo`` begins the text of each choice."""

    def __init__(
        self, *, model: str, id: str, created: int, echo: str = "", include_usage: bool = False
    ) -> None:
        self._head = b'{"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":' % (
            _json(id),
            created,
            _json(model),
        )
        self._echo = echo
        self._begun: set[int] = set()
        self._include_usage = include_usage
        self._usage: Usage | None = None

    def encode(self, batch: Batch) -> bytes:
        """The events of a batch, joined for one write; b"" if it brings none."""
        return b"".join([self._event(delta) for delta in batch])

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """The usage if it was asked for, and ``[DONE]``."""
        if not self._include_usage:
            return DONE
        figures = usage_json(self._usage or usage or Usage(estimated=True))
        extra = b',"antiphon":' + antiphon if antiphon else b""
        return b"data: " + self._head + b'[],"usage":' + figures + extra + b"}\n\n" + DONE

    def fail(self, error: ServerError) -> bytes:
        """One error event, and no ``[DONE]``."""
        return error_event(error)

    def _event(self, delta: Delta) -> bytes:
        match delta:
            case TextDelta(text, index) | RefusalDelta(text, index):
                return self._chunk(index, text)
            case Finished(reason, index):
                return self._chunk(index, "", reason)
            case UsageDelta(usage):
                self._usage = usage
            case Opening() | ReasoningDelta() | ToolCallDelta() | Extra():
                pass
            case _ as never:
                assert_never(never)
        return b""

    def _chunk(self, index: int, text: str, reason: str | None = None) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            text = self._echo + text
        choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
        tail = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        return b"data: " + self._head + b"[" + _json(choice) + b"]" + tail


class CompletionCollector:
    """Collects the batches of one answer into one body."""

    def __init__(self, *, model: str, id: str, created: int, echo: str = "") -> None:
        self._head = {"id": id, "object": _OBJECT, "created": created, "model": model}
        self._echo = echo
        self._texts: dict[int, list[str]] = {}
        self._reasons: dict[int, str] = {}
        self._usage: Usage | None = None

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        for delta in batch:
            match delta:
                case TextDelta(text, index) | RefusalDelta(text, index):
                    self._texts.setdefault(index, []).append(text)
                case Finished(reason, index):
                    self._texts.setdefault(index, [])
                    self._reasons[index] = reason
                case UsageDelta(usage):
                    self._usage = usage
                case Opening() | ReasoningDelta() | ToolCallDelta() | Extra():
                    pass
                case _ as never:
                    assert_never(never)

    def encode(self, usage: Usage | None = None, antiphon: bytes | None = None) -> bytes:
        """The body; ``usage`` is used where the upstream gave none."""
        fields: dict[str, Any] = dict(self._head)
        fields["choices"] = [
            {
                "text": self._echo + "".join(self._texts[index]),
                "index": index,
                "logprobs": None,
                "finish_reason": self._reasons.get(index),
            }
            for index in sorted(self._texts)
        ]
        fields["usage"] = Raw(usage_json(self._usage or usage or Usage(estimated=True)))
        if antiphon:
            fields["antiphon"] = Raw(antiphon)
        return _json(fields)
