"""Status within a chat stream: in every mode, the answer stays what it is."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from server.app_keys import RUNS, TASKS
from server.auth import Principal
from server.errors import InvalidRequest
from server.handlers.inband import MARK, MODES, chosen_mode, without_status, without_ticks
from server.openai_wire import parse_chat
from server.settings import Access, AccessKey, Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    data_lines,
    error_of,
    post,
    text_of,
    until,
)
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import Answer

KEYS = (
    AccessKey(name="me", key="sk-me-0123456789"),
    AccessKey(name="web", key="sk-web-0123456789", status="openwebui"),
)
MINE, WEB = ("Authorization: Bearer " + key.key for key in KEYS)
ODD = 'm "1"\r\ndata: x'
TELLING = [mode for mode in MODES if mode != "off"]


def settings(sim: OpenAISimulator) -> Settings:
    members = (Member(model=ODD), Member(model="m2"), Member(model="m3"))
    panel = Combination(name="panel", members=members, summary=Summary(model="s"), attempts=1)
    told = Combination(name="told", members=members, summary=Summary(model="s"), attempts=1, status="content")
    race = Combination(name="race", strategy="race", members=members[1:], attempts=1)
    every = Combination(name="every", strategy="all", members=members[1:])
    one = Combination(name="one", strategy="direct", model="s")
    return Settings(
        access=Access(keys=KEYS),
        channels=(channel(sim, ODD, "m2", "m3", "s"),),
        combinations=(panel, told, race, every, one),
        logging=QUIET,
    )


def play(sim: OpenAISimulator) -> None:
    """m1 is done first, m2 is refused, m3 comes last; the summary says the answer."""
    sim.script(Script(text="one"), model=ODD)
    sim.script(Script(status=500), model="m2")
    sim.script(Script(text="three", first_ms=60), model="m3")
    sim.script(Script(text="The answer."), model="s")


async def tell(
    server: Antiphon, mode: str | None, model: str = "panel", key: str = MINE, **fields: Any
) -> Answer:
    headers = [key] if mode is None else [key, f"x-antiphon-status: {mode}"]
    return await post(server, ask(model, stream=True, **fields), *headers)


def parts(answer: Answer) -> tuple[list[dict[str, Any]], list[str]]:
    comments = [line for line in answer.body.decode().split("\n\n") if line.startswith(":")]
    return chunks_of(answer.body), comments


@pytest.mark.parametrize("mode", MODES)
async def test_the_answer_its_end_and_its_identity_are_the_same_in_every_mode(mode: str) -> None:
    async with both(settings) as (server, sim):
        play(sim)
        answer = await tell(server, mode)
        chunks, _ = parts(answer)
        text = text_of(chunks)
        assert text.endswith("The answer.")
        assert (text == "The answer.") == (mode != "content")
        assert {chunk["id"] for chunk in chunks} == {"chatcmpl-" + answer.headers["x-run-id"][4:]}
        assert {chunk["model"] for chunk in chunks} == {"panel"}
        assert all(len(chunk["choices"]) == 1 for chunk in chunks)
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1)
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
        assert reasons == [None] * (len(reasons) - 1) + ["stop"]
        assert not any(delta.get("content") and delta.get("reasoning_content") for delta in deltas)
        assert b"tool_calls" not in answer.body
        assert b"\nid:" not in answer.body
        assert_nothing_left(server)


async def test_comments_are_one_line_each() -> None:
    async with both(settings) as (server, sim):
        play(sim)
        _, comments = parts(await tell(server, "comment"))
        told = [line for line in comments if "keep-alive" not in line]
        assert all("\n" not in line and "\r" not in line for line in told)
        assert any(line.startswith(": member m1 done ") and line.endswith("s") for line in told)
        assert ": member m2 failed: upstream_error" in told
        assert told[-1] == ": summary started"


async def test_chunks_bring_an_object_of_ours_behind_the_role() -> None:
    async with both(settings) as (server, sim):
        play(sim)
        answer = await tell(server, "chunk")
        chunks, _ = parts(answer)
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        told = [chunk for chunk in chunks if "antiphon" in chunk]
        assert all(one["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}] for one in told)
        states = [(one["antiphon"].get("member", {}).get("id"), one["antiphon"]["state"]) for one in told]
        assert states[-1] == (None, "started")
        assert {("m1", "done"), ("m2", "failed"), ("m3", "done")} <= set(states)
        assert told[0]["antiphon"]["run_id"] == answer.headers["x-run-id"]
        assert {one["antiphon"]["member"]["model"] for one in told if "member" in one["antiphon"]} >= {ODD}


async def test_thoughts_come_before_the_first_content_only() -> None:
    async with both(settings) as (server, sim):
        play(sim)
        chunks, _ = parts(await tell(server, "reasoning"))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        lines = [delta["reasoning_content"] for delta in deltas if delta.get("reasoning_content")]
        assert lines
        assert all(line.startswith(MARK) and line.count("\n") == 1 and line.endswith("\n") for line in lines)
        first = next(at for at, delta in enumerate(deltas) if delta.get("content"))
        assert not any("reasoning_content" in delta for delta in deltas[first:])


async def test_open_webui_is_told_by_its_own_events_and_that_it_is_over() -> None:
    async with both(settings) as (server, sim):
        play(sim)
        chunks, _ = parts(await tell(server, None, key=WEB))
        told = [chunk["event"] for chunk in chunks if "event" in chunk]
        assert {one["type"] for one in told} == {"status"}
        assert [one["data"]["done"] for one in told] == [False] * (len(told) - 1) + [True]
        assert all(isinstance(one["data"]["description"], str) for one in told)
        place = [at for at, chunk in enumerate(chunks) if "event" in chunk]
        first = next(at for at, chunk in enumerate(chunks) if chunk["choices"][0]["delta"].get("content"))
        assert max(place) < first


@pytest.mark.parametrize("by", ["header", "combination"])
async def test_content_is_byte_for_byte_what_n1_wrote(by: str) -> None:
    async with both(settings) as (server, sim):
        play(sim)
        answer = await (tell(server, "content") if by == "header" else tell(server, None, "told"))
        plain = 'm "1" data: x'
        text = text_of(chunks_of(answer.body))
        lines = text[1:].removesuffix("The answer.").splitlines(keepends=True)
        assert text[0] == " "
        assert sorted(lines) == sorted([f"{plain} ✅\n", "m2 ❌\n", "m3 ✅\n"])
        assert lines[-1] == "m3 ✅\n", "in the order in which they were done"


@pytest.mark.parametrize("mode", TELLING)
@pytest.mark.parametrize("model", ["race", "every"])
async def test_strategies_that_answer_live_are_told_of_too(mode: str, model: str) -> None:
    async with both(settings) as (server, sim):
        for name in ("m2", "m3"):
            sim.script(Script(text="word", first_ms=30), model=name)
        answer = await tell(server, mode, model)
        chunks = chunks_of(answer.body)
        assert "word" in text_of(chunks)
        roles = [
            choice["index"] for chunk in chunks for choice in chunk["choices"] if "role" in choice["delta"]
        ]
        assert len(roles) == len(set(roles))
        assert_nothing_left(server)


@pytest.mark.parametrize("mode", TELLING)
async def test_a_failure_is_still_an_error_and_nothing_follows_it(mode: str) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(text="one two", chunks=2, cut_after=1), model=ODD)
        for name in ("m2", "m3"):
            sim.script(Script(status=500), model=name)
        answer = await tell(server, mode)
        if answer.status == 200:
            said = data_lines(answer.body)
            assert b'"error"' in said[-1]
            assert b"[DONE]" not in answer.body
        else:
            error_of(answer, 502)
        assert_nothing_left(server)


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_leaves_nothing_behind(mode: str) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True), model="m2")
        sim.script(Script(silent=True), model="m3")
        request = chat_request(ask("panel", stream=True), MINE, f"x-antiphon-status: {mode}")
        async with asked(server, request) as raw:
            assert (await raw.head()).status == 200  # with the first word of m1
            await sim.wait_until(lambda: sim.stats()["live"] == 2)
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        await until(lambda: server.app[RUNS].in_progress == 0 and len(server.app[TASKS]) == 0)


async def test_plain_answers_and_plain_models_are_told_nothing() -> None:
    async with both(settings) as (server, sim):
        play(sim)
        answer = await post(server, ask("panel"), MINE, "x-antiphon-status: content")
        assert answer.json()["choices"][0]["message"]["content"] == "The answer."
        for model in ("s", "one"):
            sim.script(Script(text="Plain."), model="s")
            chunks, comments = parts(await tell(server, "chunk", model))
            assert (text_of(chunks), comments) == ("Plain.", [])
            assert not any("antiphon" in chunk for chunk in chunks)


async def test_an_unknown_mode_is_refused_before_any_call() -> None:
    async with both(settings) as (server, sim):
        for model in ("panel", "s"):
            error = error_of(await tell(server, "loud", model), 400)
            assert error["param"] == "x-antiphon-status"
        assert sim.requests == []


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("fields", [{"tools": TOOLS}, {"response_format": {"type": "json_object"}}])
def test_content_does_not_go_where_machines_read_the_text(fields: dict[str, Any]) -> None:
    chat = parse_chat(json.dumps(ask("told", stream=True, **fields)).encode())
    told = Combination(name="told", status="content")
    assert chosen_mode(None, Principal("me"), told, chat) == "off"
    assert chosen_mode("chunk", Principal("me"), told, chat) == "chunk"
    with pytest.raises(InvalidRequest):
        chosen_mode("content", Principal("me"), told, chat)


def test_the_header_counts_more_than_the_key_and_the_key_more_than_the_combination() -> None:
    chat = parse_chat(json.dumps(ask("told", stream=True)).encode())
    told = Combination(name="told", status="comment")
    assert chosen_mode(None, Principal("me"), told, chat) == "comment"
    assert chosen_mode(None, Principal("me", status="chunk"), told, chat) == "chunk"
    assert chosen_mode("off", Principal("me", status="chunk"), told, chat) == "off"


def test_lines_of_ours_that_a_client_sends_back_are_taken_out() -> None:
    turns = [
        {"role": "user", "content": f"{MARK}stays"},
        {
            "role": "assistant",
            "content": "A",
            "reasoning_content": f"{MARK}m1 done\nA thought.\n{MARK}m2 done\n",
        },
        {"role": "user", "content": "go on"},
    ]
    chat = without_status(parse_chat(json.dumps({"model": "m", "messages": turns, "x": 1}).encode()))
    sent = json.loads(chat.body)
    assert sent["messages"][1]["reasoning_content"] == "A thought.\n"
    assert [sent["messages"][at] for at in (0, 2)] == [turns[0], turns[2]]
    assert sent["x"] == 1


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (" one ✅\ntwo ❌\nThe answer ✅\n", "The answer ✅\n"),
        ("one ✅\nThe answer.", "The answer."),  # as a client kept it that trims
        ([{"type": "text", "text": " one ✅\nThe answer."}], [{"type": "text", "text": "The answer."}]),
        (" Tests ✅\nDocs ❌\n", " Tests ✅\nDocs ❌\n"),  # a model's own list
        ("See:\none ✅\n", "See:\none ✅\n"),
        ([], []),
        (None, None),
    ],
)
def test_the_lines_of_content_are_taken_out_of_answers_that_come_back(content: Any, left: Any) -> None:
    turns = [
        {"role": "user", "content": "one ✅\n"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": "b"},
    ]
    chat = parse_chat(json.dumps({"model": "m", "messages": turns}).encode())
    sent = json.loads(without_ticks(chat, lambda: ["one", "two"]).body)
    assert sent["messages"] == [turns[0], {"role": "assistant", "content": left}, turns[2]]


async def test_what_content_said_reaches_no_member_of_a_later_turn() -> None:
    async with both(settings) as (server, sim):
        play(sim)
        said = text_of(parts(await tell(server, "content"))[0])
        assert said.count("\n") == 3
        turns = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": "b"},
        ]
        seen = len(sim.requests)
        play(sim)
        assert (await post(server, {"model": "panel", "messages": turns}, MINE)).status == 200
        bodies = [one.body.decode() for one in sim.requests[seen:]]
        assert len(bodies) == 4
        assert all("The answer." in body and "✅" not in body for body in bodies)


async def test_they_never_reach_an_upstream() -> None:
    async with both(settings) as (server, sim):
        turns = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "A", "reasoning_content": f"{MARK}m1 done\n"},
            {"role": "user", "content": "b"},
        ]
        assert (await post(server, {"model": "s", "messages": turns}, MINE)).status == 200
        assert MARK.encode() not in sim.requests[-1].body


@pytest.mark.parametrize("mode", TELLING)
async def test_the_official_client_reads_every_mode(mode: str) -> None:
    async with both(settings) as (server, sim):
        play(sim)
        async with (
            openai.AsyncOpenAI(
                base_url=f"{server.url}/v1", api_key=KEYS[0].key, max_retries=0, timeout=20
            ) as client,
            client.chat.completions.stream(
                model="panel",
                messages=[{"role": "user", "content": "hello"}],
                stream_options={"include_usage": True},
                extra_headers={"x-antiphon-status": mode},
            ) as stream,
        ):
            async for _event in stream:
                pass
            whole = await stream.get_final_completion()
        message = whole.choices[0].message
        assert (message.content or "").endswith("The answer.")
        assert message.role == "assistant"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None


async def test_a_relayed_answer_with_its_own_role_has_it_once() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(text="one"), model=ODD)
        sim.script(Script(tools=(ToolCall("f"),)), model="s")
        answer = await tell(server, "chunk")
        assert answer.body.count(b'"role":"assistant"') == 1
