"""The whole server before one simulated upstream of each kind, for tests of what clients get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from server.app_keys import METRICS, RUNS
from server.settings import Channel, Combination, Member, Settings, Summary
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.azure import AzureScript, AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import GeminiScript
from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript
from tests.behaviour.asking import assert_nothing_left, until
from tests.behaviour.running import QUIET, Antiphon, antiphon, channel

KINDS = ("openai", "azure", "anthropic", "gemini", "ollama", "spark", "panel")
"""``panel`` is a combination whose summary model gets the client's tools."""


@dataclass(frozen=True)
class Kind:
    """A server, the model to ask, and the simulator that gives the answer."""

    name: str
    server: Antiphon
    model: str
    sim: Any
    script: type[Script]
    drafting: Any = None
    """The simulator of the panel's members."""

    def say(self, **fields: Any) -> None:
        """What the next answer is."""
        self.sim.script(self.script(**fields))

    def sent(self) -> dict[str, Any]:
        """The last request that came, but for Spark, whose frames have a form of their own."""
        body: dict[str, Any] = self.sim.requests[-1].json()
        return body

    async def nothing_left(self) -> None:
        """Return when nothing is left of any request; fail if that does not come to be."""
        await self.sim.wait_until(lambda: self.sim.stats()["live"] == 0)
        await until(lambda: not (self.server.app[RUNS].in_progress or self.server.app[METRICS].in_flight))
        assert_nothing_left(self.server)


@asynccontextmanager
async def kind_of(name: str, **more: Any) -> AsyncIterator[Kind]:
    """The server before an upstream of this kind; ``more`` are further settings of the server."""
    if name == "anthropic":
        async with AnthropicSimulator() as claude:
            key = "sk-ant-key"
            made = Channel(name="a", kind="anthropic", base_url=claude.url, api_key=key, models=("claude-x",))
            async with antiphon(Settings(channels=(made,), logging=QUIET, **more)) as server:
                yield Kind(name, server, "claude-x", claude, AnthropicScript)
    elif name == "gemini":
        async with GeminiSimulator() as gemini:
            key, models = "AIza-key", ("gemini-3-pro",)
            made = Channel(name="g", kind="gemini", base_url=gemini.url, api_key=key, models=models)
            async with antiphon(Settings(channels=(made,), logging=QUIET, **more)) as server:
                yield Kind(name, server, "gemini-3-pro", gemini, GeminiScript)
    elif name == "azure":
        async with AzureSimulator() as azure:
            made = Channel(
                name="az", kind="azure", base_url=azure.url, api_key="azure-key", models=("gpt-x",)
            )
            async with antiphon(Settings(channels=(made,), logging=QUIET, **more)) as server:
                yield Kind(name, server, "gpt-x", azure, AzureScript)
    elif name == "ollama":
        async with OllamaSimulator() as home:
            made = Channel(name="o", kind="ollama", base_url=home.url, models=("llama-x",))
            async with antiphon(Settings(channels=(made,), logging=QUIET, **more)) as server:
                yield Kind(name, server, "llama-x", home, OllamaScript)
    elif name == "spark":
        async with SparkSimulator() as spark:
            made = Channel(
                name="spark",
                kind="spark",
                base_url=spark.ws_url,
                app_id="simulate",
                api_key="sim-key",
                api_secret="sim-secret",
                models=("spark-max", "spark-ultra", "spark-x1"),
            )
            async with antiphon(Settings(channels=(made,), logging=QUIET, **more)) as server:
                yield Kind(name, server, "spark-max", spark, SparkScript)
    elif name == "openai":
        async with (
            OpenAISimulator() as sim,
            antiphon(Settings(channels=(channel(sim),), logging=QUIET, **more)) as server,
        ):
            yield Kind(name, server, "m", sim, Script)
    else:
        async with OpenAISimulator() as drafting, OpenAISimulator() as writing:
            panel = Combination(
                name="panel",
                members=(Member(model="m"),) * 2,
                vision_members=(Member(model="m"),) * 2,
                summary=Summary(model="w"),
                quorum=2,
                tools="summary",
            )
            channels = (channel(drafting, "m", name="m"), channel(writing, "w", name="w"))
            made_of = Settings(channels=channels, combinations=(panel,), logging=QUIET, **more)
            async with antiphon(made_of) as server:
                yield Kind("panel", server, "panel", writing, Script, drafting)
