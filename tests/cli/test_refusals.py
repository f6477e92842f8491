"""Addresses and keys as people type them."""

from __future__ import annotations

import pytest

from server.cli.refusals import CannotWatch, events_url, headers_for


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("http://127.0.0.1:18888", "ws://127.0.0.1:18888/v1/events"),
        ("127.0.0.1:18888", "ws://127.0.0.1:18888/v1/events"),
        ("localhost", "ws://localhost/v1/events"),
        ("http://[::1]:18888/", "ws://[::1]:18888/v1/events"),
        ("https://example.org/v1", "wss://example.org/v1/events"),
        ("https://example.org/v1/events", "wss://example.org/v1/events"),
        ("https://example.org/antiphon/", "wss://example.org/antiphon/v1/events"),
        ("wss://example.org", "wss://example.org/v1/events"),
        ("http://example.org/?key=secret#x", "ws://example.org/v1/events"),
    ],
)
def test_an_address_is_understood_as_people_type_it(typed: str, address: str) -> None:
    assert events_url(typed) == address


@pytest.mark.parametrize("typed", ["", "ftp://x", "http://", "http://x:port", "http://x:99999", "http://[x"])
def test_what_is_no_address_is_refused_as_wrong_usage(typed: str) -> None:
    with pytest.raises(CannotWatch, match="is not an address") as refused:
        events_url(typed)
    assert refused.value.status == 2


def test_a_key_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(CannotWatch) as refused:
        events_url("http://me:secret@example.org")
    assert "secret" not in str(refused.value)


def test_the_key_travels_in_a_header() -> None:
    assert headers_for("k") == {"Authorization": "Bearer k"}
    assert headers_for(None) == headers_for("") == {}


@pytest.mark.parametrize("key", ["key\n1", "key-1 ", "key\t1", "schlüssel", "key\x00"])
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(CannotWatch) as refused:
        headers_for(key)
    assert key not in str(refused.value)
    assert refused.value.status == 2
