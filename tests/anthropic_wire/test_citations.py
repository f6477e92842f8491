"""Citations that come back beside a text: each goes with the words that it is true of."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.anthropic_wire.citations import cited
from server.errors import InvalidRequest

TEXT = "The sky is blue. So is the sea."
SKY, SEA = {"type": "page_location", "n": 1}, {"type": "char_location", "n": 2}


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


def at(start: object, end: object, kind: str = "url_citation") -> dict[str, Any]:
    return {"type": kind, kind: {"start_index": start, "end_index": end}}


def blocks(citations: object, annotations: object, text: str = TEXT) -> list[tuple[str, list[Any]]]:
    made = cited(text, raw(citations), raw(annotations), "messages[1]")
    decoded = msgspec.json.decode(msgspec.json.encode(made))
    return [(one["text"], one.get("citations", [])) for one in decoded]


def test_each_goes_with_its_words_and_without_its_index() -> None:
    told = [at(0, 16), at(17, 31, "file_citation")]
    assert blocks([SKY | {"index": 0}, SEA | {"index": 1}], told) == [
        ("The sky is blue.", [SKY]),
        ("So is the sea.", [SEA]),
    ]


def test_the_words_between_stay_and_several_may_be_of_one_place() -> None:
    told = [at(4, 7), at(4, 7)]
    assert blocks([SKY, SEA], told) == [("The ", []), ("sky", [SKY, SEA]), (TEXT[7:], [])]


NO_PLACES: tuple[object, ...] = (
    None,
    [],
    "odd",
    [at(0, 3), at(4, 5)],
    [at("a", 3)],
    [at(-1, 3)],
    [at(3, 3)],
    [at(99, 100)],
    [5],
)


@pytest.mark.parametrize("told", NO_PLACES)
def test_where_no_place_is_told_it_is_of_the_whole_text(told: object) -> None:
    assert blocks([SKY], told) == [(TEXT, [SKY])]


def test_a_text_that_the_client_has_shortened_keeps_what_there_is() -> None:
    assert blocks([SKY, SEA], [at(0, 16), at(17, 31)], TEXT[:20]) == [(TEXT[:16], [SKY]), ("So ", [SEA])]


def test_what_are_no_citations_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidRequest) as refused:
        blocks({"a": 1}, None)
    assert refused.value.param == "messages[1].native_citations"
