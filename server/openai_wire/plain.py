"""An OpenAI-compatible upstream's plain answer → deltas, or the chunks of a stream."""

from __future__ import annotations

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from server.deltas import Delta, Finished, Opening, Original, TextDelta, Usage, UsageDelta
from server.errors import UpstreamCut, UpstreamEmpty, UpstreamError, UpstreamInvalid
from server.openai_wire import chunks
from server.openai_wire.chunks import Choice, PlainAnswer, RawObject, Said, UsageFields, raw_of
from server.openai_wire.decoder import BROKEN, NO_ERROR, is_nothing, said_deltas, usage_of
from server.openai_wire.errors import is_error_object, upstream_error
from server.openai_wire.json_text import is_too_deep, one_line
from server.openai_wire.mending import ChoiceState, ended_by_calls, made_id
from server.openai_wire.reshaping import reshaped

_REST = Original("openai.completion", b"")


def decode_completion(data: bytes, *, stops_at_calls: bool = False) -> list[Delta]:
    """A plain answer → its deltas; the first bears the whole JSON, for a client who asked for a plain answer.

    With ``stops_at_calls`` a finish reason of ``stop`` means ``tool_calls`` where tools were called.

    Raises ``UpstreamInvalid`` for what is not a completion, ``UpstreamEmpty`` for one without choices or
    without any content, ``UpstreamCut`` for one without a finish reason whose tool calls are not whole, and
    the error's own kind for an error that came with a 200.
    """
    completion, choices, data = _read(data)
    if stops_at_calls:
        data = ended_by_calls(choices, {}, data)
    return _plain_text(completion, choices, data) or _completion_deltas(completion, choices, data)


def completion_as_chunks(data: bytes) -> list[bytes]:
    """A plain answer that came where a stream was asked for, as chunks: one a choice, every field kept.

    Raises what ``decode_completion`` raises for what is not a completion.
    """
    _, choices, data = _read(data)
    fields = chunks.fields_of(one_line(data))
    raw_choices = chunks.objects(fields["choices"])
    fields["object"] = Raw(b'"chat.completion.chunk"')
    made = []
    for place, (choice, raw) in enumerate(zip(choices, raw_choices, strict=True)):
        said = _message_of(choice, raw)
        if calls := (choice.message or choice.delta or Said()).tool_calls:
            raw_calls = chunks.objects(said["tool_calls"])[: len(calls)]
            said["tool_calls"] = raw_of([{**one, "index": raw_of(at)} for at, one in enumerate(raw_calls)])
        raw = {key: value for key, value in raw.items() if key != "message"}
        raw |= {"index": raw_of(place if choice.index is None else choice.index), "delta": raw_of(said)}
        made.append(msgspec.json.encode(fields | {"choices": raw_of([raw])}))
        fields.pop("usage", None)
    return made


def _read(data: bytes) -> tuple[PlainAnswer, list[Choice], bytes]:
    """A completion, its choices, and its bytes in a shape that the structs take."""
    data = data.strip()
    if is_too_deep(data):
        raise UpstreamInvalid("The upstream's answer nests too deep to be read; try again later.")
    try:
        completion = chunks.decode_plain(data)
    except msgspec.ValidationError:
        shaped = reshaped(data)
        if shaped is None:
            raise upstream_error(200, data) from None
        completion, data = chunks.decode_plain(shaped), shaped
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid("The upstream's answer is not JSON; try again later.") from None
    if isinstance(completion.error, Raw) and bytes(completion.error) not in NO_ERROR:
        raise upstream_error(200, data)
    if not completion.choices:
        if is_error_object(chunks.value_of(data)):
            raise upstream_error(200, data)
        if isinstance(completion.choices, list):
            raise UpstreamEmpty("The upstream answered without any choice; try again later.")
        raise UpstreamInvalid("The upstream's answer is not a chat completion; try again later.")
    if broken := BROKEN.intersection(choice.finish_reason or "" for choice in completion.choices):
        raise UpstreamError(f"The upstream broke its answer off ({min(broken)}); try again.")
    if any(choice.message is None and choice.delta is None for choice in completion.choices):
        raise UpstreamInvalid("The upstream's answer holds no message; try again later.")
    return completion, completion.choices, data


def _plain_text(completion: PlainAnswer, choices: list[Choice], data: bytes) -> list[Delta] | None:
    """The road that nearly every completion takes: one choice, text, a finish reason, usage."""
    choice, usage = choices[0], completion.usage
    said = choice.message
    if (
        len(choices) > 1
        or choice.index != 0
        or not choice.finish_reason
        or not isinstance(usage, UsageFields)
        or said is None
        or not (said.role and said.content)
        or said.tool_calls
        or said.refusal
        or said.reasoning_content
        or said.reasoning
    ):
        return None
    prompt, completed = chunks.figure(usage.prompt_tokens), chunks.figure(usage.completion_tokens)
    total = chunks.figure(usage.total_tokens)
    if prompt is None or completed is None or total is None:
        return None
    return [
        TextDelta(said.content, 0, Original("openai.completion", data, completion.whole_name())),
        Finished(choice.finish_reason, 0, _REST),
        # The figures stand in the whole body, which travels along; no need to cut them out of it.
        UsageDelta(Usage(prompt, completed, total), _REST),
    ]


def _completion_deltas(completion: PlainAnswer, choices: list[Choice], data: bytes) -> list[Delta]:
    raw_choices = chunks.objects(chunks.fields_of(data)["choices"])
    deltas: list[Delta] = []
    whole: list[RawObject] = []
    states: list[ChoiceState] = []
    own_reason = False
    for place, (choice, raw) in enumerate(zip(choices, raw_choices, strict=True)):
        ended = bool(choice.finish_reason)
        own_reason |= ended
        whole.append(_fill_in(choice, raw, place, data))
        states.append(ChoiceState())
        deltas += [Opening(choice.index or 0), *said_deltas(choice, states[-1])]
        if not ended and states[-1].calls.unfinished:
            raise UpstreamCut("The upstream's answer was cut off within a tool call; try again.")
    if whole != raw_choices:
        data = chunks.edit_object(data, lambda fields: fields.update(choices=raw_of(whole)))
    usage = _usage_of(completion, choices, data, raw_choices)
    if not any(state.content for state in states):
        reasons = {state.finish for state in states} if own_reason else set()
        if is_nothing(reasons, usage):
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
    first = replace(deltas[0], original=Original("openai.completion", data))
    made = [first, *(replace(delta, original=_REST) for delta in deltas[1:])]
    return made if usage is None else [*made, UsageDelta(usage)]


def _fill_in(choice: Choice, raw: RawObject, place: int, seed: bytes) -> RawObject:
    """What a choice lacks is put into it, in the struct and in the fields that are returned."""
    said = choice.message or choice.delta or Said()
    message = _message_of(choice, raw)
    choice.message, choice.delta = said, None
    if not said.role:
        message = {"role": Raw(b'"assistant"')} | {k: v for k, v in message.items() if k != "role"}
    message.setdefault("content", Raw(b"null"))
    if said.tool_calls:
        raw_calls = chunks.objects(message["tool_calls"])
        for position, (call, fields) in enumerate(zip(said.tool_calls, raw_calls, strict=True)):
            call.index = position
            call.id = call.id or made_id(seed, position)
            fields |= {"id": raw_of(call.id), "type": raw_of(call.type or "function")}
        message["tool_calls"] = raw_of(raw_calls)
    filled = {"index": raw["index"]} if choice.index is not None else {"index": raw_of(place)}
    if choice.index is None:
        choice.index = place
    filled |= {key: value for key, value in raw.items() if key not in ("index", "delta", "message")}
    if not choice.finish_reason:
        choice.finish_reason = "tool_calls" if said.tool_calls else "stop"
        filled["finish_reason"] = raw_of(choice.finish_reason)
    return filled | {"message": raw_of(message)}


def _message_of(choice: Choice, raw: RawObject) -> RawObject:
    return chunks.fields_of(raw["message" if choice.message is not None else "delta"])


def _usage_of(
    completion: PlainAnswer, choices: list[Choice], data: bytes, raw_choices: list[RawObject]
) -> Usage | None:
    if isinstance(completion.usage, UsageFields):
        return usage_of(completion.usage, bytes(chunks.fields_of(data)["usage"]))
    for choice, raw in zip(choices, raw_choices, strict=True):
        if isinstance(choice.usage, UsageFields):
            return usage_of(choice.usage, bytes(raw["usage"]))
    return None
