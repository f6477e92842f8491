"""The forms of a stream, as bytes, and where a script waits and breaks off."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.simulators.asked import Asked
from server.simulators.said import say
from server.simulators.script import Script
from server.simulators.steps import Cut, Pause, Piece, Step, plain_steps, stream_steps

HELLO = Asked("m", True, False, 1, False, 1, "hello", frozenset())


def steps(script: Script) -> list[Step]:
    return list(stream_steps(script, HELLO, say(script, HELLO, 1)))


def body(script: Script) -> bytes:
    return b"".join(step.data for step in steps(script) if isinstance(step, Piece))


def pieces(script: Script) -> list[bytes]:
    return [step.data for step in steps(script) if isinstance(step, Piece)]


def outline(script: Script) -> list[Any]:
    """Pieces by their chunks, pauses by their seconds."""
    told: list[Any] = []
    for step in steps(script):
        match step:
            case Piece():
                told.append(step.chunks)
            case Pause():
                told.append(f"wait {step.seconds}")
            case Cut():
                told.append("cut")
    return told


def test_a_stream_is_events_with_a_done_at_the_end() -> None:
    *events, done, rest = body(Script(chunks=2)).split(b"\n\n")
    assert [json.loads(event.removeprefix(b"data: "))["object"] for event in events] == [
        "chat.completion.chunk"
    ] * 4
    assert (done, rest) == (b"data: [DONE]", b"")


@pytest.mark.parametrize(("name", "end"), [("lf", b"\n"), ("crlf", b"\r\n"), ("cr", b"\r")])
def test_lines_end_as_the_script_says(name: Any, end: bytes) -> None:
    told = body(Script(chunks=1, line_end=name))
    assert told.endswith(b"data: [DONE]" + end + end)
    assert not told.replace(end, b"").count(b"\n") + told.replace(end, b"").count(b"\r")


def test_line_ends_may_be_mixed_from_event_to_event() -> None:
    ends = [piece[-4:] for piece in pieces(Script(chunks=1, line_end="mixed"))]
    assert ends[0].endswith(b"}\n\n")
    assert ends[1] == b"\r\n\r\n"
    assert ends[2].endswith(b"}\r\r")


def test_the_blank_after_the_colon_may_be_missing() -> None:
    assert body(Script(space=False)).startswith(b'data:{"id"')


def test_a_byte_order_mark_a_retry_comments_and_raw_text_come_first_in_this_order() -> None:
    script = Script(bom=True, retry=5, comments_first=2, comment="PROCESSING", inject={0: "garbage\n\n"})
    assert body(script).startswith(
        b"\xef\xbb\xbfretry: 5\n\n: PROCESSING\n\n: PROCESSING\n\ngarbage\n\ndata: {"
    )


def test_comments_may_stand_between_events() -> None:
    assert body(Script(chunks=1, comments_between=True)).count(b"}\n\n: keep-alive\n\n") == 3


def test_raw_text_is_put_after_a_chunk() -> None:
    assert pieces(Script(chunks=2, inject={1: "data: {oops\n\n"}))[1].endswith(b"}\n\ndata: {oops\n\n")


def test_data_may_be_several_lines() -> None:
    event = pieces(Script(chunks=1, multiline=True))[1]
    lines = event.rstrip(b"\n").split(b"\n")
    assert len(lines) > 5
    assert json.loads(b"\n".join(line.removeprefix(b"data: ") for line in lines))["choices"]


def test_events_may_have_names_and_ids() -> None:
    told = pieces(Script(chunks=1, event_name="chunk", event_ids=True))
    assert told[1].startswith(b"event: chunk\nid: 2\ndata: {")


def test_the_last_blank_line_may_be_missing() -> None:
    assert body(Script(last_blank_line=False)).endswith(b"}\n\ndata: [DONE]\n")
    assert body(Script(last_blank_line=False, done=0, line_end="crlf")).endswith(b"}\r\n")


def test_done_may_be_missing_or_double_or_followed() -> None:
    assert b"[DONE]" not in body(Script(done=0))
    assert body(Script(done=2)).endswith(b"}\n\ndata: [DONE]\n\ndata: [DONE]\n\n")
    assert body(Script(after_done="tail")).endswith(b"data: [DONE]\n\ntail")


def test_several_events_may_share_a_piece() -> None:
    assert outline(Script(chunks=4, join=3)) == [2, 2, 0]
    assert body(Script(chunks=4, join=3)) == body(Script(chunks=4))
    assert outline(Script(chunks=4, join=99)) == [4]


def test_joined_events_do_not_outrun_a_cut() -> None:
    assert outline(Script(chunks=4, join=4, cut_after=2))[:2] == [2, "cut"]


def test_waits_stand_before_the_first_byte_and_between_chunks() -> None:
    assert outline(Script(chunks=3, first_ms=500, pace_ms=20)) == [
        "wait 0.5", 0, 1, "wait 0.02", 1, "wait 0.02", 1, 0, 0,
    ]  # fmt: skip


def test_a_wait_may_be_filled_with_comments() -> None:
    first = steps(Script(first_ms=500, keep_alive_ms=100, comment="busy"))[0]
    assert first == Pause(0.5, 0.1, b": busy\n\n")
    assert next(plain_steps(Script(first_ms=500, keep_alive_ms=100), b"{}")) == Pause(0.5, 0.1, b"\n")


def test_a_stall_and_a_cut_come_after_their_chunk() -> None:
    assert outline(Script(chunks=2, stall_after=1))[:3] == [0, 1, "wait None"]
    assert outline(Script(chunks=2, cut_after=1, stall_after=1, stall_ms=9))[:4] == [
        0,
        1,
        "wait 0.009",
        "cut",
    ]
    assert outline(Script(chunks=2, cut_after=0))[0] == "cut"
    assert outline(Script(chunks=2, stall_after=0))[0] == "wait None"


def test_an_error_event_ends_the_stream() -> None:
    told = pieces(Script(chunks=3, error_after=1, status=200, error_message="It broke"))
    assert len(told) == 3
    error = json.loads(told[-1].removeprefix(b"data: "))["error"]
    assert error == {"message": "It broke", "type": "server_error", "param": None, "code": None}


def test_an_error_event_may_come_first_with_a_name_and_a_done() -> None:
    told = pieces(Script(error_after=0, error_event=True, error_done=True, error_form="text"))
    assert told == [
        b'event: error\ndata: {"error":"The server had an error while processing your request. Sorry about '
        b'that!"}\n\ndata: [DONE]\n\n'
    ]


def test_a_plain_body_may_be_led_in_and_padded() -> None:
    told = b"".join(
        step.data
        for step in plain_steps(Script(leading="\n \n", body_bytes=100_000), b"{}")
        if isinstance(step, Piece)
    )
    assert len(told) == 100_000
    assert told.startswith(b"\n \n{}   ")


def test_a_huge_body_is_made_while_it_is_sent() -> None:
    made = plain_steps(Script(body_bytes=10**15), b"x")
    first, second = next(made), next(made)
    assert isinstance(first, Piece)
    assert isinstance(second, Piece)
    assert len(second.data) == 65536
