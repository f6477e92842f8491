"""Who may change what a combination does."""

from __future__ import annotations

from typing import Any

import pytest

from server.settings import Access, AccessKey, Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import both, error_of, post
from tests.behaviour.running import QUIET, ask, channel

FREE, BOUND, NARROW, WIDE = (f"sk-{name}-0123456789" for name in ("free", "bound", "narrow", "wide"))


def settings(sim: OpenAISimulator) -> Settings:
    panel = Combination(
        name="panel",
        aliases=("crowd",),
        members=(Member(model="m1"), Member(model="second", id="two", samples=2, temperature=1)),
        vision_members=(Member(model="m3", id="eyes"),),
        summary=Summary(model="s"),
        max_cost=1,
    )
    keys = (
        AccessKey(name="free", key=FREE),
        AccessKey(name="bound", key=BOUND, override=False),
        AccessKey(name="narrow", key=NARROW, models=("panel",)),
        AccessKey(name="wide", key=WIDE, models=("panel", "m2")),
    )
    return Settings(
        access=Access(keys=keys),
        channels=(channel(sim, "m1", "m2", "m3", "s"),),
        aliases={"second": "m2"},
        combinations=(panel,),
        logging=QUIET,
    )


async def asked(server: Any, key: str, **wishes: Any) -> Any:
    return await post(server, ask("crowd", antiphon=wishes), f"Authorization: Bearer {key}")


async def test_a_key_without_the_right_may_change_nothing() -> None:
    async with both(settings) as (server, sim):
        for wish in ({"quorum": 1}, {"strategy": "race"}, {"members": ["m1"]}, {"none": 1}):
            error = error_of(await asked(server, BOUND, **wish), 403)
            assert (error["code"], error["type"]) == ("override_not_allowed", "permission_error")
            assert error["param"] == f"antiphon.{next(iter(wish))}"
        assert not sim.requests
        assert (await asked(server, BOUND)).status == 200
        assert (await asked(server, BOUND, background=True)).status == 202, "that is a right of its own"
        assert (await asked(server, FREE, quorum=1, strategy="race")).status == 200


async def test_a_wish_that_is_null_is_as_good_as_absent() -> None:
    async with both(settings) as (server, sim):
        nothing = dict.fromkeys(("strategy", "quorum", "grace_s", "members", "max_cost", "background"))
        told = (await asked(server, BOUND, **nothing)).json()
        assert (told["antiphon"]["strategy"], told["antiphon"]["level"]) == ("synthesize", "none")
        raced = await asked(server, FREE, **(nothing | {"strategy": "race"}))
        assert raced.json()["antiphon"]["strategy"] == "race"
        assert (
            await post(server, ask("m1", antiphon=nothing), f"Authorization: Bearer {FREE}")
        ).status == 200
        assert all(b"antiphon" not in request.body for request in sim.requests)


async def test_a_wish_that_is_not_known_is_told_what_there_is() -> None:
    async with both(settings) as (server, _):
        error = error_of(await asked(server, FREE, status="chunk"), 400)
        assert error["param"] == "antiphon.status"
        assert error["message"].endswith("deadline_s, max_cost, members, background.")


async def test_a_key_picks_only_members_that_it_may_call() -> None:
    async with both(settings) as (server, sim):
        for key, members, allowed in (
            (FREE, ["m1", "two"], True),
            (NARROW, ["m1"], False),
            (NARROW, ["two.2"], False),
            (WIDE, ["two"], True),
            (WIDE, ["two.1"], True),
            (WIDE, ["two", "m1"], False),
            (WIDE, ["eyes"], False),
        ):
            before = len(sim.requests)
            answer = await asked(server, key, members=members)
            if allowed:
                assert answer.status == 200, answer.body
                continue
            error = error_of(answer, 403)
            assert (error["code"], error["param"]) == ("model_not_allowed", "antiphon.members")
            assert len(sim.requests) == before
        assert (await asked(server, NARROW, quorum=1)).status == 200, "all of them it may have asked"


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"members": ["nobody"]}, None),
        ({"members": "m1"}, "invalid_type"),
        ({"members": [1]}, "invalid_type"),
        ({"members": []}, None),
        ({"quorum": 4}, None),
        ({"quorum": 1.5}, "invalid_type"),
        ({"grace_s": 5.1}, None),
        ({"grace_s": "5"}, "invalid_type"),
        ({"deadline_s": 1e9}, None),
        ({"max_cost": 2}, None),
        ({"max_cost": 0}, None),
        ({"strategy": "vote"}, None),
        ({"strategy": "Race"}, None),
        ({"strategy": 1}, "invalid_type"),
        ({"qorum": 1}, None),
        ({"tools": "summary"}, None),
    ],
    ids=str,
)
async def test_what_is_unknown_or_beyond_its_limit_is_refused(wish: dict[str, Any], code: str) -> None:
    async with both(settings) as (server, sim):
        error = error_of(await asked(server, FREE, **wish), 400)
        assert error["param"] == f"antiphon.{next(iter(wish))}"
        assert code is None or error["code"] == code
        assert not sim.requests


async def test_the_field_is_read_nowhere_but_at_its_place() -> None:
    turns = [{"role": "user", "content": "x", "antiphon": {"strategy": "all"}}]
    async with both(settings) as (server, _):
        body = ask("panel") | {"messages": turns, "metadata": {"antiphon": "race"}, "strategy": "race"}
        told = (await post(server, body, f"Authorization: Bearer {BOUND}")).json()
        assert told["antiphon"]["strategy"] == "synthesize"
