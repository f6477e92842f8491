"""Many models behind one name, seen from outside."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.price_settings import Price
from server.settings import Channel, ChannelModel, Combination, Member, Settings, Summary, TimeoutsPatch
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.strategy_settings import Steps, Vote
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    data_lines,
    error_of,
    get,
    post,
    text_of,
)
from tests.behaviour.panels import DRAFT, MEMBERS, asked_models, failing, panel, serving
from tests.behaviour.running import QUIET, ask, channel


async def test_the_summary_answers_under_the_name_of_the_combination() -> None:
    async with both(serving(panel())) as (server, sim):
        sim.script(Script(text="the summary", chunks=3), model="s", times=2)
        plain = await post(server, ask("panel"))
        told = plain.json()
        assert told["model"] == "panel"
        assert told["choices"][0]["message"]["content"] == "the summary"
        assert told["id"] == plain.headers["x-run-id"].replace("run_", "chatcmpl-")
        assert plain.headers["x-antiphon-level"] == told["antiphon"]["level"]
        streamed = await post(server, ask("panel", stream=True))
        chunks = chunks_of(streamed.body)
        assert text_of(chunks) == "the summary"
        assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {
            (streamed.headers["x-run-id"].replace("run_", "chatcmpl-"), "panel")
        }
        assert asked_models(sim) == ["m1", "m1", "m2", "m2", "m3", "m3", "s", "s"]


async def test_usage_is_the_sum_of_all_calls() -> None:
    async with both(serving(panel())) as (server, _sim):
        wish = ask("panel", stream=True, stream_options={"include_usage": True})
        for body in (ask("panel"), wish):
            answer = await post(server, body)
            told = chunks_of(answer.body)[-1] if body.get("stream") else answer.json()
            run = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}/events")).json()["data"]
            parts = [
                one["data"]["usage"] for one in run if one["type"] in ("model.finished", "summary.finished")
            ]
            assert len(parts) == 4
            assert told["usage"]["total_tokens"] == sum(part["total_tokens"] for part in parts)


async def test_members_get_the_whole_history_and_the_clients_own_wishes_bind_the_answer() -> None:
    async with both(serving(panel())) as (server, sim):
        history = [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "second"},
            {"role": "user", "content": "third"},
        ]
        await post(server, {"model": "panel", "messages": history, "temperature": 0.1, "max_tokens": 7})
        for request in sim.requests:
            body = request.json()
            if request.model == "s":
                assert body["max_tokens"] == 7
                assert "be short" in json.dumps(body["messages"])
            else:
                contents = [message["content"] for message in body["messages"]]
                assert [text for text in contents if text in ("first", "second", "third")] == [
                    "first",
                    "second",
                    "third",
                ]
            assert body["temperature"] == 0.1, "the client's wish goes before a member's"
        await post(server, ask("panel"))
        temperatures = [one.json().get("temperature") for one in sim.requests[4:] if one.model == "m3"]
        assert temperatures == [0.5]


async def test_a_quorum_does_not_wait_for_the_slowest() -> None:
    async with both(serving(panel(quorum=2, grace_s=0))) as (server, sim):
        sim.script(Script(silent=True), model="m2")
        assert (await post(server, ask("panel"))).status == 200
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert {request.model: request.outcome for request in sim.requests}["m2"] == "aborted"
        assert_nothing_left(server)


async def test_a_deadline_goes_on_with_what_there_is() -> None:
    async with both(serving(panel(deadline_s=0.3))) as (server, sim):
        failing(sim, "m2", "m3", script=Script(silent=True))
        assert (await post(server, ask("panel"))).status == 200
        await sim.wait_until(lambda: sim.stats()["live"] == 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_lone_survivors_draft_is_the_answer_word_for_word(stream: bool) -> None:
    async with both(serving(panel())) as (server, sim):
        failing(sim, "m1", "m3")
        sim.script(Script(text=DRAFT), model="m2")
        answer = await post(server, ask("panel", stream=stream))
        if stream:
            assert text_of(chunks_of(answer.body)) == DRAFT
        else:
            assert answer.json()["choices"][0]["message"]["content"] == DRAFT
        assert "s" not in asked_models(sim), "nothing is to be summarised"


@pytest.mark.parametrize("stream", [True, False])
async def test_without_any_draft_each_members_reason_is_told_and_no_summary_asked(stream: bool) -> None:
    async with both(serving(panel())) as (server, sim):
        failing(sim, "m1", "m2", "m3", script=Script(status=500))
        error = error_of(await post(server, ask("panel", stream=stream)), 502)
        assert error["code"] == "all_members_failed"
        assert len(error["details"]["members"]) == 3
        assert all(member["code"] for member in error["details"]["members"])
        assert "s" not in asked_models(sim)


async def test_a_summary_that_fails_falls_back_as_configured() -> None:
    summary = Summary(model="s", fallback=("s2", "best_draft"), attempts=1)
    async with both(serving(panel(summary=summary))) as (server, sim):
        failing(sim, "s")
        sim.script(Script(text="the second"), model="s2")
        answer = await post(server, ask("panel"))
        assert answer.json()["choices"][0]["message"]["content"] == "the second"
        failing(sim, "s", "s2")
        sim.script(Script(text=DRAFT), model="m1")
        failing(sim, "m2", "m3", script=Script(text=DRAFT))
        answer = await post(server, ask("panel"))
        assert answer.json()["choices"][0]["message"]["content"] == DRAFT


async def test_a_summary_that_fails_without_a_fallback_is_an_error_and_never_a_text() -> None:
    async with both(serving(panel(summary=Summary(model="s", attempts=1)))) as (server, sim):
        for stream in (True, False):
            failing(sim, "s", script=Script(status=500))
            answer = await post(server, ask("panel", stream=stream))
            if answer.status == 200:
                assert stream
                assert json.loads(data_lines(answer.body)[-1])["error"]["code"]
            else:
                assert answer.status >= 500
                error_of(answer, answer.status)
            async with server.client.delete(f"{sim.url}/sim/script") as cleared:
                assert cleared.status < 300


async def test_a_summary_that_is_cut_never_looks_whole() -> None:
    async with both(serving(panel())) as (server, sim):
        sim.script(Script(chunks=9, cut_after=3), model="s")
        answer = await post(server, ask("panel", stream=True))
        *_chunks, last = data_lines(answer.body)
        assert json.loads(last)["error"]["code"] == "upstream_cut"


async def test_the_summary_streams_live_and_the_run_is_named_before_it() -> None:
    async with both(serving(panel())) as (server, sim):
        sim.script(Script(chunks=6, stall_after=2), model="s")
        async with asked(server, chat_request(ask("panel", stream=True))) as raw:
            head = await raw.head()
            assert head.headers["x-run-id"].startswith("run_")
            body = b""
            while b"word2" not in body:
                body += await raw.chunk()
            run = (await get(server, f"/v1/runs/{head.headers['x-run-id']}")).json()
            assert run["status"] not in ("completed", "failed")


async def test_all_answers_with_every_draft_as_a_choice() -> None:
    every = Combination(name="every", strategy="all", members=MEMBERS)
    async with both(serving(every)) as (server, sim):
        for number in (1, 2, 3):
            sim.script(Script(text=f"from m{number}"), model=f"m{number}", times=2)
        plain = (await post(server, ask("every"))).json()
        assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2]
        texts = [choice["message"]["content"] for choice in plain["choices"]]
        assert texts == ["from m1", "from m2", "from m3"]
        streamed: dict[int, str] = {}
        for chunk in chunks_of((await post(server, ask("every", stream=True))).body):
            for choice in chunk["choices"]:
                said = choice["delta"].get("content") or ""
                streamed[choice["index"]] = streamed.get(choice["index"], "") + said
        assert streamed == dict(enumerate(texts))


async def test_ten_runs_at_once_do_not_mix() -> None:
    async with both(serving(panel(), Combination(name="every", strategy="all", members=MEMBERS))) as (
        server,
        _sim,
    ):

        async def one(number: int) -> None:
            answer = await post(server, ask("every", text=f"number {number}."))
            for choice in answer.json()["choices"]:
                assert f"number {number}." in choice["message"]["content"]

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(one(number))


async def test_an_early_failure_after_the_commit_is_told_in_the_stream() -> None:
    async with both(serving(panel(commit_after_s=0.05))) as (server, sim):
        failing(sim, "m1", "m2", "m3", script=Script(delay_ms=300, status=500))
        answer = await post(server, ask("panel", stream=True))
        assert answer.status == 200
        (last,) = data_lines(answer.body)
        error = json.loads(last)["error"]
        assert error["code"] == "all_members_failed"
        assert len(error["details"]["members"]) == 3


async def test_steps_stream_as_reasoning_and_the_answer_as_content() -> None:
    thinker = Combination(name="thinker", strategy="steps", model="s")
    async with both(serving(thinker)) as (server, sim):
        for text in ('{"title": "T", "content": "thought", "next_action": "final_answer"}', "the answer"):
            sim.script(Script(text=text, chunks=4), model="s")
        streamed = await post(server, ask("thinker", stream=True))
        chunks = chunks_of(streamed.body)
        assert text_of(chunks) == "the answer"
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        assert "".join(one.get("reasoning_content") or "" for one in deltas) == "Step 1: T\nthought\n\n"
        assert sum("role" in one for one in deltas) == 1
        assert [
            one["finish_reason"] for chunk in chunks for one in chunk["choices"] if one["finish_reason"]
        ] == ["stop"]
        assert not any("content" in one and one.get("reasoning_content") for one in deltas)


async def test_a_plain_answer_of_steps_may_be_o1_apis() -> None:
    o1 = Combination(name="o1", strategy="steps", model="s", steps=Steps(plain="o1-api"))
    async with both(serving(o1, default_combination="o1", unknown_model="default")) as (server, sim):
        for text in ('{"title": "T", "content": "thought", "next_action": "final_answer"}', "the answer"):
            sim.script(Script(text=text), model="s")
        told = (await post(server, ask("whatever"))).json()
        assert [one[:2] for one in told["steps"]] == [
            ["Step 1: T", "thought"],
            ["Final Answer", "the answer"],
        ]
        assert set(told) == {"steps", "total_thinking_time"}


@pytest.mark.parametrize("strategy", ["race", "fallback"])
async def test_a_race_streams_one_members_answer_under_the_combinations_name(strategy: Any) -> None:
    async with both(serving(panel(strategy=strategy))) as (server, sim):
        sim.script(Script(status=500, error_message="No."), model="m1", times=8)
        for name in ("m2", "m3"):
            sim.script(Script(text="A long enough answer from one member.", chunks=5), model=name, times=2)
        plain = await post(server, ask("panel"))
        assert plain.json()["choices"][0]["message"]["content"] == "A long enough answer from one member."
        assert plain.json()["antiphon"]["strategy"] == strategy
        streamed = await post(server, ask("panel", stream=True))
        assert text_of(chunks_of(streamed.body)) == "A long enough answer from one member."
        assert {chunk["model"] for chunk in chunks_of(streamed.body)} == {"panel"}
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)


async def test_votes_are_told_in_the_answer() -> None:
    async with both(serving(panel(strategy="vote", vote=Vote(type="number")))) as (server, sim):
        for name, text in (("m1", "so 4"), ("m2", "4.0"), ("m3", "5")):
            sim.script(Script(text=text), model=name)
        told = (await post(server, ask("panel"))).json()
        assert told["choices"][0]["message"]["content"] in ("so 4", "4.0")
        assert told["antiphon"]["agreement"] == 0.6667
        assert told["antiphon"]["level"] == "none"


async def test_a_stream_begins_at_the_first_word_of_a_draft() -> None:
    """From the first draft delta on a client sees that its answer is worked on."""
    gate = panel(commit_after_s=60, quorum=1, grace_s=60, deadline_s=60)
    async with both(serving(gate)) as (server, sim), asyncio.timeout(20):
        sim.script(Script(text="a draft that stalls", chunks=4, stall_after=3), model="m1")
        sim.script(Script(silent=True), model="m2")
        sim.script(Script(silent=True), model="m3")
        async with server.client.post(
            f"{server.url}/v1/chat/completions", json=ask("panel", stream=True)
        ) as response:
            assert response.status == 200
            assert await response.content.readline() == b": keep-alive\n"
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)


async def test_what_an_answer_and_its_calls_cost_is_told_with_it() -> None:
    price = Price(input=1, output=2)
    names = ("m1", "m2", "m3", "s")

    def settings(sim: OpenAISimulator) -> Settings:
        models = {name: ChannelModel(price=price) for name in names} | {"m": ChannelModel(price=price)}
        return Settings(
            channels=(
                Channel(name="sim", kind="openai", base_url=sim.base_url, models=models),
                channel(sim, "free", name="other"),
            ),
            combinations=(panel(),),
            logging=QUIET,
        )

    async with both(settings) as (server, _):
        told = (await post(server, ask("panel"))).json()
        costs = [member["cost"] for member in told["antiphon"]["members"]]
        used = [member["usage"] for member in told["antiphon"]["members"]]
        assert costs == [(one["prompt_tokens"] + 2 * one["completion_tokens"]) / 10**6 for one in used]
        run = (await get(server, f"/v1/runs/{told['antiphon']['run_id']}")).json()
        assert run["cost"] == pytest.approx(sum(costs))
        plain = await post(server, ask("m"))
        run = (await get(server, f"/v1/runs/{plain.headers['x-run-id']}")).json()
        usage = plain.json()["usage"]
        assert run["cost"] == (usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 10**6 > 0
        plain = await post(server, ask("free"))
        assert (await get(server, f"/v1/runs/{plain.headers['x-run-id']}")).json()["cost"] is None


@pytest.mark.parametrize(
    ("theirs", "panels", "members", "which"),
    [
        ({"first_token_s": 0.11}, {}, {}, "0.11"),
        ({"first_token_s": 30}, {"first_token_s": 0.12}, {}, "0.12"),
        ({"first_token_s": 30}, {"first_token_s": 30}, {"first_token_s": 0.13}, "0.13"),
    ],
)
async def test_a_members_clock_is_set_by_whoever_is_nearest_to_the_call_its_channel_too(
    theirs: dict[str, float], panels: dict[str, float], members: dict[str, float], which: str
) -> None:
    def settings(sim: OpenAISimulator) -> Settings:
        member = Member(model="m", timeouts=TimeoutsPatch(**members), attempts=1)
        silent = panel(members=(member,), quorum=1, timeouts=TimeoutsPatch(**panels))
        channels = (channel(sim, "m", "s", timeouts=TimeoutsPatch(**theirs)),)
        return Settings(channels=channels, combinations=(silent,), logging=QUIET)

    async with both(settings) as (server, sim):
        sim.script(Script(silent=True), model="m", times=2)
        answer = await post(server, ask("panel"))
        (told,) = error_of(answer, 504)["details"]["members"]
        assert told["code"] == "upstream_timeout_first_token"
        assert f"said nothing for {which} s" in told["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_what_every_member_refuses_is_told_as_one_model_would(stream: bool) -> None:
    async with both(serving(panel())) as (server, sim):
        failing(sim, "m1", "m2", "m3")
        answer = await post(server, ask("panel", stream=stream))
        error = error_of(answer, 400)
        assert error["type"] == "invalid_request_error"
        assert len(error["details"]["members"]) == 3
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [True, False])
async def test_where_every_member_was_limited_the_error_says_when_to_come_again(stream: bool) -> None:
    async with both(serving(panel())) as (server, sim):
        for model, wait_s in (("m1", 40), ("m2", 20), ("m3", 30)):
            sim.script(Script(status=429, retry_after=wait_s), model=model, times=4)
        answer = await post(server, ask("panel", stream=stream))
        error = error_of(answer, 502)
        assert error["code"] == "all_members_failed"
        assert [one["code"] for one in error["details"]["members"]] == ["rate_limit_exceeded"] * 3
        assert 18 <= int(answer.headers["retry-after"]) <= 20
        assert "x-should-retry" not in answer.headers


async def test_where_one_of_them_named_no_time_the_error_names_none() -> None:
    async with both(serving(panel())) as (server, sim):
        sim.script(Script(status=429, retry_after=40), model="m1", times=4)
        failing(sim, "m2", "m3", script=Script(status=500))
        answer = await post(server, ask("panel"))
        assert error_of(answer, 502)["code"] == "all_members_failed"
        assert "retry-after" not in answer.headers
