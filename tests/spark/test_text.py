"""Text reaches a client in whole characters, and not beyond a stop word."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from server.spark.text import PairJoiner, StopCutter, whole


def test_a_character_split_between_frames_is_one_again() -> None:
    joiner = PairJoiner()
    assert joiner.feed("a\ud83d") == "a"
    assert joiner.feed("\ude00b") == "😀b"
    assert joiner.flush() == ""


def test_half_a_character_alone_is_replaced_and_nothing_else_is_lost() -> None:
    joiner = PairJoiner()
    assert joiner.feed("a\ude00b") == "a\ufffdb"
    assert joiner.feed("\ud83d") == ""
    assert joiner.feed("c") == "\ufffdc"
    assert joiner.feed("\ud83d") == ""
    assert joiner.flush() == "\ufffd"


@given(st.text(), st.lists(st.integers(0, 60)))
def test_any_split_of_a_text_into_halves_is_the_text(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le")
    places = sorted({0, len(units), *(2 * cut for cut in cuts if 2 * cut <= len(units))})
    joiner = PairJoiner()
    said = ""
    for start, end in itertools.pairwise(places):
        said += joiner.feed(units[start:end].decode("utf-16-le", "surrogatepass"))
    assert said + joiner.flush() == text


@given(st.text(st.characters()))
def test_whatever_comes_can_be_encoded(text: str) -> None:
    whole(text + "\ud800" + text).encode()


def test_text_ends_before_a_stop_word() -> None:
    cutter = StopCutter(["END"])
    assert [cutter.feed(piece) for piece in ("one E", "N", "D two", "three")] == ["one ", "", "", ""]
    assert cutter.hit


def test_what_only_began_like_a_stop_word_is_given_back() -> None:
    cutter = StopCutter(["END"])
    assert cutter.feed("one EN") == "one "
    assert cutter.feed("TER E") == "ENTER "
    assert cutter.flush() == "E"
    assert not cutter.hit


def test_an_empty_stop_word_stops_nothing() -> None:
    assert StopCutter([""]).feed("text") == "text"


@given(st.text("ab"), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_a_text_is_cut_at_the_same_place_however_it_is_split(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    def said(pieces: list[str]) -> tuple[str, bool]:
        cutter = StopCutter(stops)
        fed = "".join(map(cutter.feed, pieces))
        return fed + ("" if cutter.hit else cutter.flush()), cutter.hit

    cut = data.draw(st.integers(0, len(text)))
    assert said([text]) == said([text[:cut], text[cut:]]) == said(list(text))
