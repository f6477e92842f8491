"""An answer's bytes as the wires of other dialects read them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from server.deltas import Delta, TextDelta
from server.errors import ServerError, UpstreamError, UpstreamInvalid
from server.foreign_answer import MAX_ANSWER_BYTES, ForeignReader, figure


class Words(ForeignReader):
    """A dialect: ``half…`` cannot be read, ``???`` is garbage, ``bad`` an error, ``end`` the end."""

    def __init__(self) -> None:
        super().__init__()
        self.whole_reads = 0

    def eof(self) -> list[Delta]:
        return self._ended()

    def _event(self, data: bytes) -> Sequence[Delta]:
        if data.startswith(b"half"):
            raise UpstreamInvalid("half")
        if data == b"???":
            self.garbage += 1
            return ()
        if data == b"bad":
            raise UpstreamError("bad")
        self.quiet = False
        self.done = data == b"end"
        return [TextDelta(data.decode())]

    def _whole_events(self, data: bytes) -> list[bytes] | None:
        self.whole_reads += 1
        return [data[6:-2]] if data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 else None


def words(deltas: Sequence[Delta]) -> list[str]:
    return [delta.text for delta in deltas if isinstance(delta, TextDelta)]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_events_are_told_however_they_are_cut(size: int) -> None:
    stream = b"\r\ndata: one\n\n: a comment\n\ndata: two\r\n\r\ndata: three\n\n"
    reader, told = Words(), []
    for at in range(0, len(stream), size):
        told += words(reader.feed(stream[at : at + size]))
    assert [*told, *words(reader.eof())] == ["one", "two", "three"]


def test_the_short_way_is_only_taken_between_events() -> None:
    reader = Words()
    assert words(reader.feed(b"data: one\n\n")) == ["one"]
    assert words(reader.feed(b"data: tw")) == []
    assert reader.whole_reads == 2
    assert words(reader.feed(b"o\n\n")) == ["two"]
    assert reader.whole_reads == 2
    assert words(reader.feed(b"data: three\n\n")) == ["three"]
    assert reader.whole_reads == 3


def test_comments_are_quiet_and_words_are_not() -> None:
    reader = Words()
    reader.feed(b": beat\n\n")
    assert reader.quiet
    reader.feed(b"data: one\n\n")
    assert not reader.quiet


def test_what_was_said_before_an_error_is_said_and_nothing_behind_it() -> None:
    reader = Words()
    assert words(reader.feed(b"data: one\n\ndata: bad\n\ndata: two\n\n")) == ["one"]
    assert reader.done
    assert reader.feed(b"data: three\n\n") == []
    with pytest.raises(UpstreamError):
        reader.eof()


def test_an_error_that_comes_first_is_raised_at_once() -> None:
    with pytest.raises(UpstreamError):
        Words().feed(b"data: bad\n\n")


@pytest.mark.parametrize(("last", "told"), [(b"data: two", ["two"]), (b"data: half of it", []), (b"da", [])])
def test_an_event_without_its_blank_line_counts_if_it_is_whole(last: bytes, told: list[str]) -> None:
    reader = Words()
    reader.feed(b"data: one\n\n" + last)
    assert words(reader.eof()) == told


def test_behind_the_end_nothing_is_heard() -> None:
    reader = Words()
    assert words(reader.feed(b"data: end\n\ndata: more\n\ndata: and mo")) == ["end"]
    assert reader.eof() == []


@pytest.mark.parametrize("data", [b" <html>", b"<"])
def test_a_web_page_is_a_wrong_base_url(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid, match="base_url"):
        Words().feed(data)


def test_json_is_kept_to_its_end_but_not_without_bound() -> None:
    reader = Words()
    assert reader.feed(b' {"a": ') == ()
    assert reader._json == [b'{"a": ']
    reader.feed(b" " * (MAX_ANSWER_BYTES // 2))
    with pytest.raises(ServerError, match="too long"):
        reader.feed(b" " * (MAX_ANSWER_BYTES // 2))


def test_a_line_without_end_is_not_kept() -> None:
    with pytest.raises(UpstreamInvalid, match="too long"):
        Words().feed(b"data: " + b"x" * (32 * 1024 * 1024))


def test_a_figure_is_a_positive_number_or_nothing() -> None:
    assert [figure({"n": value}, "n") for value in (3, 0, -1, True, 2.5, "4", None)] == [3, 0, 0, 0, 0, 0, 0]
    assert figure({}, "n") == 0


def test_garbage_is_counted_but_not_where_the_stream_was_cut_within_it() -> None:
    reader = Words()
    assert words(reader.feed(b"data: one\n\ndata: ???\n\ndata: two\n\n")) == ["one", "two"]
    assert reader.garbage == 1
    assert words(reader.feed(b"data: ???")) == []
    assert reader.eof() == []
    assert reader.garbage == 1
