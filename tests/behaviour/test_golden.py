"""What each client's conversation is to each kind of upstream, and its answer, word for word."""

from __future__ import annotations

import json

import pytest

from tests.behaviour.golden import FOLDER, KINDS, conversation


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_is_told_as_it_was_read_and_found_good(kind: str) -> None:
    golden = json.loads((FOLDER / f"{kind}.json").read_text("utf-8"))
    told = await conversation(kind)
    assert list(told) == list(golden)
    for path, one in told.items():
        assert one == golden[path], f"{path}; if it is meant, python -m tests.behaviour.golden"
