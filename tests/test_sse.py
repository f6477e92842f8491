"""The event stream's promises; each decoding is tried with the bytes split at every position."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.sse import (
    CONTENT_TYPE,
    DONE,
    KEEP_ALIVE,
    MAX_EVENT_BYTES,
    EventTooLarge,
    SSEDecoder,
    SSEEvent,
    comment,
    encode,
)


def decode(chunks: Sequence[bytes]) -> list[SSEEvent]:
    decoder = SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.eof()


def decode_any_split(stream: bytes) -> list[SSEEvent]:
    """Decode ``stream`` whole, in two pieces at each position, and byte by byte; all must agree."""
    events = decode([stream])
    for at in range(len(stream) + 1):
        assert decode([stream[:at], stream[at:]]) == events, f"split at byte {at}"
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == events
    return events


def data_of(stream: bytes) -> list[bytes]:
    return [event.data for event in decode_any_split(stream)]


def reference_events(stream: bytes, *, ended: bool) -> list[SSEEvent]:
    """Decode the slow and plain way: the whole stream at hand, one byte at a time, as the standard reads."""
    lines: list[bytes] = []
    line = b""
    previous = b""
    for byte in (stream[i : i + 1] for i in range(len(stream))):
        if byte == b"\r" or (byte == b"\n" and previous != b"\r"):
            lines.append(line)
            line = b""
        elif byte != b"\n":
            line += byte
        previous = byte
    if ended:
        lines += [line, b""]
    if lines and lines[0].startswith(b"\xef\xbb\xbf"):
        lines[0] = lines[0][3:]

    events: list[SSEEvent] = []
    data: list[bytes] = []
    name, last_id = "", None
    for line in lines:
        if line == b"":
            if data:
                events.append(SSEEvent(b"\n".join(data), name, last_id))
            data, name = [], ""
        colon = line.find(b":")
        field, value = (line, b"") if colon < 0 else (line[:colon], line[colon + 1 :])
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field == b"id" and 0 not in value:
            last_id = value.decode(errors="replace")
    return events


# --- what a stream means ---


def test_one_event_is_its_data() -> None:
    assert decode_any_split(b"data: {}\n\n") == [SSEEvent(b"{}", event="", id=None)]


def test_several_events_in_one_packet_keep_their_order() -> None:
    assert data_of(b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n") == [b"1", b"2", b"[DONE]"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_counts(line_end: bytes) -> None:
    stream = b"event: x|data: 1|data: 2||data: 3||".replace(b"|", line_end)
    assert decode_any_split(stream) == [SSEEvent(b"1\n2", "x"), SSEEvent(b"3")]


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\r\n\r", b"\r\r\n", b"\n\r\n"])
def test_line_ends_may_be_mixed(blank: bytes) -> None:
    assert data_of(b"data: 1" + blank + b"data: 2" + blank) == [b"1", b"2"]


def test_cr_and_lf_are_one_line_end_so_that_no_blank_line_is_seen_between() -> None:
    assert data_of(b"data: 1\r\ndata: 2\r\n\r\n") == [b"1\n2"]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r", b"\n\r"])
def test_an_event_is_given_at_its_blank_line_without_waiting_for_more(end: bytes) -> None:
    assert SSEDecoder().feed(b"data: 1" + end) == [SSEEvent(b"1")]


def test_an_lf_after_a_cr_that_ended_the_last_chunk_is_no_new_line() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: 1\r") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\r") == [SSEEvent(b"1")]
    assert decoder.feed(b"\ndata: 2\n\n") == [SSEEvent(b"2")]


def test_the_space_after_the_colon_is_optional_and_only_one_is_removed() -> None:
    assert data_of(b"data:1\n\ndata: 2\n\ndata:  3\n\ndata:\t4\n\n") == [b"1", b"2", b" 3", b"\t4"]


def test_data_lines_are_joined_by_lf() -> None:
    assert data_of(b"data: {\ndata:\ndata: }\n\n") == [b"{\n\n}"]


def test_empty_data_is_an_event_with_or_without_the_colon() -> None:
    assert data_of(b"data\n\ndata\ndata\n\ndata:\n\n") == [b"", b"\n", b""]


def test_a_byte_order_mark_is_removed_at_the_start_only() -> None:
    assert data_of(b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: \xef\xbb\xbf3\n\n") == [
        b"1",
        b"\xef\xbb\xbf3",
    ]
    assert data_of(b"\n\xef\xbb\xbfdata: 1\n\n") == []
    assert data_of(b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n") == []


def test_comments_are_ignored_before_within_and_between_events() -> None:
    assert data_of(b": hello\n\n:\ndata: 1\n: data: 2\ndata: 3\n\n: keep-alive\n\n") == [b"1\n3"]


def test_retry_and_unknown_fields_are_ignored() -> None:
    assert data_of(b"retry: 10\nfoo: 1\nDATA: 2\n data: 3\ndatax: 4\n{}\ndata: 5\n\n") == [b"5"]


def test_an_error_event_tells_its_name() -> None:
    assert decode_any_split(b'event: error\ndata: {"message":"no"}\n\n') == [
        SSEEvent(b'{"message":"no"}', event="error")
    ]


def test_an_event_without_data_is_not_given_and_its_name_is_forgotten() -> None:
    assert decode_any_split(b"event: ping\n\ndata: 1\n\n") == [SSEEvent(b"1", event="")]


def test_an_id_stays_in_force_until_the_next() -> None:
    assert decode_any_split(b"id: a\ndata: 1\n\ndata: 2\n\nid: b\n\ndata: 3\n\nid\ndata: 4\n\n") == [
        SSEEvent(b"1", id="a"),
        SSEEvent(b"2", id="a"),
        SSEEvent(b"3", id="b"),
        SSEEvent(b"4", id=""),
    ]


def test_an_id_with_nul_is_ignored() -> None:
    assert decode_any_split(b"id: a\nid: b\0\ndata: 1\n\n") == [SSEEvent(b"1", id="a")]


def test_a_name_that_is_not_utf_8_is_read_with_replacement() -> None:
    assert decode_any_split(b"event: \xff\nid: \xc3\ndata: \xff\n\n") == [
        SSEEvent(b"\xff", event="\ufffd", id="\ufffd")
    ]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1d", "\x1e", "\0"])
def test_what_only_looks_like_a_line_end_is_text(char: str) -> None:
    assert data_of(f"data: a{char}b\n\n".encode()) == [f"a{char}b".encode()]


def test_a_split_inside_a_character_does_no_harm() -> None:
    assert data_of("data: 天空👩‍🚀\n\n".encode()) == ["天空👩‍🚀".encode()]


# --- the end of the stream ---


@pytest.mark.parametrize("tail", [b"data: 2", b"data: 2\n", b"data: 2\r", b"data: 2\r\n", b"data: 2\n: x"])
def test_a_missing_last_blank_line_does_not_lose_the_event(tail: bytes) -> None:
    assert data_of(b"data: 1\n\n" + tail) == [b"1", b"2"]


@pytest.mark.parametrize(
    "stream", [b"", b"\n", b"\xef\xbb\xbf", b"\xef", b": x", b"event: x", b"dat", b"id: 1"]
)
def test_a_stream_that_ends_without_data_ends_without_an_event(stream: bytes) -> None:
    assert data_of(stream) == []


def test_the_end_gives_what_is_left_once() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: 1")
    assert decoder.eof() == [SSEEvent(b"1")]
    assert decoder.eof() == []


# --- the two roads ---

FIELDS = (
    b"data: 1|data:2|data:  3|data|data:|event: error|event:|id: 7|id: \0|id|: x|:|retry: 5|foo|\xef\xbb\xbf"
)
LINE_ENDS = [b"\n", b"\n\n", b"\r", b"\r\n", b"\r\r"]
FRAGMENTS = st.sampled_from(FIELDS.split(b"|")) | st.sampled_from(LINE_ENDS)
STREAMS = st.lists(FRAGMENTS | st.binary(max_size=3), max_size=30).map(b"".join)


@given(STREAMS, st.data())
def test_any_split_gives_what_a_plain_reading_of_the_whole_gives(stream: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=len(stream)), label="cuts"))
    decoder = SSEDecoder()
    events: list[SSEEvent] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += decoder.feed(stream[start:end])
        assert events == reference_events(stream[:end], ended=False)
    assert events + decoder.eof() == reference_events(stream, ended=True)


@given(STREAMS)
def test_byte_by_byte_is_no_different(stream: bytes) -> None:
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == reference_events(stream, ended=True)


def is_refused(stream: bytes, *, piece: int, bound: int) -> bool:
    decoder = SSEDecoder(max_event_bytes=bound)
    try:
        for start in range(0, len(stream), piece):
            decoder.feed(stream[start : start + piece])
    except EventTooLarge:
        return True
    return False


@given(STREAMS)
def test_what_is_refused_does_not_depend_on_the_split(stream: bytes) -> None:
    assert len({is_refused(stream, piece=piece, bound=12) for piece in (1, 2, 7, len(stream) + 1)}) == 1


WHOLE = st.sampled_from([b"data: 1\n\n", b"data: 22\n\n", b"data: \n\n"])
NEARLY = st.sampled_from(
    b"data:1\n\n|data: 1\ndata: 2\n\n|data: 1\n\n\n|\ndata: 1\n\n|data: 1\rdata: 2\n\n|event: x\ndata: 1\n\n|"
    b"data: 1\n|: x\n\n|id: 1\ndata: 1\n\n|data: 1\n\r|data: |event: y\n".split(b"|")
)


@given(st.lists(st.lists(WHOLE | NEARLY, min_size=1, max_size=4).map(b"".join), max_size=8))
def test_chunks_of_whole_events_and_of_nearly_whole_ones_read_alike(chunks: list[bytes]) -> None:
    assert decode(chunks) == reference_events(b"".join(chunks), ended=True)


# --- bounds ---


def test_a_line_of_a_megabyte_arrives_whole() -> None:
    data = b"x" * 1_000_000
    stream = b"data: " + data + b"\n\n"
    assert decode([stream[i : i + 65_536] for i in range(0, len(stream), 65_536)]) == [SSEEvent(data)]


def test_the_bound_is_16_mib() -> None:
    data = b"x" * (MAX_EVENT_BYTES - len(b"data: "))
    assert decode([b"data: ", data, b"\n\n"]) == [SSEEvent(data)]
    with pytest.raises(EventTooLarge):
        decode([b"data: ", data, b"x"])


AT_THE_BOUND = [
    b"data: 6789",
    b"data: 1\ndata: 22",
    b"event: 1\ndata: 222",
    b": 3456789a",
    b"data:1\n: 6789ab",
]


@pytest.mark.parametrize("piece", range(1, 20))
@pytest.mark.parametrize("stream", AT_THE_BOUND)
def test_the_bound_itself_is_taken_and_one_byte_more_is_refused(stream: bytes, piece: int) -> None:
    assert not is_refused(stream + b"\n\n", piece=piece, bound=10)
    assert is_refused(stream + b"x\n\n", piece=piece, bound=10)
    assert is_refused(stream + b"x", piece=piece, bound=10)


def test_the_bound_is_for_one_event_not_for_the_stream_or_the_chunk() -> None:
    decoder = SSEDecoder(max_event_bytes=10)
    chunk = b"data: 4567\n\n" * 3
    assert decoder.feed(chunk) == decoder.feed(chunk) == [SSEEvent(b"4567")] * 3
    assert decoder.feed(b": comment\n" * 5) == []


def test_many_short_data_lines_count_together() -> None:
    decoder = SSEDecoder(max_event_bytes=1000)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data\n" * 1000)


def test_after_a_refusal_everything_is_refused() -> None:
    decoder = SSEDecoder(max_event_bytes=10)
    decoder.feed(b"data: 1\n\n")
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x" * 11)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: 1\n\n")
    with pytest.raises(EventTooLarge):
        decoder.eof()


class CountedBytes(bytes):
    """A chunk that counts how many of its bytes were looked through."""

    looked_through = 0

    def split(self, *args: object) -> list[bytes]:
        CountedBytes.looked_through += len(self)
        return super().split(*args)  # type: ignore[arg-type]


def test_a_long_line_in_small_pieces_is_searched_once() -> None:
    stream = b"data: " + b"x" * (1 << 20) + b"\n\n"
    CountedBytes.looked_through = 0
    events = decode([CountedBytes(stream[i : i + 64]) for i in range(0, len(stream), 64)])
    assert [len(event.data) for event in events] == [1 << 20]
    assert CountedBytes.looked_through == len(stream)


def test_an_event_of_very_many_lines_arrives_whole() -> None:
    stream = b"data: x\n" * 100_000 + b"\n"
    chunks = [stream[i : i + 1000] for i in range(0, len(stream), 1000)]
    assert decode(chunks) == [SSEEvent(b"\n".join([b"x"] * 100_000))]


# --- the encoder ---


def test_an_event_is_written_as_one_data_line_and_a_blank_line() -> None:
    assert encode(b'{"a":1}') == b'data: {"a":1}\n\n'


def test_name_and_id_stand_before_the_data() -> None:
    assert encode(b"1", event="error", id="7") == b"event: error\nid: 7\ndata: 1\n\n"


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_data_of_several_lines_becomes_several_data_lines(line_end: bytes) -> None:
    assert encode(b"1" + line_end + b"2") == b"data: 1\ndata: 2\n\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "\0"])
def test_a_name_or_id_or_comment_cannot_smuggle_in_a_line(bad: str) -> None:
    with pytest.raises(ValueError, match="event"):
        encode(b"1", event=bad)
    with pytest.raises(ValueError, match="id"):
        encode(b"1", id=bad)
    with pytest.raises(ValueError, match="comment"):
        comment(bad)


def test_comments_and_heartbeats_are_no_events() -> None:
    assert comment("waiting") == b": waiting\n\n"
    assert comment("keep-alive") == KEEP_ALIVE
    assert data_of(comment("waiting") + KEEP_ALIVE) == []


def test_the_end_mark_is_an_event_of_its_own() -> None:
    assert encode(b"[DONE]") == DONE
    assert CONTENT_TYPE == "text/event-stream"


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=8)


@given(st.binary(), st.none() | NAMES, st.none() | NAMES)
def test_what_is_written_reads_back(data: bytes, event: str | None, id_: str | None) -> None:
    written = encode(data, event=event, id=id_)
    joined = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert decode([written]) == [SSEEvent(joined, event or "", id_)]
