"""Azure behind the whole server: what its filter says reaches who asked for it, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.settings import Channel, ChannelModel, Settings
from server.simulators.azure import AzureScript, AzureSimulator
from tests.behaviour.asking import chunks_of, error_of, post, text_of
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask


@asynccontextmanager
async def serving(**own: tuple[str, ...]) -> AsyncIterator[tuple[Antiphon, AzureSimulator]]:
    async with AzureSimulator(**own) as sim:  # type: ignore[arg-type]
        models = {"gpt": ChannelModel(model="my-4o")}
        made = Channel(name="az", kind="azure", base_url=sim.url, api_key="azure-key", models=models)
        async with antiphon(Settings(channels=(made,), logging=QUIET)) as server:
            yield server, sim


async def test_the_first_chunk_without_choices_names_nothing_of_the_answer() -> None:
    async with serving() as (server, sim):
        sim.script(AzureScript(text="Hi – 你好", chunks=3, filter="async"), times=2)
        chunks = chunks_of((await post(server, ask("gpt", stream=True))).body)
        assert all(chunk["choices"] for chunk in chunks)
        usual = chunks_of(
            (await post(server, ask("gpt", stream=True, stream_options={"include_usage": True}))).body
        )
        assert any("prompt_filter_results" in chunk for chunk in usual)
        for told in (chunks, usual):
            assert text_of(told) == "Hi – 你好"
            (heads,) = {(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in told}
            assert heads[0]
            assert heads[1]
            assert heads[2:] == ("gpt", "chat.completion.chunk")


async def test_a_filtered_prompt_is_told_as_openai_tells_it() -> None:
    async with serving() as (server, sim):
        sim.script(AzureScript(filtered="prompt"), times=2)
        for stream in (True, False):
            answer = await post(server, ask("gpt", stream=stream))
            assert error_of(answer, 400)["code"] == "content_filter"


async def test_a_deployment_that_is_not_there_is_a_model_that_is_not_there_and_is_asked_for_once() -> None:
    async with serving(deployments=("other",)) as (server, sim):
        answer = await post(server, ask("gpt"))
        assert error_of(answer, 404)["code"] == "model_not_found"
        assert len(sim.requests) == 1
