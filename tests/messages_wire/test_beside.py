"""Pictures and sources, which a message has other forms for."""

from __future__ import annotations

from typing import Any

import pytest

from server.deltas import Delta, Finished, Original, TextDelta, ToolCallDelta
from server.messages_wire.beside import UNSIGNED
from tests.foreign_streams import beside
from tests.messages_wire.spoken import both

WEB = {"type": "web_search_result_location", "url": "https://e.com", "title": "E", "encrypted_index": "Eo"}
PAGE = {"type": "page_location", "document_index": 0, "start_page_number": 1, "cited_text": "§"}
SOURCE = {"type": "url_citation", "url_citation": {"url": "https://e.com", "title": "E", "start_index": 0}}
FOUND = {
    "type": "web_search_result_location",
    "url": "https://e.com",
    "title": "E",
    "cited_text": "",
    "encrypted_index": UNSIGNED,
}


def test_the_services_own_sources_come_with_their_own_blocks_as_they_were() -> None:
    second = TextDelta(
        "b", original=Original("openai.chunk", b'{"choices":[{"delta":{"content":"b","native_block":true}}]}')
    )
    deltas: list[Delta] = [
        TextDelta("a"),
        second,
        beside(annotations=[SOURCE, SOURCE], native_citations=[WEB, PAGE]),
        beside(annotations=[SOURCE], native_citations=[WEB], native_block=True),
        Finished("stop"),
    ]
    assert both(deltas)["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "citations": [WEB, PAGE]},
        {"type": "text", "text": "", "citations": [WEB]},
    ]


def test_sources_of_others_belong_to_their_text_once_and_what_has_no_address_is_told() -> None:
    paper = {"type": "file_citation", "file_citation": {"file_id": "f"}}
    deltas: list[Delta] = [beside(annotations=[SOURCE]), TextDelta("a"), beside(annotations=[SOURCE])]
    made = both([*deltas, beside(annotations=[paper]), Finished("stop")])
    assert made["content"] == [{"type": "text", "text": "a", "citations": [FOUND]}]
    assert made["antiphon"] == {"warnings": ["annotations was left out"]}
    waiting = both([TextDelta("a"), ToolCallDelta(0, "c", "f", "{}"), beside(annotations=[SOURCE])])
    assert waiting["antiphon"] == {"warnings": ["annotations was left out"]}


@pytest.mark.parametrize("form", ["openai.chunk", "openai.completion"])
def test_pictures_stand_beside_the_message_or_in_it_as_links(form: Any) -> None:
    images = [
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,AAAA"}},
        {"image_url": "https://e.com/a.png"},
    ]
    made = both([beside(form, images=images), Finished("stop")])
    assert made["content"] == [{"type": "text", "text": "![image](https://e.com/a.png)"}]
    assert made["antiphon"] == {
        "warnings": ["images are in antiphon.images alone"],
        "images": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "AAAA"}}
        ],
    }
