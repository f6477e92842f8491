"""Whose turn it is for a channel's slots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.routing.turns import EACH, Caller, Slots


class Crowd:
    """Callers at one channel's slots; ``order`` is that in which they were let in."""

    def __init__(self, limit: int, for_members: int | None = None) -> None:
        self.slots = Slots(limit, limit if for_members is None else for_members)
        self.order: list[Caller] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def comes(self, *callers: Caller) -> None:
        """They ask, in this order; who need not wait is in when this returns."""
        for caller in callers:
            self.tasks.append(asyncio.create_task(self._ask(caller)))
            await asyncio.sleep(0)

    async def _ask(self, caller: Caller) -> None:
        await self.slots.acquire(caller)
        self.order.append(caller)

    async def leaves(self, caller: Caller) -> None:
        self.slots.release(caller)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def all_in(self, first: Caller) -> list[Caller]:
        """Let everybody in, one after the other, and out again; the order in which they came in."""
        before, out = len(self.order), first
        while any(not task.done() for task in self.tasks):
            await self.leaves(out)
            out = self.order[-1]
        return self.order[before:]


def member(run: str, key: str = "k") -> Caller:
    return Caller(key, run, member=True)


def alone(run: str, key: str = "k") -> Caller:
    return Caller(key, run)


def runs(callers: Iterable[Caller]) -> list[str]:
    return [caller.run for caller in callers]


async def test_while_there_is_room_nobody_waits() -> None:
    crowd = Crowd(3)
    await crowd.comes(alone("a"), member("b"), member("b"))
    assert runs(crowd.order) == ["a", "b", "b"]
    assert crowd.slots.locked(alone("c"))


async def test_runs_are_let_in_by_turns_not_by_how_many_calls_they_have() -> None:
    crowd = Crowd(1)
    held = member("held")
    await crowd.comes(held, *[member("big")] * 4, member("small"), member("other"), member("small"))
    assert runs(await crowd.all_in(held)) == ["big", "small", "other", "big", "small", "big", "big"]


async def test_keys_are_let_in_by_turns_not_by_how_many_runs_they_have() -> None:
    crowd = Crowd(1)
    held = alone("held")
    await crowd.comes(held, *(alone(f"loud{n}", "loud") for n in range(4)), alone("quiet", "quiet"))
    assert runs(await crowd.all_in(held)) == ["loud0", "quiet", "loud1", "loud2", "loud3"]


async def test_a_plain_call_goes_before_the_calls_of_a_storm() -> None:
    crowd = Crowd(1)
    held = member("held")
    await crowd.comes(held, *(member(f"storm{n}") for n in range(50)), alone("plain"))
    assert runs(await crowd.all_in(held))[0] == "plain"


async def test_a_storm_of_plain_calls_does_not_put_a_combination_off_for_ever() -> None:
    crowd = Crowd(1)
    held = alone("held")
    await crowd.comes(held, *(alone(f"plain{n}") for n in range(20)), member("panel"), member("panel"))
    order = runs(await crowd.all_in(held))
    assert [place for place, run in enumerate(order) if run == "panel"] == [EACH - 1, 2 * EACH - 1]


async def test_a_share_of_the_slots_is_never_taken_by_combinations() -> None:
    crowd = Crowd(4, for_members=3)
    await crowd.comes(*(member(f"storm{n}") for n in range(20)))
    assert len(crowd.order) == 3
    assert not crowd.slots.locked(alone("plain"))
    await crowd.comes(alone("plain"))
    assert crowd.order[-1].run == "plain", "it did not wait"
    await crowd.leaves(alone("plain"))
    assert len(crowd.order) == 4, "its slot stays free"
    for task in crowd.tasks:
        task.cancel()
    await asyncio.gather(*crowd.tasks, return_exceptions=True)


async def test_plain_calls_may_take_all_of_them() -> None:
    crowd = Crowd(4, for_members=3)
    await crowd.comes(*(alone(f"plain{n}") for n in range(4)))
    assert len(crowd.order) == 4


async def test_who_leaves_the_queue_is_not_let_in() -> None:
    crowd = Crowd(1)
    held = alone("held")
    await crowd.comes(held, alone("gone"), alone("next"))
    crowd.tasks[1].cancel()
    await asyncio.sleep(0)
    await crowd.leaves(held)
    assert runs(crowd.order) == ["held", "next"]


async def test_who_leaves_in_the_moment_of_being_let_in_hands_the_slot_on() -> None:
    crowd = Crowd(1)
    held = alone("held")
    await crowd.comes(held, alone("gone"), alone("next"))
    crowd.slots.release(held)  # the turn is given, the task has not run
    crowd.tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await crowd.tasks[1]
    await asyncio.sleep(0)
    assert runs(crowd.order) == ["held", "next"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.sampled_from("xyz"), st.sampled_from("123"), st.booleans()),
        st.tuples(st.just("leaves"), st.integers(0, 100)),
        st.tuples(st.just("cancels"), st.integers(0, 100)),
        st.tuples(st.just("turn")),
    ),
    max_size=60,
)


@given(limit=st.integers(1, 5), kept=st.integers(0, 2), steps=STEPS)
@hypothesis_settings(deadline=None, max_examples=150)
def test_whatever_happens_no_slot_is_lost_and_none_is_given_twice(
    limit: int, kept: int, steps: list[tuple[object, ...]]
) -> None:
    asyncio.run(_whatever_happens(limit, max(1, limit - kept), steps))


async def _whatever_happens(limit: int, for_members: int, steps: list[tuple[object, ...]]) -> None:
    slots = Slots(limit, for_members)
    inside: list[tuple[asyncio.Event, Caller]] = []
    tasks: list[asyncio.Task[None]] = []

    async def call(caller: Caller) -> None:
        await slots.acquire(caller)
        leave = asyncio.Event()
        inside.append((leave, caller))
        try:
            await leave.wait()
        finally:
            inside.remove((leave, caller))
            slots.release(caller)

    for step in steps:
        match step:
            case ("comes", str(key), str(run), bool(is_member)):
                tasks.append(asyncio.create_task(call(Caller(key, run, member=is_member))))
            case ("leaves", int(at)) if inside:
                inside[at % len(inside)][0].set()
            case ("cancels", int(at)) if tasks:
                tasks[at % len(tasks)].cancel()
            case ("turn",):
                await asyncio.sleep(0)
        assert len(inside) <= limit
        assert sum(caller.member for _, caller in inside) <= for_members
        if step != ("turn",):
            continue  # several things happen in one turn of the loop
        for _ in range(4):
            await asyncio.sleep(0)
        waiting = sum(not task.done() for task in tasks) - len(inside)
        if waiting:
            full = len(inside) == limit
            assert full or sum(caller.member for _, caller in inside) == for_members, "a slot is idle"
    async with asyncio.timeout(10):
        while any(not task.done() for task in tasks):
            for leave, _ in inside:
                leave.set()
            await asyncio.sleep(0)
    for _ in range(limit):  # all of them are free again
        assert not slots.locked(Caller())
        await slots.acquire(Caller())
    assert slots.locked(Caller())
