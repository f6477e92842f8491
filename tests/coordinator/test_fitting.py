"""What of drafts and history fits into the writer's context."""

from __future__ import annotations

from server.coordinator.fitting import LEAST_DRAFT, fit
from server.settings import Summary
from tests.coordinator.panel import drafts, request


def test_all_is_shown_where_it_fits() -> None:
    chat, some = request("Why?"), drafts("one", "two")
    for context in (None, 4000):
        found = fit(chat, some, Summary(model="w"), context)
        assert found is not None
        assert (len(found.drafts), found.draft_tokens, found.history) == (2, None, None)


def test_drafts_give_way_first_then_old_turns_then_the_weakest_drafts() -> None:
    long = "x" * 4 * 1000
    some = drafts(long, long, long, weights=(1, 3, 2))
    history = [{"role": "user", "content": "h" * 4 * 500}, {"role": "assistant", "content": "h" * 4 * 500}]
    chat = request(messages=[*history, {"role": "user", "content": "q"}])
    wide = fit(chat, some, Summary(model="w"), 6000)
    assert wide is not None
    assert wide.history is None
    assert wide.draft_tokens is not None
    assert LEAST_DRAFT < wide.draft_tokens < 1000
    narrow = fit(chat, some, Summary(model="w"), 2000)
    assert narrow is not None
    assert narrow.history is not None
    assert len(narrow.drafts) == 3
    tiny = fit(chat, some, Summary(model="w"), 1200)
    assert tiny is not None
    assert [draft.call.id for draft in tiny.drafts] == ["m2", "m3"]
    assert fit(chat, some, Summary(model="w"), 500) is None
