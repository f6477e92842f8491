"""What one watcher is told of a run or a topic, pulled by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bus import ALL
from server.errors import Gone, InvalidRequest
from server.events import DATA_TYPES
from server.handlers.status_feed import (
    INCLUDES,
    Feed,
    RunFeed,
    TopicFeed,
    chosen_includes,
    chosen_types,
    conversation_in,
    topic_snapshot,
)
from server.run_log import Nap, Run, Runs
from server.settings import Runs as RunsSettings
from tests.run_clock import ANN
from tests.scripted_runs import M1, M2, Script

ALL_TEXT = frozenset({"answer", "drafts"})
NOTHING: frozenset[str] = frozenset()
LATER = 10.0
"""A time by which each window is over."""


def told(feed: Feed, now: float = 0.0, limit: int = 1000) -> list[Any]:
    return [msgspec.json.decode(item.json) for item in feed.pull(now, limit)]


def types(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def texts(events: list[Any]) -> list[tuple[str, int, str]]:
    return [
        (event.get("member", {"id": "summary"})["id"], event["data"]["text_offset"], event["data"]["text"])
        for event in events
        if event["type"].endswith(".delta")
    ]


def runs_of(**settings: Any) -> Runs:
    return Runs(RunsSettings(**settings))


def feed_of(run: Run, place: int = 0, **more: Any) -> RunFeed:
    return RunFeed(run, place, **{"include": NOTHING, "types": None, **more})


# What is chosen


@pytest.mark.parametrize(
    ("patterns", "some", "others"),
    [
        (["*"], set(DATA_TYPES), set()),
        (["model.*"], {"model.started", "model.delta"}, {"run.created"}),
        (["*.failed"], {"model.failed", "run.failed", "summary.failed"}, {"run.completed"}),
        (["run.created", "*ed"], {"run.created", "stage.quorum_reached"}, {"model.first_token"}),
        (["***.**d"], {"run.queued"}, {"run.in_progress"}),
        ([], set(), {"run.created"}),
    ],
)
def test_types_are_names_or_globs(patterns: list[str], some: set[str], others: set[str]) -> None:
    chosen = chosen_types(patterns)
    assert chosen is not None
    assert some <= chosen
    assert not others & chosen


@pytest.mark.parametrize(
    "pattern", ["", "run", "run.created.", "Run.*", "run.?", "[a-z]*", "*x*y*z*", "a" * 65]
)
def test_a_pattern_that_chooses_nothing_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chosen_types(["model.*", pattern])
    assert refused.value.param == "types"


@given(st.text("*.ab_", max_size=64))
def test_no_pattern_takes_long(pattern: str) -> None:
    try:
        chosen_types([pattern])
    except InvalidRequest:
        pass


def test_without_a_choice_all_types_are_told_and_no_text() -> None:
    assert chosen_types(None) is None
    assert chosen_includes(None, admin=False) == frozenset()


def test_what_may_be_included_is_known_and_channels_are_an_admins() -> None:
    assert chosen_includes(INCLUDES, admin=True) == INCLUDES
    for names, code in ((["prompts"], "invalid_value"), (["channels"], "not_allowed")):
        with pytest.raises(InvalidRequest) as refused:
            chosen_includes(names, admin=False)
        assert (refused.value.param, refused.value.code) == ("include", code)


@pytest.mark.parametrize(
    ("topic", "id"),
    [
        ("conversation:a", "a"),
        ("conversation:a:b", "a:b"),
        ("conversation:", None),
        ("self", None),
        ("", None),
    ],
)
def test_a_conversation_is_named_behind_its_colon(topic: str, id: str | None) -> None:
    assert conversation_in(topic) == id


# One run


def test_a_run_is_told_from_a_place_to_its_end_and_then_no_more() -> None:
    run = Script(runs_of(), ANN).whole()
    feed = feed_of(run, 3)
    assert [event["sequence_number"] for event in told(feed, limit=2)] == [4, 5]
    assert (feed.place, feed.done, feed.due(0.0)) == (5, False, 0.0)
    rest = told(feed)
    assert (rest[-1]["type"], feed.done, feed.due(0.0)) == ("run.completed", True, None)
    assert told(feed) == []
    assert feed_of(run, run.head).done


def test_the_end_of_a_text_is_told_before_what_ends_it_even_within_a_window() -> None:
    script = Script(runs_of(), ANN)
    run = script.begin()
    feed = feed_of(run, run.head, include=ALL_TEXT)
    script.say(M1, "one ")
    assert types(told(feed)) == ["model.first_token", "model.delta"]
    script.say(M1, "two")
    assert told(feed) == [], "the window is not over"
    due = feed.due(0.0)
    assert due is not None
    assert 0 < due <= 0.04
    script.finish(M1)
    ended = told(feed)
    assert types(ended) == ["model.delta", "model.finished"]
    assert texts(ended) == [("m1", 4, "two")]


def test_a_place_that_has_fallen_out_is_gone_and_not_a_part() -> None:
    run = Script(runs_of(max_events=8), ANN).whole()
    with pytest.raises(Gone):
        told(feed_of(run, 2))
    assert len(told(feed_of(run, run.first - 1))) == 8


def test_types_leave_events_out_and_the_place_goes_on() -> None:
    run = Script(runs_of(), ANN).whole()
    feed = feed_of(run, types=frozenset({"model.finished"}))
    assert types(told(feed)) == ["model.finished"] * 2
    assert (feed.place, feed.done) == (run.head, True)


def test_only_what_is_included_is_told_of_texts() -> None:
    for include, lanes in (
        (NOTHING, set()),
        (frozenset({"answer"}), {"summary"}),
        (frozenset({"drafts"}), {"m1", "m2"}),
        (ALL_TEXT, {"m1", "m2", "summary"}),
        (frozenset({"reasoning"}), set()),
    ):
        run = Script(runs_of(keep_text=True), ANN).whole()
        assert {lane for lane, _, _ in texts(told(feed_of(run, include=include)))} == lanes


def test_a_text_goes_on_from_its_cursor_and_one_past_the_end_brings_nothing() -> None:
    run = Script(runs_of(keep_text=True), ANN).whole()
    asked = {"m1": 6, "m2": 99, "summary:reasoning": 4, "nobody": 3}
    told_texts = texts(told(feed_of(run, include=ALL_TEXT, cursors=asked)))
    assert told_texts == [("m1", 6, "of m1"), ("summary", 0, "the answer")]


def test_texts_are_kept_for_as_long_as_a_feed_of_them_is_open() -> None:
    script = Script(runs_of(), ANN)
    run = script.begin()
    feed = feed_of(run, run.head, include=ALL_TEXT)
    twin = feed.fork()
    assert run.text_watchers == 2
    feed.close()
    feed.close()
    twin.close()
    assert run.text_watchers == 0


def test_a_fork_is_at_the_same_place_and_goes_its_own_way() -> None:
    script = Script(runs_of(), ANN)
    run = script.begin()
    feed = feed_of(run, 1, include=ALL_TEXT)
    twin = feed.fork()
    assert feed.is_at(twin)
    assert told(feed) == told(twin)
    script.say(M1, "more")
    told(feed, LATER)
    assert not feed.is_at(twin)
    assert texts(told(twin, LATER)) == [("m1", 0, "more")]
    assert feed.is_at(twin)
    assert not feed.is_at(TopicFeed(run._runs.bus.topic(ALL), run._runs, 1, include=ALL_TEXT, types=None))


def test_feeds_that_tell_the_same_are_of_one_crowd_but_progress_has_its_own_rhythm() -> None:
    runs = runs_of()
    run, other = Script(runs, ANN).begin(), Script(runs, ANN).begin()
    assert feed_of(run).crowd == feed_of(run, 3).crowd
    assert feed_of(run).crowd != feed_of(other).crowd
    assert feed_of(run).crowd != feed_of(run, include=ALL_TEXT).crowd
    assert feed_of(run).crowd != feed_of(run, types=frozenset({"run.created"})).crowd
    assert feed_of(run, include=frozenset({"progress"})).crowd is None


async def test_whoever_sleeps_on_a_feed_is_woken_by_events_and_by_its_texts_only() -> None:
    script = Script(runs_of(), ANN)
    run = script.begin()
    script.say(M1, "x")
    for include, by_text in ((NOTHING, False), (ALL_TEXT, True)):
        feed, nap = feed_of(run, run.head, include=include), Nap()
        feed.sleep(nap)
        run.lane("m1").add("text", "more")
        assert nap.woken.done() is by_text
        feed.unsleep(nap)
        nap = Nap()
        feed.sleep(nap)
        run.control("answer_now", "ann")
        assert nap.woken.done()
        feed.unsleep(nap)
        feed.close()
    assert not run.sleepers.asleep


def test_the_backlog_counts_what_came_since_the_feed_was_opened() -> None:
    script = Script(runs_of(), ANN)
    run = script.begin()
    feed = feed_of(run)  # far behind, but that is no fault of its reader
    assert feed.backlog == 0
    script.say(M1, "x")
    assert feed.backlog == 1
    told(feed)
    assert feed.backlog == 0


# A topic


def test_a_topic_tells_all_runs_in_the_order_in_which_they_told() -> None:
    runs = runs_of(keep_text=True)
    feed = TopicFeed(runs.bus.topic(ALL), runs, 0, include=ALL_TEXT, types=None)
    one, two = Script(runs, ANN), Script(runs, ANN, conversation_id="c")
    one.begin()
    two.whole()
    one.say(M2, "late")
    heard = told(feed, LATER)
    assert [event["run_id"] for event in heard if event["type"] == "run.created"] == [one.run.id, two.run.id]
    assert texts(heard)[-1] == ("m2", 0, "late")
    assert (feed.done, feed.place) == (False, runs.bus.topic(ALL).head)


def test_of_a_conversation_the_others_are_passed_over_and_the_place_goes_on() -> None:
    runs = runs_of()
    topic = runs.bus.topic(ALL)
    feed = TopicFeed(topic, runs, 0, include=NOTHING, types=None, conversation_id="c")
    Script(runs, ANN).whole()
    mine = Script(runs, ANN, conversation_id="c").whole()
    heard = told(feed)
    assert {event["run_id"] for event in heard} == {mine.id}
    assert feed.place == topic.head


def test_texts_of_a_topic_go_on_from_their_cursors_and_of_other_runs_from_their_beginning() -> None:
    runs = runs_of(keep_text=True)
    topic = runs.bus.topic(ALL)
    known, unknown = Script(runs, ANN), Script(runs, ANN)
    for script in (known, unknown):
        script.begin()
        script.say(M1, "0123456789")
    came_back = TopicFeed(
        topic,
        runs,
        topic.head,
        include=ALL_TEXT,
        types=None,
        under_way=[known.run, unknown.run],
        cursors={f"{known.run.id}/m1": 7},
    )
    assert sorted(texts(told(came_back, LATER))) == [("m1", 0, "0123456789"), ("m1", 7, "789")]
    fresh = TopicFeed(
        topic, runs, topic.head, include=ALL_TEXT, types=None, under_way=[known.run, unknown.run]
    )
    assert texts(told(fresh, LATER)) == [], "its snapshot had all of that"
    for feed in (came_back, fresh):
        feed.close()
    assert known.run.text_watchers == 0


def test_a_place_of_a_topic_that_has_fallen_out_is_gone() -> None:
    runs = runs_of(max_topic_events=16)
    feed = TopicFeed(runs.bus.topic(ALL), runs, 0, include=NOTHING, types=None)
    Script(runs, ANN).whole()
    Script(runs, ANN).whole()
    with pytest.raises(Gone):
        told(feed)


def test_an_ended_run_is_let_go_of_by_a_topic_that_told_its_texts() -> None:
    runs = runs_of()
    script = Script(runs, ANN)
    feed = TopicFeed(runs.bus.topic(ALL), runs, 0, include=ALL_TEXT, types=None)
    script.begin()
    told(feed)
    assert script.run.text_watchers == 1
    script.run.close()
    told(feed)
    assert script.run.text_watchers == 0


def test_the_snapshot_of_a_topic_is_a_list_of_the_runs_under_way() -> None:
    runs = runs_of()
    script = Script(runs, ANN)
    script.begin()
    script.say(M1, "secret")
    shown = topic_snapshot([script.run], NOTHING)
    assert (shown["object"], [one["id"] for one in shown["data"]]) == ("list", [script.run.id])
    assert "secret" not in str(shown)
    assert "secret" in str(topic_snapshot([script.run], ALL_TEXT))
