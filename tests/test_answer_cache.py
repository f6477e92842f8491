"""Kept answers: which requests are equal, which answers are fit, and what is in them at most."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.answer_cache import (
    MAX_REQUEST,
    AnswerCache,
    Caching,
    Gathering,
    KeptAnswer,
    fingerprint,
    is_fit,
    size_of_batch,
    wished,
)
from server.cache_settings import Cache
from server.chat import ChatRequest
from server.deltas import Delta, Finished, Opening, Original, RefusalDelta, TextDelta, ToolCallDelta
from server.openai_wire import parse_chat

USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def asked(**fields: Any) -> ChatRequest:
    return parse_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def with_part(part: dict[str, Any]) -> ChatRequest:
    return asked(messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, part]}])


# ── what is equal ──

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["think", "seed_", "top_k", "x", "größe", "a b"])
FIELDS = st.dictionaries(NAMES, VALUES, max_size=5)


@given(FIELDS, st.randoms(use_true_random=False), st.sampled_from([None, 1, 2]))
def test_the_order_of_fields_and_blanks_between_them_make_no_difference(
    fields: dict[str, Any], rng: Any, indent: int | None
) -> None:
    body = {"model": "m", "messages": [USER], **fields}
    pairs = list(body.items())
    rng.shuffle(pairs)
    pairs.insert(rng.randrange(len(pairs) + 1), ("absent", None))
    other = parse_chat(json.dumps(dict(pairs), indent=indent, ensure_ascii=indent is None).encode())
    same = parse_chat(json.dumps(body, ensure_ascii=indent is None).encode())
    assert fingerprint(other) == fingerprint(same)


@given(FIELDS, FIELDS)
def test_requests_that_differ_in_a_field_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    said = [json.dumps({k: v for k, v in x.items() if v is not None}, sort_keys=True) for x in (one, other)]
    if said[0] != said[1]:
        assert fingerprint(asked(**one)) != fingerprint(asked(**other))


def test_how_an_answer_is_told_makes_no_difference() -> None:
    plain = fingerprint(asked())
    told: list[dict[str, Any]] = [
        {"stream": True},
        {"stream_options": {"include_usage": True}},
        {"conversation_id": "c1"},
        {"antiphon": {"x": 1}},
        {"model": "alias"},
        {"temperature": None},
    ]
    for fields in told:
        assert fingerprint(asked(**fields)) == plain
    asking: list[dict[str, Any]] = [
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"temperature": 0},
        {"max_tokens": 1},
    ]
    for fields in asking:
        assert fingerprint(asked(**fields)) != plain


def test_pieces_beside_the_request_do_not_run_into_each_other() -> None:
    chat = asked()
    prints = {fingerprint(chat, *beside) for beside in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b""), ())}
    assert len(prints) == 4
    wide = ChatRequest(chat.json, chat.fields, wide=True)
    assert fingerprint(wide) != fingerprint(chat)


def test_numbers_count_as_they_are_written() -> None:
    big = [
        parse_chat(b'{"model":"m","messages":[{"role":"user","content":"a"}],"x":%d}' % n)
        for n in (2**70, 2**70 + 1)
    ]
    assert fingerprint(big[0]) != fingerprint(big[1])


# ── which requests are fit ──


@pytest.mark.parametrize(
    ("fields", "fit"),
    [
        ({}, True),
        ({"temperature": 0}, True),
        ({"temperature": 0.7}, False),
        ({"temperature": 0.7, "seed": 1}, True),
        ({"temperature": 0, "n": 2}, False),
        ({"tools": [TOOL]}, False),
        ({"functions": [{"name": "f"}]}, False),
        ({"web_search_options": {}}, False),
        ({"tools": []}, True),
        ({"store": True}, False),
        ({"store": False}, True),
    ],
)
def test_what_asks_for_chance_or_has_an_effect_is_not_fit(fields: dict[str, Any], fit: bool) -> None:
    assert is_fit(asked(**fields), Cache()) is fit


def test_the_operator_may_say_otherwise() -> None:
    assert is_fit(asked(temperature=1, n=2), Cache(sampled=True))
    assert is_fit(asked(tools=[TOOL]), Cache(tools=True))
    assert is_fit(asked(temperature=1), Cache(), member=True), "samples of members are told apart"
    assert not is_fit(asked(store=True), Cache(sampled=True, tools=True))


@pytest.mark.parametrize(
    ("part", "fit"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, True),
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, False),
        ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, True),
        ({"type": "file", "file": {"file_id": "file-1"}}, False),
    ],
)
def test_what_an_address_leads_to_may_change(part: dict[str, Any], fit: bool) -> None:
    assert is_fit(with_part(part), Cache()) is fit


def test_a_request_that_takes_long_to_be_hashed_is_not_fit() -> None:
    assert not is_fit(asked(user="x" * MAX_REQUEST), Cache(sampled=True, tools=True))


@pytest.mark.parametrize(
    ("header", "look", "keep"),
    [
        (None, True, True),
        ("max-age=0", True, True),
        ("no-cache", False, True),
        ("NO-STORE", False, False),
        ("max-age=0, no-cache , no-store", False, False),
    ],
)
def test_a_client_says_by_cache_control_what_it_does_not_want(
    header: str | None, look: bool, keep: bool
) -> None:
    heard: list[str] = []
    caching = wished(header, heard.append)
    assert (caching.look, caching.keep) == (look, keep)
    caching.note("hit")
    assert (heard, caching.outcome) == (["hit"], "hit")


def test_the_draft_of_a_member_has_a_place_of_its_own() -> None:
    caching = Caching(look=False).of_member("m1").of_member("m2")
    assert (caching.look, caching.keep, caching.place) == (False, True, "/m1/m2")


# ── which answers are fit ──


def gathered(*batches: list[Delta], choices: int = 1, max_bytes: int = 10_000) -> KeptAnswer | None:
    gathering = Gathering(max_bytes)
    for batch in batches:
        gathering.add(batch)
    return gathering.answer(choices, "ch", ("ch", ("w",)))


def test_a_whole_answer_is_kept_as_it_came() -> None:
    batches: list[list[Delta]] = [[Opening(), TextDelta("a")], [TextDelta("b"), Finished("stop")]]
    kept = gathered(*batches)
    assert kept is not None
    assert [list(batch) for batch in kept.batches] == batches
    assert kept.size == sum(map(size_of_batch, batches))
    assert (kept.channel, kept.warnings) == ("ch", ("ch", ("w",)))


@pytest.mark.parametrize(
    "deltas",
    [
        [TextDelta("a")],
        [TextDelta("a"), Finished("length")],
        [TextDelta("a"), Finished("content_filter")],
        [TextDelta("a"), RefusalDelta("no"), Finished("stop")],
        [Finished("stop")],
        [],
    ],
)
def test_what_is_cut_filtered_refused_or_empty_is_not_fit(deltas: list[Delta]) -> None:
    assert gathered(deltas) is None


def test_each_choice_must_have_ended_well() -> None:
    one: list[Delta] = [TextDelta("a"), Finished("stop")]
    assert gathered(one, choices=2) is None
    assert gathered(one, [TextDelta("b", 1), Finished("length", 1)], choices=2) is None
    assert gathered(one, [ToolCallDelta(0, "i", "f", "{}", 1), Finished("tool_calls", 1)], choices=2)


def test_an_answer_that_grows_too_large_is_dropped_at_once() -> None:
    assert gathered([TextDelta("a" * 5000)], [TextDelta("b" * 6000)], [Finished("stop")]) is None
    assert gathered([TextDelta("a" * 9000)], [Finished("stop")])


def test_size_counts_text_and_bytes() -> None:
    bare = size_of_batch([TextDelta("")])
    assert size_of_batch([TextDelta("abc")]) == bare + 3
    assert size_of_batch([TextDelta("é")]) == bare + 4
    assert size_of_batch([TextDelta("", original=Original("openai.chunk", b"1234"))]) == bare + 4


# ── what is kept ──


def of_size(size: int) -> KeptAnswer:
    return KeptAnswer((), size)


def cache(**rules: Any) -> AnswerCache:
    return AnswerCache(Cache(**rules), Counter[str]().update)


def test_an_answer_is_given_until_its_time_is_over() -> None:
    store = cache(ttl_s=10)
    store.put(b"k", of_size(1), 100)
    assert store.get(b"k", 109) is not None
    assert store.get(b"other", 100) is None
    assert store.get(b"k", 110) is None
    assert (len(store), store.size) == (0, 0)


def test_what_was_not_asked_for_the_longest_goes_first() -> None:
    store = cache(max_entries=2)
    store.put(b"a", of_size(1), 0)
    store.put(b"b", of_size(1), 0)
    assert store.get(b"a", 0) is not None
    store.put(b"c", of_size(1), 0)
    assert [store.get(key, 0) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_a_smaller_bound_is_in_force_from_the_next_answer_on() -> None:
    store = cache()
    for key in (b"a", b"b", b"c"):
        store.put(key, of_size(1), 0)
    store.rules = Cache(max_entries=1)
    store.put(b"d", of_size(1), 0)
    assert (len(store), store.get(b"d", 0) is not None) == (1, True)
    store.clear()
    assert (len(store), store.size) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.booleans())),
    st.integers(1, 4),
    st.integers(1, 100),
    st.integers(1, 50),
)
def test_the_bounds_hold_whatever_comes(
    steps: list[tuple[int, int, bool]], max_entries: int, max_bytes: int, max_answer_bytes: int
) -> None:
    store = cache(max_entries=max_entries, max_bytes=max_bytes, max_answer_bytes=max_answer_bytes, ttl_s=7)
    model: dict[bytes, tuple[int, int]] = {}
    for now, (name, size, put) in enumerate(steps):
        key = bytes([name])
        if put:
            store.put(key, of_size(size), now)
            model[key] = (now, size)
        else:
            found = store.get(key, now)
            if found is not None:
                assert model[key][1] == found.size, "the newest one is given"
                assert now - model[key][0] < 7
        assert len(store) <= max_entries
        assert 0 <= store.size <= max_bytes
        if put and size <= min(max_bytes, max_answer_bytes):
            assert store.get(key, now) is not None, "what has just come is there"
