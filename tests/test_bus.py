"""A topic is read from any place that is kept, and wakes each sleeper once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.bus import MemoryBus, Topic
from server.events import Event, RunInProgress


def event(number: int) -> Event:
    return Event(number, 0, 0, "run_x", RunInProgress())


def numbers(events: list[Event] | None) -> list[int] | None:
    return None if events is None else [one.sequence_number for one in events]


class Sleeper:
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@given(
    count=st.integers(0, 300), kept=st.integers(1, 200), after=st.integers(0, 320), limit=st.integers(1, 400)
)
def test_what_follows_an_offset_is_whole_or_refused(count: int, kept: int, after: int, limit: int) -> None:
    topic = Topic(kept)
    for number in range(1, count + 1):
        topic.append(event(number))
    assert topic.head == count
    everything = list(range(after + 1, count + 1))
    if after >= count:
        assert topic.after(after, limit) == []
    elif after + 1 < topic.first:
        assert topic.after(after, limit) is None
    else:
        assert numbers(topic.after(after, limit)) == everything[:limit]


def test_a_sleeper_is_woken_once_and_has_to_lie_down_again() -> None:
    topic, sleeper, other = Topic(10), Sleeper(), Sleeper()
    topic.sleepers.add(sleeper)
    topic.sleepers.add(other)
    topic.sleepers.discard(other)
    topic.append(event(1))
    topic.append(event(2))
    assert (sleeper.woken, other.woken) == (1, 0)


def test_each_bus_has_its_own_epoch_and_a_topic_begins_when_asked_for() -> None:
    one, two = MemoryBus(10), MemoryBus(10)
    assert one.epoch != two.epoch
    assert one.topic("all") is one.topic("all")
    assert list(one.topics()) == ["all"]
    assert (one.topic("all").first, one.topic("all").head) == (1, 0)
