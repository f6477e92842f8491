"""An OpenAI-compatible upstream's answer → deltas, tolerant of the dialects seen in the wild.

``ChunkDecoder`` takes the data of each SSE event, ``decode_completion`` a whole plain answer. No socket, no
clock. Quirks are mended here, in the bytes that a delta carries on, so that an encoder of the same dialect
may relay them: the role stands in the first chunk of a choice only, a finish reason is a word or null, tool
calls have an index and say their id once, text and reasoning do not share a delta, and usage stands apart.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    Original,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import UpstreamCut, UpstreamEmpty, UpstreamInvalid
from server.openai_wire import chunks
from server.openai_wire.chunks import Choice, Chunk, RawObject, Said, ToolCall, raw_of
from server.openai_wire.errors import is_error_object, upstream_error

_DONE = b"[DONE]"
_NULL_USAGE = b',"usage":null}'
_NULL = Raw(b"null")


class _ChoiceState:
    """What has been seen of one choice."""

    __slots__ = ("calls", "content", "finished", "opened")

    def __init__(self) -> None:
        self.opened = False
        self.content = False  # any text, reasoning, refusal or tool call
        self.finished = False
        self.calls: list[str | None] = []  # ids of the tool calls, by position


class ChunkDecoder:
    """One streamed answer. Feed ``chunk`` with each event's data, then call ``eof`` once.

    ``skipped`` counts garbage lines. After ``[DONE]`` (``done``) further data is ignored.
    """

    def __init__(self) -> None:
        self.done = False
        self.skipped = 0
        self._choices: dict[int, _ChoiceState] = {}
        self._usage: Usage | None = None
        self._held: list[Delta] = []  # a finish without content: an answer, unless usage says that it is none

    def chunk(self, data: bytes) -> list[Delta]:
        """The deltas of one event's data, oldest first.

        Raises a ``ServerError`` if the event tells of an error.
        """
        if self.done:
            return []
        if data.strip() == _DONE:
            self.done = True
            return []
        try:
            chunk = chunks.decode_chunk(data)
        except msgspec.ValidationError:
            return self._odd(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return []
        # The road that nearly every chunk takes: one choice, some text, nothing else.
        if (
            type(chunk.choices) is list
            and len(chunk.choices) == 1
            and (chunk.usage is UNSET or chunk.usage is None)
            and chunk.error is UNSET
        ):
            choice = chunk.choices[0]
            said = choice.delta
            state = self._choices.get(choice.index)
            if (
                said is not None
                and said.content
                and choice.finish_reason is None
                and said.role is None
                and said.reasoning_content is None
                and said.reasoning is None
                and said.refusal is None
                and said.tool_calls is None
                and choice.message is None
                and choice.usage is UNSET
                and state is not None
                and state.opened
                and not state.finished
            ):
                state.content = True
                if chunk.usage is None:
                    data = without_usage(data)
                return [TextDelta(said.content, choice.index, Original("openai.chunk", data))]
        return self._any(chunk, data)

    def eof(self) -> list[Delta]:
        """The stream ended: what was held back, finish reasons that ``[DONE]`` implies, and the usage.

        Raises ``UpstreamCut`` if a choice has not ended, ``UpstreamEmpty`` if nothing was said,
        ``UpstreamInvalid`` if there was nothing but garbage.
        """
        if not self._choices:
            if self.skipped:
                raise UpstreamInvalid("The upstream's stream held nothing that can be read; try again later.")
            raise UpstreamEmpty("The upstream's stream was empty; try again later.")
        deltas = self._held
        self._held = []
        for index, state in self._choices.items():
            if not state.finished:
                if not self.done:
                    raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
                deltas.append(Finished("tool_calls" if state.calls else "stop", index))
        if not any(state.content for state in self._choices.values()) and self._says_nothing_used(deltas):
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
        if self._usage is not None:
            deltas.append(UsageDelta(self._usage))
        return deltas

    def _says_nothing_used(self, deltas: list[Delta]) -> bool:
        stopped = all(one.reason == "stop" for one in deltas if isinstance(one, Finished))
        return stopped and self._usage is not None and self._usage.completion_tokens == 0

    def _odd(self, data: bytes) -> list[Delta]:
        """A JSON value in which a known field has an unknown type."""
        chunk = chunks.lenient_chunk(data)
        if chunk is None:
            self.skipped += 1
            return []
        return self._any(chunk, data)

    def _any(self, chunk: Chunk, data: bytes) -> list[Delta]:
        """Any chunk at all, step by step."""
        if chunk.error is not UNSET and bytes(chunk.error) not in (b"null", b"false", b'""'):
            raise upstream_error(200, data)
        if chunk.usage is not UNSET:
            self._note_usage(chunk.usage, data)
            data = without_usage(data)
        if not isinstance(chunk.choices, list):
            if is_error_object(msgspec.json.decode(data)):
                raise upstream_error(200, data)
            self.skipped += chunk.usage is UNSET
            return []
        if not chunk.choices:
            if isinstance(chunk.usage, chunks.UsageFields):
                return []  # the usage chunk: the encoder writes its own, if the client wants one
            known = {"id", "object", "created", "model", "choices", "usage"}
            extra = set(chunks.fields_of(data)) - known
            return [Extra(Original("openai.chunk", data))] if extra and self._choices else []
        if len(chunk.choices) > 1 and any(self._needs_mending(choice) for choice in chunk.choices):
            # One chunk a choice: then each can be mended by itself.
            return [delta for one in _split_choices(data) for delta in self.chunk(one)]
        if len(chunk.choices) > 1:
            return _share(data, [self._read(choice) for choice in chunk.choices])
        choice = chunk.choices[0]
        if choice.usage is not UNSET:
            self._note_usage(
                choice.usage,
                bytes(chunks.objects(chunks.fields_of(data)["choices"])[0].get("usage", _NULL)),
                inner=True,
            )
        if self._needs_mending(choice):
            return self._mended(choice, data)
        return self._hold(_share(data, [self._read(choice)]))

    def _hold(self, deltas: list[Delta]) -> list[Delta]:
        """Keep back a finish without any content: the usage that follows tells whether it is an answer."""
        if self._held or any(isinstance(delta, Finished) and delta.reason == "stop" for delta in deltas):
            if not any(state.content for state in self._choices.values()):
                self._held += deltas
                return []
            deltas, self._held = self._held + deltas, []
        return deltas

    def _note_usage(self, usage: chunks.UsageFields | None, data: bytes, *, inner: bool = False) -> None:
        if usage is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
            return
        raw = data if inner else bytes(chunks.fields_of(data)["usage"])
        prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
        total = usage.total_tokens if usage.total_tokens is not None else prompt + completion
        self._usage = Usage(prompt, completion, total, raw=raw)

    def _state(self, index: int) -> _ChoiceState:
        return self._choices.setdefault(index, _ChoiceState())

    def _needs_mending(self, choice: Choice) -> bool:
        """Must the bytes be changed before a client of the same dialect may see them?"""
        said, state = choice.delta, self._choices.get(choice.index)
        if said is None or choice.message is not None or choice.usage is not UNSET:
            return True
        opened = state is not None and state.opened
        if state is not None and state.finished:
            return True
        if (said.role is not None) == opened or choice.finish_reason == "":
            return True
        if said.content and (said.reasoning_content or said.reasoning):
            return True
        calls = state.calls if state is not None else []
        return any(_call_needs_mending(call, calls) for call in said.tool_calls or ())

    def _read(self, choice: Choice) -> list[Delta]:
        """The deltas of a choice whose bytes are in order."""
        state, said, index = self._state(choice.index), choice.delta or Said(), choice.index
        deltas: list[Delta] = []
        if not state.opened:
            state.opened = True
            deltas.append(Opening(index))
        if said.reasoning_content:
            deltas.append(ReasoningDelta(said.reasoning_content, index))
        elif said.reasoning:
            deltas.append(ReasoningDelta(said.reasoning, index, "reasoning"))
        if said.content:
            deltas.append(TextDelta(said.content, index))
        if said.refusal:
            deltas.append(RefusalDelta(said.refusal, index))
        deltas += [_read_call(call, state, index) for call in said.tool_calls or ()]
        if any(not isinstance(delta, Opening) for delta in deltas):
            state.content = True
        if choice.finish_reason:
            state.finished = True
            deltas.append(Finished(choice.finish_reason, index))
        return deltas or [Extra()]

    def _mended(self, choice: Choice, data: bytes) -> list[Delta]:
        """Change what must be changed, then read the result, which is one chunk or two."""
        state = self._state(choice.index)
        if state.finished:
            return []  # B70: the finish reason was the end of this choice
        raw_choice = chunks.objects(chunks.fields_of(data)["choices"])[0]
        said = choice.delta
        if choice.message is not None:
            whole = raw_choice.pop("message")
            # Minimax repeats the whole message in its last chunk; what was streamed is not doubled.
            if not state.content and not (said and (said.content or said.tool_calls)):
                said, raw_choice["delta"] = choice.message, whole
        if said is None:
            said = Said()
            raw_choice["delta"] = Raw(b"{}")
        raw_choice.pop("usage", None)
        delta = chunks.fields_of(raw_choice["delta"])
        if state.opened:
            delta.pop("role", None)
        elif said.role is None:
            delta = {"role": Raw(b'"assistant"')} | delta
        if said.tool_calls:
            delta["tool_calls"] = raw_of(_mend_calls(said.tool_calls, delta["tool_calls"], state))
        reason = choice.finish_reason or None
        raw_choice["finish_reason"] = raw_of(reason)
        made: list[Delta] = []
        if said.content and (said.reasoning_content or said.reasoning):
            first = {key: value for key, value in delta.items() if key not in ("content", "tool_calls")}
            made += self._read_again(data, raw_choice | {"delta": raw_of(first), "finish_reason": _NULL})
            delta = {k: v for k, v in delta.items() if k not in ("reasoning_content", "reasoning", "role")}
        raw_choice["delta"] = raw_of(delta)
        return made + self._read_again(data, raw_choice)

    def _read_again(self, data: bytes, raw_choice: RawObject) -> list[Delta]:
        def put(fields: RawObject) -> None:
            fields["choices"] = raw_of([raw_choice])

        mended = chunks.edit_object(data, put)
        try:
            choice = chunks.decode_chunk(mended).choices[0]  # type: ignore[index]
        except msgspec.ValidationError:
            lenient = chunks.lenient_chunk(mended)
            assert lenient is not None
            assert isinstance(lenient.choices, list)
            choice = lenient.choices[0]
        return self._hold(_share(mended, [self._read(choice)]))


def decode_completion(data: bytes) -> list[Delta]:
    """A plain answer → its deltas; the first bears the whole JSON, for a client who asked for a plain answer.

    Raises ``UpstreamInvalid`` for what is not a completion, ``UpstreamEmpty`` for one without choices, and
    the error's own kind for an error that came with a 200.
    """
    data = data.strip()
    try:
        completion = chunks.decode_chunk(data)
    except msgspec.ValidationError:
        lenient = chunks.lenient_chunk(data)
        if lenient is None:
            raise upstream_error(200, data) from None
        completion = lenient
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid("The upstream's answer is not JSON; try again later.") from None
    if not isinstance(completion.choices, list):
        if is_error_object(msgspec.json.decode(data)):
            raise upstream_error(200, data)
        raise UpstreamInvalid("The upstream's answer is not a chat completion; try again later.")
    if not completion.choices:
        raise UpstreamEmpty("The upstream answered without any choice; try again later.")
    return _plain_text(completion, data) or _completion_deltas(completion, data)


def _plain_text(completion: Chunk, data: bytes) -> list[Delta] | None:
    """The road that nearly every completion takes: one choice, text, a finish reason, usage."""
    choices, usage = completion.choices, completion.usage
    if not (isinstance(choices, list) and len(choices) == 1 and isinstance(usage, chunks.UsageFields)):
        return None
    said, reason = choices[0].message, choices[0].finish_reason
    if (
        said is None
        or not said.content
        or not reason
        or said.tool_calls
        or said.refusal
        or said.reasoning_content
        or said.reasoning
        or usage.prompt_tokens is None
        or usage.completion_tokens is None
        or usage.total_tokens is None
        or choices[0].index
    ):
        return None
    # The figures stand in the whole body, which travels along; no need to cut them out of it.
    counted = Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    rest = Original("openai.completion", b"")
    return [
        TextDelta(said.content, 0, Original("openai.completion", data)),
        Finished(reason, 0, rest),
        UsageDelta(counted, rest),
    ]


def _completion_deltas(completion: Chunk, data: bytes) -> list[Delta]:
    assert isinstance(completion.choices, list)
    reader = ChunkDecoder()
    groups: list[list[Delta]] = []
    mended = False
    for place, choice in enumerate(completion.choices):
        said = choice.message or choice.delta
        if said is None:
            raise UpstreamInvalid("The upstream's answer holds no message; try again later.")
        if not choice.finish_reason:
            mended = True
            choice.finish_reason = "tool_calls" if said.tool_calls else "stop"
        choice.delta, choice.message = said, None
        if len(completion.choices) > 1 and not choice.index:
            choice.index = place
        for position, call in enumerate(said.tool_calls or ()):
            call.index = position
        groups.append(reader._read(choice))
    if mended:
        reasons = iter([choice.finish_reason for choice in completion.choices])

        def finish(fields: RawObject) -> RawObject:
            return fields | {"finish_reason": raw_of(next(reasons))}

        data = chunks.edit_choices(data, finish)
    spent = completion.usage if isinstance(completion.usage, chunks.UsageFields) else None
    if (
        spent is not None
        and spent.completion_tokens == 0
        and not any(s.content for s in reader._choices.values())
    ) and all(choice.finish_reason == "stop" for choice in completion.choices):
        raise UpstreamEmpty("The upstream answered without any content; try again later.")
    original = Original("openai.completion", data)
    deltas = [
        msgspec.structs.replace(delta, original=Original("openai.completion", b""))
        for group in groups
        for delta in group
    ]
    deltas[0] = msgspec.structs.replace(deltas[0], original=original)
    reader._note_usage(spent, data)
    return [*deltas, UsageDelta(reader._usage)] if reader._usage is not None else deltas


def completion_as_chunks(data: bytes) -> list[bytes]:
    """A plain answer that came where a stream was asked for, as chunks: one a choice, every field kept."""
    fields = chunks.fields_of(data.strip())
    choices = chunks.objects(fields.get("choices", Raw(b"[]")))
    fields["object"] = Raw(b'"chat.completion.chunk"')
    made = []
    for choice in choices:
        changed = {("delta" if key == "message" else key): value for key, value in choice.items()}
        made.append(msgspec.json.encode(fields | {"choices": raw_of([changed])}))
        fields.pop("usage", None)
    return made


def without_usage(data: bytes) -> bytes:
    """A chunk without its ``usage``, every other byte as it was."""
    if data.endswith(_NULL_USAGE) and data.count(b'"usage"') == 1:
        return data[: -len(_NULL_USAGE)] + b"}"

    def remove(fields: RawObject) -> None:
        fields.pop("usage", None)

    return chunks.edit_object(data, remove)


def _share(data: bytes, groups: list[list[Delta]]) -> list[Delta]:
    """Give the first delta the chunk's bytes and the others an original without data."""
    deltas = [delta for group in groups for delta in group]
    bearing, rest = Original("openai.chunk", data), Original("openai.chunk", b"")
    return [
        msgspec.structs.replace(delta, original=rest if place else bearing)
        for place, delta in enumerate(deltas)
    ]


def _split_choices(data: bytes) -> list[bytes]:
    fields = chunks.fields_of(data)
    return [
        msgspec.json.encode(fields | {"choices": raw_of([choice])})
        for choice in chunks.objects(fields["choices"])
    ]


def _call_needs_mending(call: ToolCall, calls: list[str | None]) -> bool:
    if call.index is None:
        return True
    known = call.index < len(calls)
    return known == (call.id is not None) or (not known and call.type is None)


def _mend_calls(calls: list[ToolCall], raw: Raw, state: _ChoiceState) -> list[RawObject]:
    """Tool calls with an index each, saying id, type and name once (B73)."""
    mended = []
    seen = list(state.calls)
    for call, fields in zip(calls, chunks.objects(raw), strict=True):
        index = call.index
        if index is None and call.id is not None:
            index = seen.index(call.id) if call.id in seen else len(seen)
        elif index is None:
            index = max(0, len(seen) - 1)
        fields = {"index": raw_of(index)} | {key: value for key, value in fields.items() if key != "index"}
        if index < len(seen):
            fields.pop("id", None)
            fields.pop("type", None)
            function = chunks.fields_of(fields.get("function", Raw(b"{}")))
            function.pop("name", None)
            fields["function"] = raw_of(function)
        else:
            seen += [None] * (index - len(seen)) + [call.id]
            fields.setdefault("type", Raw(b'"function"'))
            if call.id is None:
                fields["id"] = raw_of(f"call_{index}")
        mended.append(fields)
    return mended


def _read_call(call: ToolCall, state: _ChoiceState, index: int) -> ToolCallDelta:
    position = call.index or 0
    if position >= len(state.calls):
        state.calls += [None] * (position - len(state.calls)) + [call.id]
    function = call.function
    return ToolCallDelta(
        position,
        call.id,
        function.name if function else None,
        (function.arguments if function else None) or "",
        index,
    )
