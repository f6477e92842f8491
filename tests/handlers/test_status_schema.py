"""The AsyncAPI document of the websocket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.handlers.status_messages import Message
from server.handlers.status_schema import FROM_CLIENT, asyncapi
from tests.schemas import ASYNC, check_message

ROOT = Path(__file__).parents[2]


def test_the_file_in_the_documentation_is_current() -> None:
    written = msgspec.json.decode((ROOT / "docs/asyncapi.json").read_bytes())
    assert written == asyncapi(), "run make schemas"


def test_every_message_that_a_watcher_may_say_is_in_it() -> None:
    assert set(FROM_CLIENT) == set(Message.__args__)


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [found for one in value.values() for found in references(one)]
    return [found for one in value for found in references(one)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere() -> None:
    found = references(ASYNC)
    assert found
    for reference in found:
        place: Any = ASYNC
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            place = place[part]


def test_a_message_that_nobody_documented_is_found() -> None:
    fine = {"type": "bookmark", "id": "1", "offset": "7"}
    check_message(fine)
    for fault in ({"offset": 7}, {"more": 1}, {"id": None}):
        with pytest.raises(AssertionError):
            check_message(fine | fault)
