"""Images, tools and wishes that not every model of a combination can take."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from aiohttp import web

from server.settings import Channel, ChannelModel, Combination, Images, Member, Settings, Summary
from server.simulators.ollama import OllamaSimulator
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.asking import both, error_of, post
from tests.behaviour.panels import panel, serving
from tests.behaviour.running import QUIET, antiphon, ask
from tests.small_host import small_host
from tests.upstreams.test_inlining import PNG

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


async def test_an_image_in_the_last_turn_decides_on_the_vision_model() -> None:
    one = Combination(name="one", strategy="direct", model="m", vision_model="seeing")
    async with both(serving(one)) as (server, sim):
        seen = {"role": "user", "content": [{"type": "text", "text": "what?"}, IMAGE]}
        await post(server, {"model": "one", "messages": [seen]})
        assert sim.requests[-1].model == "seeing"
        assert sim.requests[-1].json()["messages"][-1]["content"][1] == IMAGE
        after = [seen, {"role": "assistant", "content": "a cat"}, {"role": "user", "content": "sure?"}]
        await post(server, {"model": "one", "messages": after})
        assert sim.requests[-1].model == "m", "an old picture does not bind the chat"


async def test_a_model_that_cannot_see_or_call_tools_says_so() -> None:
    def settings(sim: OpenAISimulator) -> Settings:
        models = {"plain": ChannelModel(vision=False, tools=False)}
        one = Channel(name="sim", kind="openai", base_url=sim.base_url, models=models)
        return Settings(channels=(one,), logging=QUIET)

    async with both(settings) as (server, sim):
        body = {"model": "plain", "messages": [{"role": "user", "content": [IMAGE]}]}
        error = error_of(await post(server, body), 400)
        assert (error["code"], error["param"]) == ("unsupported_image", "messages[0].content")
        error = error_of(await post(server, ask("plain", tools=[{"type": "function"}])), 400)
        assert (error["code"], error["param"]) == ("unsupported_parameter", "tools")
        assert not sim.requests
        assert (await post(server, ask("plain", tools=[]))).status == 200


async def test_tools_that_are_not_to_be_called_are_kept_from_a_model_that_cannot() -> None:
    def settings(sim: OpenAISimulator) -> Settings:
        models = {"plain": ChannelModel(tools=False)}
        one = Channel(name="sim", kind="openai", base_url=sim.base_url, models=models)
        return Settings(channels=(one,), logging=QUIET)

    tool = {"type": "function", "function": {"name": "f"}}
    async with both(settings) as (server, sim):
        answer = await post(server, ask("plain", tools=[tool], tool_choice="none"))
        assert answer.status == 200, answer.body
        assert not {"tools", "tool_choice"} & sim.requests[-1].json().keys()
        error_of(await post(server, ask("plain", tools=[tool], tool_choice="auto")), 400)


@pytest.mark.parametrize("wish", [{"tools": [{"type": "function", "function": {"name": "f"}}]}, {"n": 2}])
async def test_an_unfit_wish_is_refused_before_any_call_is_paid(wish: dict[str, Any]) -> None:
    async with both(serving(panel(tools="refuse"))) as (server, sim):
        error = error_of(await post(server, ask("panel", **wish)), 400)
        assert error["code"] == "unsupported_parameter"
        assert error["param"] == next(iter(wish))
        assert not sim.requests


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_of_tools_that_most_members_agree_on_are_the_answer(stream: bool) -> None:
    schema = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    async with both(serving(panel())) as (server, sim):
        sim.script(Script(tools=(ToolCall("weather", '{"town": "Rome"}', id="c1"),)), model="m1")
        sim.script(Script(tools=(ToolCall("weather", '{"city": "Paris"}', id="c2"),)), model="m2")
        sim.script(Script(tools=(ToolCall("weather", '{"city":"Paris"}', id="c3"),)), model="m3")
        answer = await post(server, ask("panel", tools=[tool], stream=stream))
        assert answer.status == 200, answer.body
        assert not [request for request in sim.requests if request.model == "s"]
        if stream:
            assert b'"id":"c2"' in answer.body
            assert b'"finish_reason":"tool_calls"' in answer.body
            assert answer.body.endswith(b"data: [DONE]\n\n")
            return
        told = answer.json()
        (choice,) = told["choices"]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call == {
            "id": "c2",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
        }
        assert told["antiphon"]["agreement"] == 1
        assert answer.headers["x-antiphon-level"] == "partial"
        assert {one["id"]: one.get("code") for one in told["antiphon"]["members"]}["m1"] == "invalid_draft"


async def test_a_picture_on_the_web_is_fetched_once_for_all_who_see_it() -> None:
    fetched: list[str] = []

    async def give(request: web.Request) -> web.Response:
        fetched.append(request.path)
        return web.Response(body=PNG, content_type="image/png")

    async with OllamaSimulator() as sim, small_host(give) as host:
        seeing = ("eye-1", "eye-2", "eye-3")
        channels = tuple(
            Channel(name=name, kind="ollama", base_url=sim.url, models={name: ChannelModel(vision=True)})
            for name in (*seeing, "writer")
        )
        one = Combination(
            name="panel",
            members=(Member(model="eye-1"),),
            vision_members=tuple(Member(model=name) for name in seeing),
            summary=Summary(model="writer"),
            quorum=1,
            grace_s=30,
        )
        settings = Settings(
            channels=channels, combinations=(one,), images=Images(allow_hosts=("127.0.0.1",)), logging=QUIET
        )
        async with antiphon(settings) as server:
            for number in (1, 2):
                shown = {"type": "image_url", "image_url": {"url": f"{host}/a.png"}}
                turns = [{"role": "user", "content": [{"type": "text", "text": "What?"}, shown]}]
                answer = await post(server, {"model": "panel", "messages": turns})
                assert answer.status == 200, answer.body
                assert answer.json()["antiphon"]["level"] == "none"
                assert len(fetched) == number, "for each run anew"
        assert len(sim.requests) == 8
        picture = base64.b64encode(PNG).decode()
        assert all(picture in request.body.decode() for request in sim.requests)
