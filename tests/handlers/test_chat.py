"""``POST /v1/chat/completions``: who answers, under which run, and that both forms of the answer agree."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    error_of,
    get,
    post,
    text_of,
)
from tests.behaviour.running import QUIET, ask, channel

RUN = "run_" + "0123456789abcdef" * 2


def settings(sim: OpenAISimulator) -> Settings:
    members = (Member(model="m1"), Member(model="m2"))
    panel = Combination(name="panel", members=members, summary=Summary(model="s"), quorum=2, grace_s=60)
    every = Combination(name="every", strategy="all", members=members)
    one = Combination(name="one", strategy="direct", model="m")
    return Settings(
        channels=(channel(sim, "m", "m1", "m2", "s"),), combinations=(panel, every, one), logging=QUIET
    )


# ── the run ──


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["m", "panel", "every", "one"])
async def test_a_client_may_choose_the_id_of_its_run(model: str, stream: bool) -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, ask(model, stream=stream), f"x-run-id: {RUN}")
        assert answer.status == 200
        assert answer.headers["x-run-id"] == RUN
        told = (await get(server, f"/v1/runs/{RUN}")).json()
        assert (told["model"], told["status"]) == (model, "completed")


async def test_an_id_that_a_run_has_already_is_refused_and_the_run_left_alone() -> None:
    async with both(settings) as (server, sim):
        assert (await post(server, ask(), f"x-run-id: {RUN}")).status == 200
        assert error_of(await post(server, ask(), f"x-run-id: {RUN}"), 409)["code"] == "conflict"
        assert len(sim.requests) == 1
        assert (await get(server, f"/v1/runs/{RUN}")).json()["status"] == "completed"


@pytest.mark.parametrize("wrong", ["run_1", "mine", RUN.upper(), RUN + "0", "run_" + "g" * 32])
async def test_an_unfit_id_of_a_run_is_the_clients_fault(wrong: str) -> None:
    async with both(settings) as (server, sim):
        assert error_of(await post(server, ask(), f"x-run-id: {wrong}"), 400)["param"] == "x-run-id"
        assert not sim.requests


async def test_a_request_that_is_refused_starts_no_run() -> None:
    async with both(settings) as (server, _sim):
        for body in (b"{", ask("nobody"), {"model": "m"}):
            answer = await post(server, body)
            assert answer.status in (400, 404)
            assert "x-run-id" not in answer.headers
        assert (await get(server, "/v1/runs")).json()["data"] == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_run_that_fails_is_named_in_the_error_too(stream: bool) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=400))
        answer = await post(server, ask(stream=stream))
        error_of(answer, 400)
        told = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
        assert told["status"] == "failed"


# ── who answers ──


async def test_a_combination_tells_how_its_answer_came_about_and_a_model_does_not() -> None:
    async with both(settings) as (server, _sim):
        told = await post(server, ask("panel"))
        info = told.json()["antiphon"]
        assert info["run_id"] == told.headers["x-run-id"]
        assert (info["strategy"], info["answer_by"]) == ("synthesize", "summary")
        assert {("m1", "m1"), ("m2", "m2")} <= {(one["id"], one["model"]) for one in info["members"]}
        assert told.headers["x-antiphon-level"] == info["level"]
        wish = ask("panel", stream=True, stream_options={"include_usage": True})
        streamed = chunks_of((await post(server, wish)).body)[-1]
        assert streamed["choices"] == []
        assert streamed["antiphon"].keys() == info.keys()
        for relayed in ("m", "one"):
            assert "antiphon" not in (await post(server, ask(relayed))).json()


@pytest.mark.parametrize("depth", ["", "x", "-1", "9999", "\u0662", "1.5", "0", "1", " 1 "])
async def test_an_odd_depth_counts_as_none(depth: str) -> None:
    async with both(settings) as (server, _sim):
        header = f"x-antiphon-depth: {depth}".encode().decode("latin-1")
        request = chat_request(ask("one"), "x-request-id: d")
        request = request.replace(b"x-request-id: d", header.encode("latin-1"))
        async with asked(server, request) as raw:
            assert (await raw.answer()).status == 200


async def test_too_deep_within_combinations_only_models_answer() -> None:
    async with both(settings) as (server, _sim):
        refused = await post(server, ask("one"), "x-antiphon-depth: 2")
        assert error_of(refused, 400)["code"] == "recursion_limit"
        assert (await post(server, ask("m"), "x-antiphon-depth: 2")).status == 200


# ── both forms say the same ──

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
ANSWERS = st.one_of(
    st.builds(lambda pieces: Script(pieces=tuple(pieces)), st.lists(TEXT, min_size=1, max_size=5)),
    st.builds(
        lambda text, thoughts: Script(text=text, reasoning=tuple(thoughts)),
        TEXT,
        st.lists(TEXT, min_size=1, max_size=3),
    ),
    st.builds(
        lambda name, arguments: Script(tools=(ToolCall(name=name, arguments=arguments),), text=""),
        st.text("abc_", min_size=1, max_size=8),
        TEXT,
    ),
)


async def test_streamed_or_whole_an_answer_says_the_same_whatever_it_is() -> None:
    async with both(settings) as (server, sim):

        @examples(max_examples=40, suppress_health_check=list(HealthCheck))
        @given(ANSWERS)
        def collect(script: Script) -> None:
            scripts.append(script)

        scripts: list[Script] = []
        collect()
        for script in scripts:
            sim.script(script, times=2)
            whole = (await post(server, ask())).json()["choices"][0]
            chunks = chunks_of((await post(server, ask(stream=True))).body)
            message = whole["message"]
            assert text_of(chunks) == (message["content"] or ""), script
            deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
            thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
            assert thought == (message.get("reasoning_content") or ""), script
            calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
            said = "".join(call["function"].get("arguments") or "" for call in calls)
            assert said == "".join(
                call["function"]["arguments"] for call in message.get("tool_calls") or ()
            ), script
            reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
            assert [one for one in reasons if one] == [whole["finish_reason"]], script
        assert_nothing_left(server)


async def test_what_the_run_tells_of_its_usage_is_what_the_client_got() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, ask())
        told = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
        assert told["usage"]["total_tokens"] == answer.json()["usage"]["total_tokens"] > 0
        assert json.dumps(told).count("hello") == 0, "no text is told unasked"


# ── the conversation ──


@pytest.mark.parametrize("model", ["m", "panel"])
async def test_a_conversations_id_is_told_in_events_and_goes_to_no_upstream(model: str) -> None:
    async with both(settings) as (server, sim):
        answer = await post(server, ask(model, conversation_id="mine"))
        assert answer.status == 200
        events = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}/events")).json()["data"]
        assert {event["conversation_id"] for event in events} == {"mine"}
        assert not any(b"conversation_id" in request.body for request in sim.requests)


@pytest.mark.parametrize("id", ["", "x" * 201])
async def test_an_id_of_a_conversation_that_is_none_is_refused(id: str) -> None:
    async with both(settings) as (server, sim):
        error = error_of(await post(server, ask(conversation_id=id)), 400)
        assert error["param"] == "conversation_id"
        assert sim.requests == []
