"""What is the same for answers in every dialect: the run's ids, what was adapted, how silence is filled."""

from __future__ import annotations

from typing import Any

import pytest

from server.settings import Server, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import both, get, post
from tests.behaviour.kinds import kind_of
from tests.behaviour.running import QUIET, channel

TURNS = [{"role": "user", "content": "hi"}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": TURNS},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": TURNS},
    "/v1/responses": {"model": "m", "input": "hi"},
}
PREFIXES = dict(zip(ASKED, ("chatcmpl", "cmpl-", "msg_", "resp_"), strict=True))
PATHS = list(ASKED)


def impatient(sim: OpenAISimulator) -> Settings:
    server = Server(heartbeat_s=0.05, commit_after_s=0.05)
    return Settings(channels=(channel(sim),), server=server, logging=QUIET)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_names_its_run_and_has_an_id_of_its_dialect(path: str, stream: bool) -> None:
    async with kind_of("panel") as kind:
        asked = ASKED[path] | {"model": "panel", "stream": stream}
        for route in (path, path.removeprefix("/v1") + "/"):
            answer = await post(kind.server, asked, path=route)
            assert answer.status == 200
            run = (await get(kind.server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
            assert (run["status"], run["model"]) == ("completed", "panel")
            events = (await get(kind.server, f"/v1/runs/{run['id']}/events")).json()["data"]
            assert events[0]["data"]["response_id"].startswith(PREFIXES[path])
            assert events[0]["data"]["response_id"].encode() in answer.body
            if not stream:
                assert answer.headers["x-antiphon-level"] == "none"
                assert answer.json()["antiphon"]["run_id"] == run["id"]


@pytest.mark.parametrize("path", PATHS)
async def test_only_chats_are_carried_out_in_the_background(path: str) -> None:
    async with kind_of("openai") as kind:
        answer = await post(kind.server, ASKED[path] | {"antiphon": {"background": True}}, path=path)
        assert answer.status == (202 if path == PATHS[0] else 400)
        await kind.nothing_left()


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_left_out_at_the_door_is_told_with_what_the_upstream_adapted(stream: bool) -> None:
    async with kind_of("anthropic") as kind:
        asked = ASKED["/v1/responses"] | {"model": kind.model, "stream": stream, "truncation": "auto"}
        asked["temperature"] = 2
        answer = await post(kind.server, asked, path="/v1/responses")
        door, upstream = answer.headers["x-antiphon-warnings"].split("; ")
        assert door == "truncation was left out: nothing is cut from the input"
        assert upstream == "temperature was lowered to 1"


@pytest.mark.parametrize("path", PATHS)
async def test_silence_is_filled_in_the_dialects_own_way(path: str) -> None:
    async with both(impatient) as (server, sim):
        sim.script(Script(text="one two", chunks=2, first_ms=300, stall_after=1, stall_ms=400))
        body = (await post(server, ASKED[path] | {"stream": True}, path=path)).body
        before, _, after = body.partition(b"one")
        assert b": keep-alive\n\n" in before
        assert b"event: ping" not in before
        assert (b"event: ping" if path == "/v1/messages" else b": keep-alive\n\n") in after
        assert b"two" in after
