"""Parts of a response's output, as clients see them."""

from __future__ import annotations

import pytest

from server.responses_wire.parts import annotation_of, is_whole, part_of, picture_of


def test_places_of_a_source_count_from_its_own_part() -> None:
    link = {"url": "https://e.com", "start_index": 5, "end_index": 9}
    told = annotation_of({"type": "url_citation", "url_citation": link}, 4)
    assert told == {"type": "url_citation", "url": "https://e.com", "start_index": 1, "end_index": 5}


def test_a_place_before_its_part_is_where_the_part_begins() -> None:
    told = annotation_of({"type": "file_citation", "file_citation": {"start_index": 1, "end_index": 7}}, 4)
    assert (told["start_index"], told["end_index"]) == (0, 3)


@pytest.mark.parametrize(
    ("uri", "picture"),
    [
        ("data:image/webp;base64,AAAA", ("webp", "AAAA")),
        ("data:;base64,AAAA", ("png", "AAAA")),
        ("https://e.com/a.png", None),
    ],
)
def test_a_picture_is_its_data_and_a_link_is_none(uri: str, picture: tuple[str, str] | None) -> None:
    assert picture_of(uri) == picture


def test_a_refusal_has_no_sources() -> None:
    assert part_of("refusal", "No.", []) == {"type": "refusal", "refusal": "No."}
    assert part_of("output_text", "a", [{}])["annotations"] == [{}]


@pytest.mark.parametrize(("arguments", "whole"), [("{}", True), ('{"a":', False), ("[" * 100_000, False)])
def test_arguments_are_whole_when_they_are_json(arguments: str, whole: bool) -> None:
    assert is_whole(arguments) is whole
