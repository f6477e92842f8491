from __future__ import annotations

import pytest

from server.simulators.record import RecordedRequest, Records


def a_record(records: Records, body: bytes = b"") -> RecordedRequest:
    number = records.next_number()
    headers = (("Authorization", "Bearer sk-secret"), ("X-Id", "1"))
    return RecordedRequest(number, number, "POST", "/", headers, body, started=1.0)


def test_the_oldest_requests_are_forgotten_first() -> None:
    records = Records(kept_requests=3)
    for _ in range(5):
        records.begin(a_record(records))
    assert [request.number for request in records.requests] == [3, 4, 5]
    assert records.stats()["requests_total"] == 5


def test_bodies_are_kept_to_a_bound_of_bytes() -> None:
    records = Records(kept_body_bytes=10)
    for _ in range(4):
        records.begin(a_record(records, b"12345"))
    assert [request.number for request in records.requests] == [3, 4]


def test_only_the_first_end_of_an_answer_counts() -> None:
    records = Records()
    records.new_connection()
    request = a_record(records)
    records.begin(request)
    records.streaming(request)
    assert (records.stats()["live"], records.stats()["streams_live"]) == (1, 1)
    records.end(request, "cut", 2.0)
    records.lost_connection(request.connection, 3.0)
    assert (request.outcome, request.ended) == ("cut", 2.0)
    assert records.stats()["aborted_total"] == 0
    assert (records.stats()["live"], records.stats()["streams_live"]) == (0, 0)


def test_no_credential_is_shown() -> None:
    records = Records()
    request = a_record(records, b"\xff")
    shown = request.as_json()
    assert shown["headers"] == [("Authorization", "***"), ("X-Id", "1")]
    assert "sk-secret" not in f"{shown} {request!r}"


async def test_a_wait_in_vain_tells_what_was_seen() -> None:
    records = Records()
    with pytest.raises(TimeoutError, match="connections_open"):
        await records.wait_until(lambda: False, 0.01)
