"""What was adapted in a request is told: in a header, in the answer, and in the events of the run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.settings import Channel, Combination, Member, Settings, Summary
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import chunks_of, get, post
from tests.behaviour.kinds import kind_of
from tests.behaviour.probes import PIXEL
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.raw_http import Answer

WARNINGS = "x-antiphon-warnings"
both_forms = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def events_of(server: Antiphon, answer: Answer) -> list[dict[str, Any]]:
    path = f"/v1/runs/{answer.headers['x-run-id']}/events"
    events: list[dict[str, Any]] = (await get(server, path)).json()["data"]
    return events


@asynccontextmanager
async def panel(**fields: Any) -> AsyncIterator[Antiphon]:
    """Members of kinds gemini, openai, gemini, a summary of kind anthropic; ``outer`` has it as a member."""
    async with OpenAISimulator() as one, GeminiSimulator() as two, AnthropicSimulator() as three:
        channels = (
            channel(one, "plain"),
            Channel(name="g", kind="gemini", base_url=two.url, api_key="k", models=("gemini-3-pro",)),
            Channel(name="a", kind="anthropic", base_url=three.url, api_key="k", models=("claude-x",)),
        )
        members = tuple(Member(model=name) for name in ("gemini-3-pro", "plain", "gemini-3-pro"))
        given: dict[str, Any] = {
            "members": members,
            "summary": Summary(model="claude-x"),
            "quorum": 3,
            **fields,
        }
        made = Combination(name="panel", **given)
        within = (Member(model="plain"), Member(model="panel"))
        outer = Combination(name="outer", members=within, summary=Summary(model="plain"), quorum=2)
        settings = Settings(channels=channels, combinations=(made, outer), logging=QUIET)
        async with antiphon(settings) as server:
            yield server


@both_forms
async def test_a_single_call_tells_it_in_the_header_and_in_its_run(stream: bool) -> None:
    async with kind_of("anthropic") as kind:
        answer = await post(kind.server, ask(kind.model, stream=stream, seed=1, logit_bias={"1": 2}))
        assert answer.headers[WARNINGS] == "seed was left out; logit_bias was left out"
        events = await events_of(kind.server, answer)
        types = [event["type"] for event in events]
        assert types.index("model.adapted") == types.index("model.started") + 1
        told = next(event for event in events if event["type"] == "model.adapted")
        assert told["data"] == {"warnings": ["seed was left out", "logit_bias was left out"]}
        assert told["member"]["id"] == "m1"
        run = (await get(kind.server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
        assert run["members"][0]["warnings"] == told["data"]["warnings"]
        fit = await post(kind.server, ask(kind.model, stream=stream))
        assert WARNINGS not in fit.headers
        assert "model.adapted" not in [event["type"] for event in await events_of(kind.server, fit)]


async def test_what_is_left_out_at_the_door_stands_in_the_first_event() -> None:
    async with kind_of("openai") as kind:
        asked = {"model": kind.model, "input": "hi", "truncation": "auto"}
        answer = await post(kind.server, asked, path="/v1/responses")
        left_out = "truncation was left out: nothing is cut from the input"
        assert answer.headers[WARNINGS] == left_out
        created = (await events_of(kind.server, answer))[0]
        assert created["data"]["warnings"] == [left_out]
        fit = await events_of(kind.server, await post(kind.server, ask(kind.model)))
        assert "warnings" not in fit[0]["data"]


async def test_what_of_a_message_only_its_own_service_knows_is_told_by_others() -> None:
    async with kind_of("openai") as kind:
        asked = ask(kind.model, max_tokens=9, inference_geo="eu")
        answer = await post(kind.server, asked, path="/v1/messages")
        assert answer.headers[WARNINGS] == "inference_geo was left out"
    async with kind_of("anthropic") as kind:
        answer = await post(kind.server, asked | {"model": kind.model}, path="/v1/messages")
        assert WARNINGS not in answer.headers


async def test_a_combination_tells_it_behind_the_ids_of_its_calls() -> None:
    async with panel() as server:
        answer = await post(server, ask("panel", seed=1, logit_bias={"1": 2}))
        assert answer.headers[WARNINGS] == (
            "m1, m3, summary: logit_bias was left out; summary: seed was left out"
        )
        members = {one["id"]: one.get("warnings") for one in answer.json()["antiphon"]["members"]}
        assert members == {
            "m1": ["logit_bias was left out"],
            "m2": None,
            "m3": ["logit_bias was left out"],
            "summary": ["seed was left out", "logit_bias was left out"],
        }
        events = await events_of(server, answer)
        told = [(one.get("member", {}).get("id"), one["type"]) for one in events if "adapted" in one["type"]]
        assert sorted(told[:2]) == [("m1", "model.adapted"), ("m3", "model.adapted")]
        assert told[2:] == [(None, "summary.adapted")]


async def test_the_head_of_a_combinations_stream_tells_what_is_known_by_then_and_its_end_the_rest() -> None:
    async with panel() as server:
        asked = ask("panel", stream=True, logit_bias={"1": 2}, stream_options={"include_usage": True})
        answer = await post(server, asked)
        assert answer.headers[WARNINGS] == "m1, m3: logit_bias was left out"
        members = chunks_of(answer.body)[-1]["antiphon"]["members"]
        assert [one["id"] for one in members if "warnings" in one] == ["m1", "m3", "summary"]


async def test_without_a_usage_chunk_the_last_chunk_of_a_combinations_stream_tells_its_warnings() -> None:
    async with panel() as server:
        chunks = chunks_of((await post(server, ask("panel", stream=True, logit_bias={"1": 2}))).body)
        assert [one["choices"][0]["finish_reason"] for one in chunks[-2:]] == [None, "stop"]
        members = chunks[-1]["antiphon"]["members"]
        assert [one["id"] for one in members if "warnings" in one] == ["m1", "m3", "summary"]
        plain = chunks_of((await post(server, ask("panel", stream=True))).body)
        assert "antiphon" not in plain[-1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mcp_servers": [{"type": "url", "url": "https://a", "name": "a"}]}, "mcp_servers"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}}
                        ],
                    }
                ]
            },
            "messages[0].content",
        ),
    ],
)
async def test_what_one_service_alone_can_do_no_combination_begins(
    fields: dict[str, Any], param: str
) -> None:
    async with panel() as server:
        answer = await post(server, ask("panel", max_tokens=9) | fields, path="/v1/messages")
        assert answer.status == 400
        assert answer.json()["error"]["param"] == param


async def test_a_combination_within_another_tells_it_too() -> None:
    async with panel() as server:
        answer = await post(server, ask("outer", logit_bias={"1": 2}))
        assert answer.headers[WARNINGS] == "m2/m1, m2/m3, m2/summary: logit_bias was left out"


async def test_what_results_show_is_put_behind_them_before_a_combination_is_asked() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [image]}]},
    ]
    seeing = (Member(model="claude-x"), Member(model="plain"))
    async with panel(vision_members=seeing, quorum=1) as server:
        asked = {"model": "panel", "max_tokens": 99, "messages": messages}
        answer = await post(server, asked, path="/v1/messages")
        assert answer.status == 200
        assert answer.headers[WARNINGS].startswith("images and files in results of tools were put behind")
        run = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
        assert [member["model"] for member in run["members"]] == ["claude-x", "plain"]


async def test_a_model_that_a_combination_relays_tells_it_as_if_it_were_asked_itself() -> None:
    async with panel(strategy="direct", model="claude-x", members=(), summary=None, quorum=1) as server:
        answer = await post(server, ask("panel", seed=1))
        assert answer.headers[WARNINGS] == "seed was left out"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_of_a_request_full_of_odd_fields_the_header_stays_short(path: str) -> None:
    odd: dict[str, Any] = {f"odd_{at}": at for at in range(500)}
    tool = {"name": "f", "input_schema": {"type": "object"}} | odd
    if path == "/v1/chat/completions":
        tool = {"type": "function", "function": {"name": "f", **odd}, **odd}
    async with kind_of("ollama") as kind:
        asked = ask(kind.model) | {"max_tokens": 9, "tools": [tool], **odd}
        answer = await post(kind.server, asked, path=path)
        assert answer.status == 200
        assert len(answer.headers[WARNINGS]) < 4000
        assert " more" in answer.headers[WARNINGS]
