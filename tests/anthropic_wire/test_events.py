"""What is read of an event and of a whole message."""

from __future__ import annotations

import msgspec
import pytest

from server.anthropic_wire.events import Piece, decode_block, decode_event, decode_kind, decode_whole


def test_an_event_is_read_as_far_as_it_is_needed() -> None:
    event = decode_event(
        b'{"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "a", "x": 1}}'
    )
    assert (event.type, event.index, event.delta) == ("content_block_delta", 2, Piece("text_delta", text="a"))
    end = decode_event(
        b'{"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},'
        b' "usage": {"output_tokens": 3}}'
    )
    assert end.delta is not None
    assert (end.delta.stop_reason, end.usage) == ("end_turn", {"output_tokens": 3})


def test_a_block_at_its_start_is_kept_as_it_came() -> None:
    block = b'{"type":"tool_use", "id":"t","name":"f","input":{"n":1.0}}'
    event = decode_event(b'{"type": "content_block_start", "index": 0, "content_block": ' + block + b"}")
    assert bytes(event.content_block) == block
    read = decode_block(event.content_block)
    assert (read.type, read.id, read.name, bytes(read.input)) == ("tool_use", "t", "f", b'{"n":1.0}')
    assert bytes(decode_event(b'{"type": "ping"}').content_block) == b""


def test_a_body_is_a_message_or_an_error() -> None:
    whole = decode_whole(b'{"type": "message", "content": [{"type": "text"}], "stop_reason": "end_turn"}')
    assert (whole.type, whole.stop_reason, len(whole.content), whole.error) == (
        "message",
        "end_turn",
        1,
        None,
    )
    refused = decode_whole(b'{"type": "error", "error": {"type": "api_error", "message": "x"}}')
    assert refused.error is not None
    assert (refused.error.type, refused.error.message) == ("api_error", "x")


def test_of_an_odd_event_its_type_can_still_be_read() -> None:
    odd = b'{"type": "brand_new", "delta": 7, "index": "x"}'
    with pytest.raises(msgspec.ValidationError):
        decode_event(odd)
    assert decode_kind(odd).type == "brand_new"
    assert decode_kind(b"{}").type == ""


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"type": "x", "index": "0"}', b'{"type": null}', b"{"])
def test_other_shapes_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(data)
