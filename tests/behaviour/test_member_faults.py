"""Member faults × strategies: what the client gets, how it is told, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple, get_args

import pytest
from msgspec.structs import replace

from server.app_keys import RUNS
from server.events import MEMBER_ENDS
from server.run_check import check_run
from server.settings import Breaker, Combination, Member, Settings, Strategy, Summary, TimeoutsPatch
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.strategy_settings import Accept, BestOf, Cascade, Council, Critique, Judge, Moa, Race, Steps, Vote
from tests.behaviour.asking import assert_nothing_left, both, data_lines, post
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import Answer

DRAFT = "The number that was asked for, after long thought, is certainly\n42"
VERDICT = '{"winner": "A", "ranking": ["A", "B"], "score": 9, "unique": ["x"]}'
CUT = Script(pieces=("Some ", "words ", "more"), cut_after=2)
FAULTS: dict[str, Script] = {
    "401": Script(status=401),
    "429": Script(status=429),
    "500": Script(status=500),
    "cut before": Script(cut_after=0),
    "cut after content": CUT,
    "hang": Script(silent=True),
    "empty": Script(pieces=()),
    "garbage": Script(body="data: \x00<html>{{%s}}</draft>\n\n"),
    "slow": Script(pieces=(DRAFT[:9], DRAFT[9:40], DRAFT[40:]), pace_ms=80),
}
CODES = {
    "401": "upstream_auth",
    "429": "rate_limit_exceeded",
    "500": "upstream_error",
    "cut before": "upstream_cut",
    "cut after content": "upstream_cut",
    "hang": "upstream_timeout_first_token",
    "empty": "upstream_empty",
    "garbage": "upstream_invalid",
}
ENDS = ("run.completed", "run.incomplete", "run.failed", "run.cancelled")
ONE_MODEL = ("direct", "steps")
PANELS: list[Strategy] = [one for one in get_args(Strategy) if one not in ONE_MODEL]


class Expected(NamedTuple):
    """An answer of one of these levels; or an error with this status and code."""

    levels: tuple[str, ...] = ()
    status: int = 200
    code: str = ""


def with_one(strategy: str, fault: str) -> Expected:
    """What comes of three members, the first of which is at fault."""
    if strategy == "fallback" and fault == "cut after content":
        return Expected(status=502, code="upstream_cut")  # its first word was the answer
    if fault == "slow" and strategy in ("race", "fallback", "cascade"):
        return Expected(("none",))  # it is no fault there: either it answers, or it lost
    if strategy == "race":
        return Expected(("none", "quorum"))  # the others may have won before it failed
    return Expected(("quorum",))


def with_all(strategy: str, fault: str) -> Expected:
    """What comes of three members at fault."""
    if fault == "slow":
        # Whose ranking is the text of a draft has ranked nothing.
        return Expected(("no_analysis",) if strategy == "council" else ("none",))
    if strategy == "fallback" and fault == "cut after content":
        return Expected(status=502, code="upstream_cut")
    return Expected(status=504 if fault == "hang" else 502, code="all_members_failed")


def with_one_model(strategy: str, fault: str) -> Expected:
    """What comes of a strategy that asks one model, which is at fault."""
    if fault == "slow":
        return Expected(("none",))
    if strategy == "steps" and fault == "empty":
        return Expected(status=502, code="upstream_empty")
    if strategy == "steps" and fault == "cut after content":
        return Expected(status=502, code="upstream_cut")
    status = {"429": 429, "hang": 504}.get(fault, 502)
    return Expected(status=status, code=CODES[fault])


def members(fault: str, *models: str) -> tuple[Member, ...]:
    """Those named ``bad…`` have little time to begin where it is their fault to use it up."""
    hurry = TimeoutsPatch(first_token_s=0.2) if fault == "hang" else TimeoutsPatch()
    return tuple(
        Member(model=model, timeouts=hurry if model.startswith("bad") else TimeoutsPatch())
        for model in models
    )


def serving(strategy: Any, fault: str) -> Any:
    """Four combinations: one or all members at fault, for a plain request and for a stream.

    Each model at fault has a channel of its own, so that what is learned of one says nothing of another.
    """
    bad = [f"bad-{n}" for n in range(8)]
    one = Combination(
        name="one-plain",
        strategy=strategy,
        members=members(fault, bad[0], "good", "good"),
        summary=Summary(model="writer", mode="analysis", attempts=1),
        attempts=1,
        grace_s=0.05,
        vote=Vote(type="number", on_tie="synthesize"),
        cascade=Cascade(accept=Accept(regex="42")),
        moa=Moa(rounds=3),
        race=Race(confirm_chars=15),
        steps=Steps(max_steps=1),
    )
    if strategy in ONE_MODEL:
        one = replace(one, members=(), summary=None, model=bad[0])
        sets: list[dict[str, Any]] = [{"model": bad[0]}, {"model": bad[1]}]
    else:
        sets = [
            {"members": members(fault, *models)}
            for models in ((bad[0], "good", "good"), (bad[1], "good", "good"), bad[2:5], bad[5:8])
        ]
    names = ("one-plain", "one-stream", "all-plain", "all-stream")
    combinations = tuple(replace(one, name=name, **own) for name, own in zip(names, sets, strict=False))

    def settings(sim: OpenAISimulator) -> Settings:
        for model in bad:
            sim.script(FAULTS[fault], model=model, times=50)
        sim.script(Script(text=DRAFT), model="good", times=50)
        sim.script(Script(text=VERDICT), model="writer", times=50)
        hurry = TimeoutsPatch(first_token_s=0.2) if fault == "hang" else TimeoutsPatch()
        lame = [channel(sim, model, name=model, timeouts=hurry) for model in bad]
        sound = channel(sim, "good", "writer", name="sound")
        return Settings(channels=(*lame, sound), combinations=combinations, logging=QUIET)

    return settings


def check_plain(answer: Answer, expected: Expected) -> None:
    assert answer.status == expected.status, answer.body
    told = answer.json()
    if expected.code:
        assert told["error"]["code"] == expected.code
        return
    assert answer.headers["x-antiphon-level"] in expected.levels
    if "antiphon" in told:
        assert told["antiphon"]["level"] == answer.headers["x-antiphon-level"]
    assert told["choices"][0]["message"]["content"]


def check_stream(answer: Answer, expected: Expected) -> None:
    if answer.status != 200:  # the head had not left when it failed
        check_plain(answer, expected)
        return
    *said, last = data_lines(answer.body)
    if expected.code:
        assert json.loads(last)["error"]["code"] == expected.code
        return
    assert last == b"[DONE]"
    assert any(choice["delta"].get("content") for chunk in said for choice in json.loads(chunk)["choices"])


def check_events(server: Antiphon, answer: Answer, expected: Expected, fault: str) -> None:
    """The log is in order, and every call and the run ended once."""
    run = server.app[RUNS].find(answer.headers["x-run-id"])
    assert run is not None
    events = run.events_after(0)
    assert check_run(events) == []
    begun = {event.member.id for event in events if event.type == "model.started" and event.member}
    ends = [event.member.id for event in events if event.type in MEMBER_ENDS and event.member]
    assert len(set(ends)) == len(ends)
    assert begun <= set(ends)
    assert [event.type for event in events if event.type in ENDS] == [events[-1].type]
    assert events[-1].type == ("run.failed" if expected.code else "run.completed")
    if not expected.code:
        assert events[-1].data.level in expected.levels  # type: ignore[attr-defined]
    failed = {event.data.code for event in events if event.type == "model.failed"}  # type: ignore[attr-defined]
    assert failed <= {CODES.get(fault)}


async def check(strategy: str, fault: str, cases: dict[str, Expected]) -> None:
    async with both(serving(strategy, fault)) as (server, sim):
        answers = await asyncio.gather(
            *(post(server, ask(name, stream=name.endswith("stream"))) for name in cases)
        )
        for (name, expected), answer in zip(cases.items(), answers, strict=True):
            (check_stream if name.endswith("stream") else check_plain)(answer, expected)
            check_events(server, answer, expected, fault)
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)


@pytest.mark.parametrize("strategy", PANELS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_one_member_or_of_all_is_an_answer_or_one_error(strategy: str, fault: str) -> None:
    one, all_of_them = with_one(strategy, fault), with_all(strategy, fault)
    await check(
        strategy,
        fault,
        {"one-plain": one, "one-stream": one, "all-plain": all_of_them, "all-stream": all_of_them},
    )


@pytest.mark.parametrize("strategy", ONE_MODEL)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_only_model_is_its_own_error(strategy: str, fault: str) -> None:
    expected = with_one_model(strategy, fault)
    # A plain answer that is relayed has other clocks, and no pieces to be cut between: tests/upstreams.
    cases = ["one-stream"] if strategy == "direct" else ["one-plain", "one-stream"]
    await check(strategy, fault, dict.fromkeys(cases, expected))


# ── who judges, criticises or writes ──

WRITERS: dict[str, dict[str, Any]] = {
    "synthesize": {"strategy": "synthesize"},
    "moa": {"strategy": "moa"},
    "critique": {"strategy": "critique", "judge": Judge(model="sound-judge")},
    "chair": {"strategy": "council", "council": Council(chair="aid")},
    "tie": {"strategy": "vote", "vote": Vote(type="number", on_tie="synthesize", min_agreement=1)},
}
ADVISERS: dict[str, dict[str, Any]] = {
    "analysis": {"strategy": "synthesize", "summary": Summary(model="writer", mode="analysis")},
    "critic": {"strategy": "critique", "critique": Critique(critic="aid", rounds=2)},
    "judge": {"strategy": "best_of"},
    "list": {"strategy": "best_of", "best_of": BestOf(method="list")},
    "scorer": {"strategy": "best_of", "best_of": BestOf(method="scorer")},
    "test": {"strategy": "cascade", "cascade": Cascade(accept=Accept(score=5))},
}
LEVELS = {"analysis": "no_analysis", "critic": "no_analysis"}


def aided(fault: str, **settings: Any) -> Any:
    """A panel of sound members, whose judge, critic or writer (the model ``aid``) is at fault."""
    hurry = TimeoutsPatch(first_token_s=0.2) if fault == "hang" else TimeoutsPatch()
    given: dict[str, Any] = {
        "summary": Summary(model="aid", attempts=1),
        "judge": Judge(model="aid"),
        "attempts": 1,
        **settings,
    }

    def settings_of(sim: OpenAISimulator) -> Settings:
        sim.script(FAULTS[fault], model="aid", times=50)
        for place in range(3):
            sim.script(Script(text=f"{DRAFT}{place}"), model=f"good-{place}", times=50)
        for model in ("writer", "sound-judge"):
            sim.script(Script(text=VERDICT), model=model, times=50)
        good = [f"good-{place}" for place in range(3)]
        channels = (
            channel(sim, "aid", name="aid", timeouts=hurry, breaker=Breaker(failures=0, rate=0)),
            channel(sim, *good, "writer", "sound-judge", name="sound"),
        )
        one = Combination(name="one-plain", members=tuple(Member(model=model) for model in good), **given)
        two = replace(one, name="one-stream")
        return Settings(channels=channels, combinations=(one, two), logging=QUIET)

    return settings_of


async def check_aid(fault: str, expected: Expected, **settings: Any) -> None:
    async with both(aided(fault, **settings)) as (server, sim):
        for name in ("one-plain", "one-stream"):
            answer = await post(server, ask(name, stream=name.endswith("stream")))
            (check_stream if name.endswith("stream") else check_plain)(answer, expected)
            check_events(server, answer, expected, fault)
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)


@pytest.mark.parametrize("role", WRITERS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_writer_at_fault_is_an_error_or_the_best_draft(role: str, fault: str) -> None:
    settings = WRITERS[role]
    if fault == "slow":
        await check_aid(fault, Expected(("none", "no_analysis")), **settings)
        return
    status = {"429": 429, "hang": 504}.get(fault, 502)
    await check_aid(fault, Expected(status=status, code=CODES[fault]), **settings)
    summary = Summary(model="aid", attempts=1, fallback=("best_draft",))
    begun = Expected(status=502, code="upstream_cut")  # nothing is glued to what has left
    expected = begun if fault == "cut after content" else Expected(("best_draft",))
    await check_aid(fault, expected, **settings, summary=summary)


@pytest.mark.parametrize("role", ADVISERS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_adviser_at_fault_costs_only_the_advice(role: str, fault: str) -> None:
    settings = {"summary": Summary(model="writer"), **ADVISERS[role]}
    level = LEVELS.get(role, "best_draft")
    if role == "critic" and fault == "slow":
        level = "none"  # whatever it says is a critique
    await check_aid(fault, Expected((level,)), **settings)
