"""What a client makes of a Responses stream, by the vendor's own rules for joining its events."""

from __future__ import annotations

from typing import Any

from tests.foreign_streams import events_of as named_events


def events_of(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each under the name that its type is, numbered from 0."""
    told = named_events(data)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def joined(data: bytes) -> dict[str, Any]:
    """The response that a complete stream ends with, after a look at whether its events told the same."""
    created, progress, *middle, last = events_of(data)
    assert (created["type"], progress["type"]) == ("response.created", "response.in_progress")
    response: dict[str, Any] = last["response"]
    assert last["type"] == f"response.{response['status']}"
    items: dict[int, dict[str, Any]] = {}
    deltas: dict[tuple[str, int], str] = {}
    for event in middle:
        at = event["output_index"]
        if event["type"] == "response.output_item.added":
            assert at == len(items), "items begin in order"
            items[at] = event["item"]
        elif event["type"] == "response.output_item.done":
            assert event["item"]["id"] == items[at]["id"]
            items[at] = event["item"]
        else:
            assert event["item_id"] == items[at]["id"]
            place = event["item_id"], event.get("content_index", event.get("summary_index", 0))
            if event["type"].endswith(".delta"):
                deltas[place] = deltas.get(place, "") + event["delta"]
            elif not event["type"].startswith("response.content_part.added"):
                whole = next((event[key] for key in ("text", "refusal", "arguments") if key in event), None)
                assert whole in (None, deltas.get(place, "")), "the whole is the sum of its pieces"
    assert [items[at] for at in sorted(items)] == response["output"]
    return response
