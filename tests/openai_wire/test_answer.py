"""The bytes of an answer, in any pieces: what they mean, and when it is over."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import Delta, Finished, Opening, ReasoningDelta, TextDelta, UsageDelta
from server.errors import (
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
)
from server.openai_wire.answer import MAX_ANSWER_BYTES, AnswerReader

BOM = b"\xef\xbb\xbf"


def chunk(text: str | None = None, *, finish: str | None = None, role: bool = False) -> bytes:
    delta: dict[str, object] = {"role": "assistant"} if role else {}
    delta |= {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "1", "choices": [choice]}, ensure_ascii=False).encode()


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


STREAM = b"".join(
    [
        event(chunk("", role=True)),
        event(chunk("Hé\u2028l")),
        event(chunk("lo 😀")),
        event(chunk(finish="stop")),
        event(b'{"id":"1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'),
        b"data: [DONE]\n\n",
    ]
)
TEXT = "Hé\u2028llo 😀"
COMPLETION = json.dumps(
    {
        "id": "1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    },
    ensure_ascii=False,
).encode()
ERROR = b'{"error":{"message":"slower","type":"rate_limit_error","code":"rate_limit_exceeded"}}'


def read(
    pieces: Iterable[bytes],
    *,
    stream: bool = True,
    mend: Callable[[bytes], bytes | None] | None = None,
) -> list[Delta]:
    """The deltas of a whole answer, read as an upstream reads it."""
    reader = AnswerReader(stream=stream, mend=mend)
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += reader.feed(piece)
        if reader.done:
            break
    return deltas + reader.eof()


def until_it_failed(pieces: Iterable[bytes], *, stream: bool = True) -> tuple[str, ServerError]:
    """The text that came before the error, and the error."""
    reader = AnswerReader(stream=stream)
    deltas: list[Delta] = []
    try:
        for piece in pieces:
            deltas += reader.feed(piece)
            if reader.done:
                break
        reader.eof()
    except ServerError as error:
        return text(deltas), error
    raise AssertionError("the answer did not fail")


def text(deltas: Iterable[Delta]) -> str:
    return "".join([delta.text for delta in deltas if type(delta) is TextDelta])


def meaning(deltas: Iterable[Delta]) -> tuple[str, list[str], list[int]]:
    deltas = list(deltas)
    return (
        text(deltas),
        [delta.reason for delta in deltas if type(delta) is Finished],
        [delta.usage.total_tokens for delta in deltas if type(delta) is UsageDelta],
    )


WHOLE = (TEXT, ["stop"], [3])
FORMS = {
    "lf": STREAM,
    "crlf": STREAM.replace(b"\n", b"\r\n"),
    "cr": STREAM.replace(b"\n", b"\r"),
    "no space": STREAM.replace(b"data: ", b"data:"),
    "bom": BOM + STREAM,
    "blank lines first": b"\n\r\n \n" + STREAM,
    "comments": b": hi\n\n" + STREAM.replace(b"data: {", b": ping\n\ndata: {"),
    "other fields": b"retry: 5\n" + STREAM.replace(b"data: {", b"id: 1\nevent: message\nodd\ndata: {"),
    "data over lines": STREAM.replace(b'"choices": ', b'"choices":\ndata: '),
    "no blank line at the end": STREAM[:-2],
    "no end": STREAM.removesuffix(b"data: [DONE]\n\n"),
    "json": COMPLETION,
    "json after a bom": BOM + COMPLETION,
    "json after blanks": b"\n\n \t" + COMPLETION + b"\n\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_an_answer_in_any_form_means_the_same_split_at_every_byte(name: str) -> None:
    data = FORMS[name]
    for stream in (True, False):
        assert meaning(read([data], stream=stream)) == WHOLE
        assert meaning(read([data[at : at + 1] for at in range(len(data))], stream=stream)) == WHOLE
        for at in range(len(data)):
            assert meaning(read([data[:at], data[at:]], stream=stream)) == WHOLE


@given(st.sampled_from(sorted(FORMS)), st.lists(st.integers(0, 2000)), st.booleans())
def test_any_splits_mean_the_same(name: str, cuts: list[int], stream: bool) -> None:
    data = FORMS[name]
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert meaning(read(pieces, stream=stream)) == WHOLE


@given(st.lists(st.binary(max_size=200), max_size=10), st.booleans())
def test_garbage_raises_nothing_but_errors_of_ours(pieces: list[bytes], stream: bool) -> None:
    with contextlib.suppress(ServerError):
        read(pieces, stream=stream)


@given(st.data())
def test_a_stream_with_garbage_between_its_lines_raises_nothing_but_errors_of_ours(
    data: st.DataObject,
) -> None:
    at = data.draw(st.integers(0, len(STREAM)))
    with_garbage = STREAM[:at] + data.draw(st.binary(max_size=50)) + STREAM[at:]
    with contextlib.suppress(ServerError):
        read([with_garbage])


# ── one for the other ──


def test_a_completion_for_a_stream_is_turned_into_chunks_whose_bytes_can_be_relayed() -> None:
    deltas = read([COMPLETION])
    assert type(deltas[0]) is Opening
    originals = [delta.original for delta in deltas if delta.original is not None and delta.original.data]
    assert originals
    for original in originals:
        assert original.form == "openai.chunk"
        assert json.loads(original.data)["object"] == "chat.completion.chunk"


def test_a_completion_for_a_plain_request_keeps_its_bytes() -> None:
    original = read([COMPLETION], stream=False)[0].original
    assert original is not None
    assert (original.form, original.data) == ("openai.completion", COMPLETION)


def test_the_reasoning_of_a_completion_comes_before_its_text() -> None:
    data = COMPLETION.replace(b'"content"', b'"reasoning_content": "hm", "content"')
    kinds = [type(delta) for delta in read([data]) if type(delta) in (ReasoningDelta, TextDelta)]
    assert kinds == [ReasoningDelta, TextDelta]


# ── the end ──


def test_after_done_nothing_counts() -> None:
    reader = AnswerReader(stream=True)
    reader.feed(STREAM + b"event: error\ndata: " + ERROR + b"\n\n" + event(chunk("more")))
    assert reader.done
    assert reader.feed(b"event: error\ndata: " + ERROR + b"\n\n") == []
    reader.eof()


@pytest.mark.parametrize("at", range(0, len(STREAM) - 120, 7))
def test_a_stream_that_ends_too_early_is_cut_or_empty_never_whole(at: int) -> None:
    data = STREAM[:at]
    if b'"stop"' in data and data.index(b'"stop"') + 10 < at:
        assert meaning(read([data]))[1] == ["stop"]
    else:
        _, error = until_it_failed([data])
        assert type(error) in (UpstreamCut, UpstreamEmpty, UpstreamInvalid)


@pytest.mark.parametrize("at", range(1, len(COMPLETION), 5))
@pytest.mark.parametrize("stream", [False, True])
def test_half_a_completion_is_never_an_answer(at: int, stream: bool) -> None:
    _, error = until_it_failed([COMPLETION[:at]], stream=stream)
    assert type(error) is UpstreamInvalid


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b" ", BOM, BOM[:1], BOM + b"\n", b": ping\n\n: ping\n\n", b"data: [DONE]\n\n"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_nothing_is_empty(data: bytes, stream: bool) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        assert type(until_it_failed(pieces, stream=stream)[1]) is UpstreamEmpty


@pytest.mark.parametrize(
    "data", [b"<!doctype html><html>", b"  <html>", BOM + b"<html>", b"\n<?xml version='1.0'?>"]
)
def test_a_web_page_is_invalid_at_its_first_byte_and_not_quoted(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid, match="base_url") as raised:
        AnswerReader(stream=True).feed(data)
    assert "html" not in raised.value.message


@pytest.mark.parametrize(
    "data", [b"[]", b"[1]", b'"text"', b"{}", b'{"ok":true}', b"{", b'{"choices":[]}', b'{"choices":1}']
)
@pytest.mark.parametrize("stream", [False, True])
def test_json_that_is_no_completion_is_no_answer(data: bytes, stream: bool) -> None:
    _, error = until_it_failed([data], stream=stream)
    assert error.status == 502


def test_a_line_of_garbage_is_skipped_and_counted_and_nothing_else_is_invalid() -> None:
    reader = AnswerReader(stream=True)
    assert meaning([*reader.feed(event(b"{garbage") + STREAM), *reader.eof()]) == WHOLE
    assert reader.skipped == 1
    assert type(until_it_failed([event(b"{garbage") * 3])[1]) is UpstreamInvalid


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_a_line_that_is_not_utf_8_is_garbage_wherever_in_it(bad: bytes) -> None:
    odd = event(b'{"vendor":"%b","choices":[{"index":0,"delta":{"content":"x"}}]}' % bad)
    reader = AnswerReader(stream=True)
    assert meaning([*reader.feed(odd + STREAM + odd), *reader.eof()]) == WHOLE
    assert reader.skipped >= 1
    body = COMPLETION.replace(b'"id"', b'"vendor":"%b","id"' % bad)
    assert type(until_it_failed([body], stream=False)[1]) is UpstreamInvalid


# ── errors ──


@pytest.mark.parametrize("name", [b"", b"event: error\n"])
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b"", b"\n\ndata: [DONE]\n\n"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_instead_of_an_answer_is_its_own_kind(name: bytes, end: bytes, stream: bool) -> None:
    data = name + b"data: " + ERROR + end
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        said, error = until_it_failed(pieces, stream=stream)
        assert (said, type(error), error.message) == ("", RateLimited, "slower")


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_an_error_event_of_any_form_is_an_error_even_without_its_blank_line(end: bytes) -> None:
    _, error = until_it_failed(
        [b'event: error\ndata: {"message":"overloaded_error","type":"overloaded"}' + end]
    )
    assert type(error) is Overloaded


@pytest.mark.parametrize(
    "body", [ERROR, b'{"error":"slower"}', b'{"code":1301,"msg":"no"}', b'"error"', b'[{"error":{}}]']
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_as_json_is_no_answer(body: bytes, stream: bool) -> None:
    _, error = until_it_failed([body], stream=stream)
    assert error.status >= 400


@pytest.mark.parametrize("failing", [event(ERROR), b"event: error\n" + event(ERROR)])
def test_what_was_said_before_an_error_is_not_lost_however_the_bytes_are_split(failing: bytes) -> None:
    data = event(chunk("Hel", role=True)) + event(chunk("lo")) + failing + event(chunk("never"))
    for at in range(len(data)):
        said, error = until_it_failed([data[:at], data[at:]])
        assert (said, type(error)) == ("Hello", RateLimited)


def test_an_error_behind_what_was_said_ends_the_reading_at_once() -> None:
    reader = AnswerReader(stream=True)
    assert text(reader.feed(event(chunk("Hel", role=True)) + event(ERROR))) == "Hel"
    assert reader.done
    with pytest.raises(RateLimited):
        reader.eof()


# ── bounds ──


def test_a_megabyte_on_one_line_is_taken_in_pieces() -> None:
    data = event(chunk("x" * 1_000_000, role=True)) + event(chunk(finish="stop"))
    assert len(text(read(data[at : at + 65536] for at in range(0, len(data), 65536)))) == 1_000_000


def test_a_line_without_end_is_invalid() -> None:
    assert "too long" in until_it_failed([b"data: {", *[b"x" * 65536] * 300])[1].message


def test_json_without_end_is_invalid() -> None:
    half = b"[" * (MAX_ANSWER_BYTES // 2)
    assert "too long" in until_it_failed([half, half, b"["], stream=False)[1].message


def test_blank_lines_without_end_are_not_kept() -> None:
    reader = AnswerReader(stream=False)
    for _ in range(100):
        assert reader.feed(b"\n" * 65536) == []
        assert len(reader._start) < 10
    assert meaning([*reader.feed(COMPLETION), *reader.eof()]) == WHOLE


# ── quiet ──


@pytest.mark.parametrize(
    "data", [b": ping\n\n", b":\r\n\r\n", b"\n\n", b": a\r: b\r\r", b": data: x\n\n: b\n\n"]
)
def test_comments_and_blank_lines_are_quiet_however_they_are_split(data: bytes) -> None:
    for at in range(len(data)):
        reader = AnswerReader(stream=True)
        reader.feed(event(chunk("x", role=True)))
        assert not reader.quiet
        for piece in (data[:at], data[at:]):
            if piece:
                assert reader.feed(piece) == []
                assert reader.quiet


@pytest.mark.parametrize("data", [b'data: {"id', b"id: 5\n", b": ping\n\ndata: {", b"retry: 1\n\n"])
def test_other_bytes_are_not(data: bytes) -> None:
    reader = AnswerReader(stream=True)
    reader.feed(event(chunk("x", role=True)))
    reader.feed(b": ping\n\n")
    assert reader.quiet
    assert reader.feed(data) == []
    assert not reader.quiet


def test_the_middle_of_a_long_line_is_not_quiet_although_it_begins_like_a_comment() -> None:
    reader = AnswerReader(stream=True)
    reader.feed(b'data: {"id"')
    assert not reader.quiet
    reader.feed(b': "1",')
    assert not reader.quiet
    reader.feed(b'"choices": [{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n: pi')
    assert not reader.quiet
    assert reader.feed(b"ng data: {") == []
    assert reader.quiet


# ── mending ──


def test_each_events_data_can_be_mended_or_passed_over() -> None:
    def mend(data: bytes) -> bytes | None:
        return None if b"lo" in data else data.replace(b"H", b"J")

    mended = read([STREAM.replace(b"data: [DONE]\n\n", b"")], mend=mend)
    assert meaning(mended) == ("Jé\u2028l", ["stop"], [3])


def test_the_last_event_is_mended_too_if_its_blank_line_is_missing() -> None:
    data = event(chunk("Hi", role=True)) + b"data: " + chunk(finish="stop")
    assert meaning(read([data], mend=lambda data: data.replace(b"stop", b"length")))[1] == ["length"]


def test_an_upstreams_error_is_told_as_an_upstreams() -> None:
    _, error = until_it_failed([b'event: error\ndata: "it broke"\n\n'])
    assert (type(error), error.upstream_status) == (UpstreamError, 502)
