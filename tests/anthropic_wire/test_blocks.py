"""The blocks of one answer, from their starts, pieces and stops."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from server.anthropic_wire.blocks import Blocks
from server.anthropic_wire.events import Piece
from server.deltas import ReasoningDelta, TextDelta, ToolCallDelta
from server.errors import UpstreamInvalid
from tests.anthropic_wire.messages import calls_of, extras_of


def raw(**block: Any) -> Raw:
    return Raw(json.dumps(block).encode())


CALL = raw(type="tool_use", id="t", name="f", input={})
THOUGHT = raw(type="thinking", thinking="", signature="")


def test_a_block_may_say_all_at_its_start() -> None:
    blocks = Blocks()
    assert blocks.start(0, raw(type="text", text="Hi")) == [TextDelta("Hi")]
    assert blocks.start(1, raw(type="thinking", thinking="hm", signature="E")) == [ReasoningDelta("hm")]
    assert blocks.stop(0) == ()
    kept = {"index": 0, "type": "thinking", "thinking": "hm", "signature": "E"}
    assert extras_of(list(blocks.stop(1))) == [{"thinking_blocks": [kept]}]


def test_nothing_is_said_until_a_word_or_a_call_comes() -> None:
    for begun, piece in (
        (raw(type="text", text=""), Piece("text_delta", text="a")),
        (THOUGHT, Piece("thinking_delta", thinking="a")),
    ):
        blocks = Blocks()
        blocks.start(0, begun)
        blocks.piece(0, Piece("signature_delta", signature="E"))
        assert not blocks.spoken
        blocks.piece(0, piece)
        assert blocks.spoken
    calling = Blocks()
    calling.start(0, CALL)
    assert calling.spoken


def test_a_thought_without_a_signature_is_of_no_use_to_give_back() -> None:
    blocks = Blocks()
    blocks.start(0, THOUGHT)
    assert blocks.piece(0, Piece("thinking_delta", thinking="hm")) == [ReasoningDelta("hm")]
    assert blocks.stop(0) == ()


def test_thoughts_are_numbered_in_the_order_in_which_they_end() -> None:
    blocks = Blocks()
    for index in (3, 1):
        blocks.start(index, THOUGHT)
        blocks.piece(index, Piece("thinking_delta", thinking=f"t{index} "))
        blocks.piece(index, Piece("thinking_delta", thinking="more"))
        blocks.piece(index, Piece("signature_delta", signature=f"E{index}"))
    kept = [block["thinking_blocks"][0] for block in extras_of(blocks.stop_all())]
    assert [(block["index"], block["thinking"], block["signature"]) for block in kept] == [
        (0, "t1 more", "E1"),
        (1, "t3 more", "E3"),
    ]


def test_calls_have_their_place_among_calls_and_arguments_of_their_own() -> None:
    blocks = Blocks()
    deltas = [
        *blocks.start(1, CALL),
        *blocks.start(4, raw(type="tool_use", id="u", name="g", input={"a": 1.0})),
        *(blocks.piece(1, Piece("input_json_delta", partial_json="")) or ()),
        *(blocks.piece(1, Piece("input_json_delta", partial_json='{"b":')) or ()),
        *(blocks.piece(1, Piece("input_json_delta", partial_json="2}")) or ()),
        *blocks.stop(1),
        *blocks.stop(4),
    ]
    assert calls_of(deltas) == [("t", "f", '{"b":2}'), ("u", "g", '{"a":1.0}')]
    assert [delta.position for delta in deltas if type(delta) is ToolCallDelta] == [0, 1, 0, 0, 1]


def test_a_call_without_any_arguments_has_empty_ones() -> None:
    for given in (
        CALL,
        raw(type="tool_use", id="t", name="f"),
        raw(type="tool_use", id="t", name="f", input=None),
    ):
        blocks = Blocks()
        assert calls_of([*blocks.start(0, given), *blocks.stop(0)]) == [("t", "f", "{}")]


def test_a_block_of_another_kind_is_kept_whole_and_its_arguments_are_the_services_own() -> None:
    blocks = Blocks()
    assert blocks.start(0, raw(type="server_tool_use", id="s", name="web_search", input={})) == ()
    assert blocks.piece(0, Piece("input_json_delta", partial_json="{}")) == ()
    kept = {"index": 0, "type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    assert extras_of(list(blocks.stop(0))) == [{"thinking_blocks": [kept]}]
    assert not blocks.spoken


WEB = {
    "type": "web_search_result_location",
    "url": "https://e.com",
    "encrypted_index": "Eo",
    "cited_text": "x",
}
PAGE = {
    "type": "page_location",
    "document_index": 1,
    "document_title": "Law",
    "start_page_number": 3,
    "end_page_number": 4,
    "cited_text": "§ 1",
}
FOUND = {"type": "search_result_location", "source": "shelf 7", "search_result_index": 2, "title": None}


@pytest.mark.parametrize("at_once", [False, True])
def test_where_a_text_comes_from_is_told_when_it_has_ended_with_its_place(at_once: bool) -> None:
    blocks = Blocks()
    blocks.start(0, raw(type="text", text="All "))
    assert blocks.stop(0) == ()
    given: list[dict[str, Any]] = [WEB, PAGE, FOUND]
    if at_once:
        (said,) = blocks.start(1, raw(type="text", text="of it", citations=given))
    else:
        blocks.start(1, raw(type="text", text="", citations=[]))
        for one in given:
            assert blocks.piece(1, Piece("citations_delta", citation=one)) == ()
        (said,) = blocks.piece(1, Piece("text_delta", text="of it")) or ()
    assert isinstance(said, TextDelta)
    assert said.original is not None
    assert json.loads(said.original.data)["choices"][0]["delta"] == {"content": "of it", "native_block": True}
    (delta,) = extras_of(list(blocks.stop(1)))
    assert delta["native_citations"] == [{"index": at, **one} for at, one in enumerate(given)]
    assert [one.pop("index") for one in delta["annotations"]] == [0, 1, 2], "for clients that join"
    web, page, found = delta["annotations"]
    place = {"start_index": 4, "end_index": 9}
    assert web == {
        "type": "url_citation",
        "url_citation": {"url": "https://e.com", "title": "https://e.com", "content": "x", **place},
    }
    assert page["file_citation"] == {
        "file_id": "document_1",
        "filename": "Law",
        "index": 1,
        "start_page_number": 3,
        "end_page_number": 4,
        "cited_text": "§ 1",
        **place,
    }
    assert found == {
        "type": "file_citation",
        "file_citation": {"file_id": "document_2", "filename": "shelf 7", "index": 2, **place},
    }


def test_a_source_without_text_begins_its_block_all_the_same() -> None:
    blocks = Blocks()
    blocks.start(0, raw(type="text", text="a"))
    blocks.start(1, raw(type="text", text="", citations=[WEB]))
    (delta,) = extras_of(list(blocks.stop(1)))
    assert delta["native_block"] is True
    assert blocks.piece(1, Piece("citations_delta")) == ()


def test_pieces_that_nobody_knows_are_counted() -> None:
    blocks = Blocks()
    assert blocks.piece(0, Piece("smell_delta")) is None
    assert blocks.unknown == 1


def test_what_the_services_own_tools_are_given_comes_in_pieces() -> None:
    blocks = Blocks()
    for pieces, given in ((['{"query": ', '"x"}'], {"query": "x"}), (["{"], "{")):
        blocks.start(0, raw(type="server_tool_use", id="s", name="web_search", input={}))
        for one in ("", *pieces):
            assert blocks.piece(0, Piece("input_json_delta", partial_json=one)) == ()
        (kept,) = extras_of(list(blocks.stop(0)))
        assert kept["thinking_blocks"][0]["input"] == given


def test_what_ends_or_goes_on_without_having_begun() -> None:
    blocks = Blocks()
    assert blocks.stop(7) == ()
    assert blocks.piece(7, Piece("text_delta", text="a")) == [TextDelta("a")]
    assert blocks.piece(7, Piece("signature_delta", signature="E")) == ()
    with pytest.raises(UpstreamInvalid):
        blocks.piece(7, Piece("input_json_delta", partial_json="{"))


@pytest.mark.parametrize("block", [b"{}", b"[]", b'{"type": "text", "text": 7}', b"{"])
def test_a_block_that_cannot_be_read_is_no_answer(block: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        Blocks().start(0, Raw(block))


def test_what_a_call_says_beside_the_rest_is_told_but_not_that_the_model_itself_made_it() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "s"}
    (call,) = Blocks().start(
        0, raw(type="tool_use", id="t", name="f", input={}, caller=caller, toolset_name=None)
    )
    assert isinstance(call, ToolCallDelta)
    assert call.original is not None
    (said,) = json.loads(call.original.data)["choices"][0]["delta"]["tool_calls"]
    assert said["extra_content"] == {"anthropic": {"caller": caller}}
    (plain,) = Blocks().start(0, raw(type="tool_use", id="t", name="f", input={}, caller={"type": "direct"}))
    assert isinstance(plain, ToolCallDelta)
    assert plain.original is None
