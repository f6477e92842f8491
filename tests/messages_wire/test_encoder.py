"""The events of a stream: its beginning, its end, and how a failure is told."""

from __future__ import annotations

import json

from server.deltas import Finished, Opening, TextDelta, Usage
from server.errors import UpstreamCut
from server.messages_wire import PING, MessagesEncoder
from tests.foreign_streams import events_of
from tests.messages_wire.spoken import joined


def encoder() -> MessagesEncoder:
    return MessagesEncoder(model="m", id="msg_1", request_id="req_1", thoughts=False)


def test_the_first_event_is_the_message_and_comes_once() -> None:
    made = encoder()
    first = events_of(made.encode([Opening()]))
    assert [event["type"] for event in first] == ["message_start"]
    assert first[0]["message"]["id"] == "msg_1"
    assert first[0]["message"]["stop_reason"] is None
    assert b"message_start" not in made.encode([TextDelta("a")])


def test_an_answer_without_a_word_is_whole_all_the_same() -> None:
    made = encoder()
    assert joined(made.encode([Finished("stop")]) + made.finish(Usage(1, 0, 1)))["content"] == []
    assert joined(encoder().finish(Usage(1, 0, 1)))["content"] == []


def test_a_combinations_field_comes_along() -> None:
    told = events_of(encoder().finish(None, b'{"level":"none"}'))
    assert told[-2]["antiphon"] == {"level": "none"}


def test_a_failure_is_one_error_event() -> None:
    (told,) = events_of(encoder().fail(UpstreamCut("cut")))
    assert told["error"] == {"type": "api_error", "message": "cut", "code": "upstream_cut"}
    assert told["request_id"] == "req_1"


def test_a_heartbeat_is_the_services_own_ping() -> None:
    assert events_of(PING) == [{"type": "ping"}]
    assert json.loads(PING.splitlines()[1][6:]) == {"type": "ping"}
