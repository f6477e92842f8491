"""The Ollama simulator: lines, whole answers, refusals, its list of models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession

from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.simulators.script import ToolCall

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hi you"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.fixture
async def sim() -> AsyncIterator[OllamaSimulator]:
    async with OllamaSimulator(models=("llama3.2:latest", "llama3.2:1b")) as simulator:
        yield simulator


async def ask(sim: OllamaSimulator, **fields: Any) -> tuple[int, list[Any]]:
    async with (
        ClientSession() as session,
        session.post(f"{sim.url}/api/chat", data=orjson.dumps(CHAT | fields)) as answer,
    ):
        return answer.status, [orjson.loads(line) for line in (await answer.read()).splitlines()]


async def test_it_streams_unless_told_not_to(sim: OllamaSimulator) -> None:
    status, lines = await ask(sim)
    assert status == 200
    assert "".join(line["message"]["content"] for line in lines) == "You said: Hi you"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert (lines[-1]["done_reason"], lines[-1]["prompt_eval_count"]) == ("stop", 2)
    status, lines = await ask(sim, stream=False)
    assert (status, len(lines), lines[0]["message"]["content"]) == (200, 1, "You said: Hi you")
    assert (lines[0]["done"], lines[0]["eval_count"]) == (True, 4)


async def test_calls_come_whole_with_objects_for_arguments(sim: OllamaSimulator) -> None:
    script = OllamaScript(reasoning=("hm",), tools=(ToolCall(arguments='{"a": 1}'),), text="")
    sim.script(script, script, OllamaScript(tools=(ToolCall(),), call_ids=True))
    for stream in (True, False):
        _, lines = await ask(sim, stream=stream)
        (call,) = [one for line in lines for one in line["message"].get("tool_calls", ())]
        assert call == {"function": {"index": 0, "name": "get_weather", "arguments": {"a": 1}}}
        assert "hm" in [line["message"].get("thinking") for line in lines]
    assert (await ask(sim, stream=False))[1][0]["message"]["tool_calls"][0]["id"] == "call_sim_1"


async def test_without_messages_a_model_is_only_loaded(sim: OllamaSimulator) -> None:
    assert (await ask(sim, messages=[]))[1][0]["done_reason"] == "load"


async def test_a_model_that_is_not_pulled_is_not_found(sim: OllamaSimulator) -> None:
    assert await ask(sim, model="other") == (404, [{"error": "model 'other' not found"}])
    assert (await ask(sim, model="llama3.2:1b"))[0] == 200


async def test_abilities_that_a_model_has_not(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(cannot=("tools", "thinking", "levels")), times=3)
    assert "does not support tools" in (await ask(sim, tools=[TOOL]))[1][0]["error"]
    assert "does not support thinking" in (await ask(sim, think=True))[1][0]["error"]
    assert (await ask(sim, think=False))[0] == 200
    sim.script(OllamaScript(cannot=("levels",)))
    assert "not supported for this model" in (await ask(sim, think="high"))[1][0]["error"]


async def test_an_error_in_midstream_is_a_line(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(chunks=5, error_after=2), OllamaScript(finish_form="missing"))
    status, lines = await ask(sim)
    assert (status, len(lines), list(lines[-1])) == (200, 3, ["error"])
    assert not any(line["done"] for line in (await ask(sim))[1])


async def test_what_it_counts(sim: OllamaSimulator) -> None:
    sim.script(
        OllamaScript(cached=True), OllamaScript(usage="never"), OllamaScript(usage="zero", finish="length")
    )
    assert "prompt_eval_count" not in (await ask(sim))[1][-1]
    assert "eval_count" not in (await ask(sim))[1][-1]
    last = (await ask(sim))[1][-1]
    assert (last["eval_count"], last["done_reason"]) == (0, "length")


async def test_it_lists_what_is_pulled_and_nothing_else_is_there(sim: OllamaSimulator) -> None:
    async with ClientSession() as session:
        async with session.get(f"{sim.url}/api/tags") as answer:
            assert [one["name"] for one in (await answer.json())["models"]] == [
                "llama3.2:latest",
                "llama3.2:1b",
            ]
        async with session.get(f"{sim.url}/api/chat") as answer:
            assert answer.status == 405
        async with session.post(f"{sim.url}/v1/chat/completions", data=b"{}") as answer:
            assert answer.status == 404


async def embed(sim: OllamaSimulator, **fields: Any) -> tuple[int, Any]:
    wanted = {"model": "llama3.2", "input": "one two", **fields}
    async with ClientSession() as session, session.post(f"{sim.url}/api/embed", json=wanted) as answer:
        return answer.status, await answer.json()


async def test_embeddings_of_one_text_and_of_many(sim: OllamaSimulator) -> None:
    status, alone = await embed(sim)
    assert (status, len(alone["embeddings"]), alone["prompt_eval_count"]) == (200, 1, 2)
    _, many = await embed(sim, input=["one two", "three"], dimensions=3)
    assert [len(one) for one in many["embeddings"]] == [3, 3]
    assert (await embed(sim, input=""))[1]["embeddings"] == []
    assert (await embed(sim, input=None))[1]["embeddings"] == []


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "other"}, 404, "model 'other' not found"),
        ({"input": 3}, 400, "invalid input type"),
        ({"input": [3]}, 400, "invalid input type"),
        ({"options": []}, 400, "cannot unmarshal"),
        ({"truncate": False, "input": "a " * 3000}, 400, "the input length exceeds the context length"),
    ],
)
async def test_embeddings_that_are_refused(
    sim: OllamaSimulator, fields: dict[str, Any], status: int, words: str
) -> None:
    told = await embed(sim, **fields)
    assert (told[0], words in told[1]["error"]) == (status, True)


async def test_embeddings_can_be_scripted(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(status=503), OllamaScript(body="{}"), route="embed")
    assert [(await embed(sim))[0], (await embed(sim))[1]] == [503, {}]
    assert (await embed(sim, truncate=True, input="a " * 3000))[0] == 200


async def test_what_is_in_the_library_can_be_pulled() -> None:
    async with OllamaSimulator(models=(), pullable=("a", "b:1b")) as sim, ClientSession() as session:

        async def pull(model: str, **more: Any) -> tuple[int, list[str]]:
            async with session.post(f"{sim.url}/api/pull", json={"model": model, **more}) as answer:
                lines = [orjson.loads(line) for line in (await answer.read()).splitlines()]
                return answer.status, [line.get("status") or line["error"] for line in lines]

        assert (await pull("a"))[1][-1] == "success"
        assert await pull("b:1b", stream=False) == (200, ["success"])
        assert sim.models == ("a:latest", "b:1b")
        assert await pull("c") == (200, ["pull model manifest: file does not exist"])
        assert (await pull(""))[0] == 400
        sim.script(OllamaScript(status=500), route="pull")
        assert (await pull("a"))[0] == 500
