"""What an answer tells of the calls that were made for it."""

from __future__ import annotations

from dataclasses import dataclass

from server.handlers.telling import MAX_WARNINGS_TOLD
from server.handlers.telling import warnings_told as told_by
from server.upstreams.base import Call


@dataclass
class Log:
    id: str
    state: str = "finished"


def adapting(*warnings: str, parts: tuple[tuple[Log, Call], ...] = ()) -> Call:
    call = Call()
    call.channel, call.parts = "c", parts
    if warnings:
        call.adapted("c", warnings)
    return call


def warnings_told(call: Call) -> list[str]:
    return told_by(call, lambda param: param)


def test_a_field_is_told_by_the_clients_own_name() -> None:
    own = {"stop": "stop_sequences"}
    call = adapting("stop was left out", "the stop")
    expected = ["stop_sequences was left out", "the stop"]
    assert told_by(call, lambda param: own.get(param, param)) == expected
    told = told_by(adapting(parts=((Log("m1"), call),)), lambda param: own.get(param, param))
    assert told == [f"m1: {one}" for one in expected]


def test_of_one_call_what_it_adapted_is_told_as_it_is() -> None:
    assert warnings_told(adapting("seed was left out", "top_k was left out")) == [
        "seed was left out",
        "top_k was left out",
    ]
    assert warnings_told(adapting()) == []


def test_what_another_channel_adapted_before_it_failed_is_not_told() -> None:
    call = adapting("seed was left out")
    call.channel = "another"
    assert warnings_told(call) == []


def test_of_a_combination_each_warning_stands_behind_the_calls_that_it_is_true_of() -> None:
    within = adapting(parts=((Log("m1"), adapting("top_k was left out")),))
    calls = (
        (Log("m1"), adapting("seed was left out")),
        (Log("m2"), within),
        (Log("m3"), adapting("seed was left out", "top_p was left out: by this model")),
        (Log("summary"), adapting("seed was left out")),
        (Log("summary"), adapting("seed was left out")),
    )
    assert warnings_told(adapting(parts=calls)) == [
        "m1, m3, summary: seed was left out",
        "m2/m1: top_k was left out",
        "m3: top_p was left out: by this model",
    ]


def test_of_very_many_the_first_are_told_and_how_many_more_there_are() -> None:
    calls = tuple((Log(f"m{at}"), adapting(f"field{at} was left out")) for at in range(40))
    told = warnings_told(adapting(parts=calls))
    assert told[-2:] == ["m31: field31 was left out", f"and {40 - MAX_WARNINGS_TOLD} more"]
