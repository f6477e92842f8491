"""Spark's wire, both ways: the signed URL, the request's frame, frames → deltas, codes → errors.

No socket, no task, no clock. One connection carries one chat: dial ``signed_url``, send ``request_frame``'s
data as a text frame, hand every frame to a ``SparkProtocol`` until it is done, then close. The parts are in
``server/spark``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from server.deltas import (
    Delta,
    Extra,
    Finished,
    FinishReason,
    Opening,
    Original,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
)
from server.errors import ServerError, UpstreamCut, UpstreamEmpty
from server.spark import codes
from server.spark.codes import credentials_refused, handshake_error, is_clock_refusal
from server.spark.frames import (
    Frame,
    FunctionCall,
    Item,
    Payload,
    Source,
    UsageText,
    decode_frame,
    decode_sources,
)
from server.spark.models import (
    MODELS,
    SparkModel,
    assistant,
    canonical_name,
    find_model,
    fine_tuned,
    served_as,
    with_overrides,
)
from server.spark.parameters import SparkOptions
from server.spark.request import MAX_FRAME_BYTES, SparkRequest, end_user_id, request_frame
from server.spark.signing import Credentials, clock_offset, signed_url
from server.spark.text import PairJoiner, StopCutter, whole

__all__ = [
    "MAX_FRAME_BYTES",
    "MODELS",
    "Credentials",
    "SparkModel",
    "SparkOptions",
    "SparkProtocol",
    "SparkRequest",
    "assistant",
    "canonical_name",
    "clock_offset",
    "credentials_refused",
    "end_user_id",
    "find_model",
    "fine_tuned",
    "handshake_error",
    "is_clock_refusal",
    "request_frame",
    "served_as",
    "signed_url",
    "with_overrides",
]


class SparkProtocol:
    """One answer of Spark's: frames in, deltas out.

    ``answer_id`` is unique; the ids of tool calls are made of it, for Spark gives none. ``complete`` is true
    from the last frame on: what moderation has to say may still follow, as the vendor does not tell whether
    it comes before or after. ``done`` is true when nothing more is to be read. Call ``closed`` then, when the
    socket closed, or when it is complete and was listened to for long enough: it gives the answer's end, or
    raises if it is not whole. ``sid`` is Spark's name of the session, ``sources`` what its web search found,
    ``question_tokens`` a figure of its own. ``model`` is who answers, for ``legacy_fields`` only.
    """

    def __init__(
        self,
        *,
        answer_id: str,
        max_tokens: int | None = None,
        stops: Sequence[str] = (),
        callers_own: bool = False,
        options: SparkOptions | None = None,
        model: SparkModel | None = None,
    ) -> None:
        self.done = False
        self.complete = False
        self.sid = ""
        self.sources: list[Source] = []
        self.question_tokens: int | None = None
        self._answer_id = answer_id
        self._max_tokens = max_tokens
        self._callers_own = callers_own
        self._options = options or SparkOptions()
        self._model = model
        self._opened = False
        self._spoken = False  # did the model say anything?
        self._calls = 0
        self._warned = False
        self._failed: ServerError | None = None
        self._usage: UsageText | None = None
        self._text = PairJoiner()
        self._reasoning = PairJoiner()
        self._cutter = StopCutter(stops)

    @classmethod
    def answering(
        cls,
        request: SparkRequest,
        *,
        answer_id: str,
        callers_own: bool = False,
        options: SparkOptions | None = None,
    ) -> SparkProtocol:
        """The protocol for the answer to ``request``."""
        return cls(
            answer_id=answer_id,
            max_tokens=request.max_tokens,
            stops=request.stops,
            callers_own=callers_own,
            options=options,
            model=request.model,
        )

    def receive(self, frame: str | bytes) -> Sequence[Delta]:
        """The deltas that one frame brings, oldest first; behind the last frame only moderation counts.

        Raises ``UpstreamInvalid`` for what is no frame, and the error that a code stands for. Where text was
        still held back when the error came, that is given first and ``closed`` raises.
        """
        if self.done:
            return ()
        if self.complete:
            return self._moderate(frame)
        try:
            return self._opening(self._take(decode_frame(frame)))
        except ServerError as error:
            self.done = True
            self._failed = error
            if held := self._flush():
                return self._opening(held)
            raise

    def closed(self) -> Sequence[Delta]:
        """The socket closed, or ``done`` is true: the deltas that end the answer, if it still lacks an end.

        Raises the error that ended it, or ``UpstreamCut`` if it was cut off before its last frame.
        """
        if self._failed is not None:
            raise self._failed
        if self.done:
            return ()
        if self.complete:
            return self._opening(self._end(self._reason()))
        if self._warned and self._spoken:  # the warning comes after all results
            return self._opening(self._end(self._options.warned))
        self.done = True
        self._failed = UpstreamCut("Spark closed the connection before the answer's last frame; try again.")
        raise self._failed

    def _take(self, frame: Frame) -> list[Delta]:
        header = frame.header
        self.sid = whole(header.sid or self.sid)
        if header.code not in (codes.OK, codes.WARNED):
            if header.code in codes.MODERATED and self._spoken:
                return self._end("content_filter")
            raise self._error(frame)
        deltas = self._read(frame.payload) if frame.payload else []
        if header.code == codes.WARNED:
            self._warned = True
            if not self._spoken and frame.is_last:
                raise self._error(frame)
        if not self.done and frame.is_last:
            if self._warned:
                return deltas + self._end(self._reason())
            self._require_content()
            self.complete = True
            deltas += self._flush()
        return deltas

    def _moderate(self, frame: str | bytes) -> Sequence[Delta]:
        """What comes behind the last frame: a verdict on what was said, or its figures."""
        try:
            late = decode_frame(frame)
        except ServerError:
            return ()
        if late.header.code == codes.WARNED:
            self._warned = True
            deltas = self._read(late.payload) if late.payload else []
            return deltas if self.done else deltas + self._end(self._reason())
        if late.header.code == codes.OK and late.payload and self._usage is None:
            self._usage = late.payload.usage.text if late.payload.usage else None
        return self._end("content_filter") if late.header.code in codes.MODERATED else ()

    def _opening(self, deltas: list[Delta]) -> list[Delta]:
        """The same, led by the answer's opening if they are the first."""
        if deltas and not self._opened:
            self._opened = True
            return [Opening(), *self._legacy(), *deltas]
        return deltas

    def _legacy(self) -> list[Delta]:
        """What older gateways wrote beside their answers, if that is wanted."""
        if not self._options.legacy_fields or self._model is None:
            return []
        fields = {"version": self._model.version, "domain": self._model.domain}
        chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}
        return [Extra(Original("openai.chunk", msgspec.json.encode(chunk | fields)))]

    def _read(self, payload: Payload) -> list[Delta]:
        deltas: list[Delta] = []
        for plugin in (payload.plugins.text if payload.plugins else None) or ():
            deltas += self._cite(decode_sources(plugin.content))
        if payload.usage and payload.usage.text:
            self._usage = payload.usage.text
            self.question_tokens = self._usage.question_tokens
        for item in (payload.choices.text if payload.choices else None) or ():
            deltas += self._say(item)
            if self._cutter.hit:
                return deltas + self._end("stop")
        return deltas

    def _say(self, item: Item) -> list[Delta]:
        deltas: list[Delta] = []
        self._spoken |= bool(item.content or item.reasoning_content or item.calls)
        if thought := self._reasoning.feed(item.reasoning_content or ""):
            deltas.append(ReasoningDelta(thought))
        if text := self._cutter.feed(self._text.feed(item.content or "")):
            deltas.append(TextDelta(text))
        return deltas + [self._call(call) for call in item.calls]

    def _call(self, call: FunctionCall) -> Delta:
        """A call comes whole with its name; a piece without one continues the call before."""
        arguments = whole(call.text)
        if not call.name and self._calls:
            return ToolCallDelta(self._calls - 1, arguments=arguments)
        position = self._calls
        self._calls += 1
        id = f"call_{self._answer_id}_{position}"
        return ToolCallDelta(position, id, whole(call.name or ""), arguments)

    def _cite(self, sources: list[Source]) -> list[Delta]:
        """Sources as OpenAI's annotations; they say nothing, so a failure may still be a status."""
        if not sources:
            return []
        cited = [
            {"index": at, "type": "url_citation", "url_citation": {"url": one.url, "title": one.title}}
            for at, one in enumerate(sources, len(self.sources))  # for clients that join the pieces
        ]
        self.sources += sources
        chunk = {"choices": [{"index": 0, "delta": {"annotations": cited}, "finish_reason": None}]}
        return [Extra(Original("openai.chunk", msgspec.json.encode(chunk)))]

    def _reason(self) -> FinishReason:
        if self._warned:
            return self._options.warned
        if self._calls:
            return "tool_calls"
        used = self._usage.completion_tokens if self._usage else None
        # Spark does not tell that it ran out of tokens; as many as were allowed is its only sign.
        return "length" if self._max_tokens and used is not None and used >= self._max_tokens else "stop"

    def _require_content(self) -> None:
        if not self._spoken and not (self._usage and self._usage.completion_tokens):
            raise UpstreamEmpty("Spark answered without any content; try again later.")

    def _end(self, reason: FinishReason) -> list[Delta]:
        self._require_content()
        self.done = True
        deltas: list[Delta] = [*self._flush(), Finished(reason)]
        if self._usage is not None:
            deltas.append(UsageDelta(self._usage.usage(legacy=self._options.legacy_fields)))
        return deltas

    def _flush(self) -> list[Delta]:
        """What was held back: the halves of characters, and what might have grown into a stop word."""
        deltas: list[Delta] = []
        if thought := self._reasoning.flush():
            deltas.append(ReasoningDelta(thought))
        if text := self._cutter.feed(self._text.flush()) + self._cutter.flush():
            deltas.append(TextDelta(text))
        return deltas

    def _error(self, frame: Frame) -> ServerError:
        header = frame.header
        said = whole(header.message or "")
        return codes.frame_error(header.code, said, self.sid, callers_own=self._callers_own)
