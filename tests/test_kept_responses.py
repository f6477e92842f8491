"""Responses are kept for their own clients, for a time, in bounded room."""

from __future__ import annotations

import pytest

from server.errors import InvalidRequest, NotFound
from server.kept_responses import Kept, KeptResponses, Memory
from server.settings import Responses


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def kept(key: str = "me", size: int = 10) -> Kept:
    return Kept(key, b"x" * (size - 3), [b"a", b"b", b"c"], 1, 2)


def test_a_response_is_there_for_its_own_key_alone() -> None:
    store = KeptResponses(Responses())
    store.keep("resp_1", kept())
    assert store.get("resp_1", "me").body == b"x" * 7
    for call in (store.get, store.delete):
        with pytest.raises(NotFound):
            call("resp_1", "other")
    store.delete("resp_1", "me")
    with pytest.raises(NotFound):
        store.get("resp_1", "me")


def test_what_is_old_goes_by_itself() -> None:
    clock = Clock()
    store = KeptResponses(Responses(keep_s=10), clock)
    store.keep("resp_1", kept())
    clock.now = 9
    store.keep("resp_2", kept())
    clock.now = 10
    with pytest.raises(NotFound):
        store.get("resp_1", "me")
    assert store.get("resp_2", "me")


def test_where_there_is_no_room_the_oldest_goes() -> None:
    store = KeptResponses(Responses(max_bytes=25))
    for at in range(3):
        store.keep(f"resp_{at}", kept())
    assert len(store) == 2
    with pytest.raises(NotFound):
        store.get("resp_0", "me")
    store.keep("resp_9", kept(size=26))
    assert len(store) == 0


def test_one_that_is_kept_again_takes_the_place_of_itself() -> None:
    store = KeptResponses(Responses(max_bytes=25))
    for _ in range(5):
        store.keep("resp_1", kept())
    store.keep("resp_2", kept())
    assert len(store) == 2


def test_items_are_found_by_the_id_of_their_response() -> None:
    store = KeptResponses(Responses())
    store.keep("resp_1", kept())
    memory = Memory(store, "me")
    assert memory.items("resp_1") == [b"a", b"b", b"c"]
    assert memory.item("msg_1_0", "input[0].id") == b"c"
    for id in ("msg_1_1", "msg_2_0", "msg_1_x", "odd", ""):
        with pytest.raises(InvalidRequest) as lost:
            memory.item(id, "input[0].id")
        assert lost.value.param == "input[0].id"
    with pytest.raises(InvalidRequest):
        Memory(store, "other").items("resp_1")
