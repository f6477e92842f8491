"""OpenAI's legacy text completions over chats: a prompt is one user turn, the answer's text the completion.

No socket, no task, no clock. What a chat cannot carry out is refused by name: ``suffix``, ``logprobs``, more
than one prompt, token numbers for text, ``best_of`` above ``n``. What is no text has no place in a completion
and is left out by name: thoughts, calls, sources, pictures but for links to them, what is said aloud but for
its words.
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
from server.openai_wire import LeftOut, error_event, kept_in, read_json, usage_json
from server.sse import DONE

_OBJECT = "text_completion"
_OF_CHATS = ("messages", "tools", "functions", "response_format")
_json = msgspec.json.encode


class Prompt(msgspec.Struct, frozen=True):
    """What is asked: ``chat`` in our terms; ``echo`` is what the text begins with, "" for nothing."""

    chat: ChatRequest
    echo: str = ""


def own_param(param: str) -> str:
    """The client's name for a field of the chat that was made of its request."""
    return "prompt" if param.startswith("messages") else param


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


class _Text:
    """What of an answer is text, and the names of the rest."""

    def __init__(self) -> None:
        self.left = LeftOut()

    def of(self, delta: Delta) -> str:
        """The text that a delta brings."""
        text = ""
        original = delta.original
        if original is not None and original.data and (kept := kept_in(original.data)) is not None:
            links = [uri for uri in kept.images if not uri.startswith("data:")]
            text = kept.transcript + "".join(f"![image]({uri})" for uri in links)
            self.left.note(kept.left)
            missing = {
                "images": len(kept.images) > len(links),
                "annotations": kept.sources,
                "function_call": kept.calls,
                "extra_content": kept.extra,
            }
            self.left.note(name for name, lost in missing.items() if lost)
            self.left.note(str(block.get("type")) for block in kept.blocks)
        match delta:
            case TextDelta(said) | RefusalDelta(said):
                return text + said
            case ReasoningDelta():
                self.left.note(["reasoning"])
            case ToolCallDelta():
                self.left.note(["tool_calls"])
            case Opening() | Finished() | UsageDelta() | Extra():
                pass
            case _ as never:
                assert_never(never)
        return text


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
        self._text = _Text()
        self._include_usage = include_usage
        self._usage: Usage | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be told, after ``finish``."""
        return self._text.left.warnings

    def encode(self, batch: Batch) -> bytes:
        """The events of a batch, joined for one write; b"" if it brings none."""
        return b"".join([self._event(delta) for delta in batch])

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """The usage if it was asked for, what was left out, and ``[DONE]``."""
        beside = self._text.left.beside(antiphon)
        extra = b',"antiphon":' + beside if beside else b""
        if self._include_usage:
            figures = usage_json(self._usage or usage or Usage(estimated=True))
            return b"data: " + self._head + b'[],"usage":' + figures + extra + b"}\n\n" + DONE
        if not self._text.left.warnings:
            return DONE
        # A choice that says nothing, and not none at all, which nobody has asked for.
        return (
            b"data: "
            + self._head
            + b'[{"text":"","index":0,"logprobs":null,"finish_reason":null}]'
            + extra
            + b"}\n\n"
            + DONE
        )

    def fail(self, error: ServerError) -> bytes:
        """One error event, and no ``[DONE]``."""
        return error_event(error)

    def _event(self, delta: Delta) -> bytes:
        if isinstance(delta, UsageDelta):
            self._usage = delta.usage
            return b""
        text = self._text.of(delta)
        if isinstance(delta, Finished):
            return self._chunk(delta.index, text, delta.reason)
        if isinstance(delta, TextDelta | RefusalDelta):
            return self._chunk(delta.index, text)
        return self._chunk(_index_of(delta), text) if text else b""

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
        self._text = _Text()
        self._texts: dict[int, list[str]] = {}
        self._reasons: dict[int, str] = {}
        self._usage: Usage | None = None

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        for delta in batch:
            if isinstance(delta, UsageDelta):
                self._usage = delta.usage
                continue
            text, index = self._text.of(delta), _index_of(delta)
            if text or isinstance(delta, TextDelta | RefusalDelta | Finished):
                self._texts.setdefault(index, []).append(text)
            if isinstance(delta, Finished):
                self._reasons[index] = delta.reason

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be told."""
        return self._text.left.warnings

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
        if beside := self._text.left.beside(antiphon):
            fields["antiphon"] = Raw(beside)
        return _json(fields)


def _index_of(delta: Delta) -> int:
    """The choice that a delta belongs to; what is beside all deltas is the first's."""
    return 0 if isinstance(delta, Extra | UsageDelta) else delta.index
