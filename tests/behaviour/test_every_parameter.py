"""No parameter is dropped in silence: each is sent upstream, refused by its name, or told as adapted.

Each probe is sent by a client of its dialect to an upstream of each kind, and what the upstream was sent is
read from the simulator's own record. The official clients know the parameters' names: one that nobody probes
is a failure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsBase as BetaMessages
from anthropic.types.message_create_params import MessageCreateParamsBase as Messages
from anthropic.types.tool_param import ToolParam
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Chats
from openai.types.completion_create_params import CompletionCreateParamsBase as Completions
from openai.types.responses.response_create_params import ResponseCreateParamsBase as Responses

from server.settings import Channel, Settings
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.azure import AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.ollama import OllamaSimulator
from server.simulators.openai import OpenAISimulator
from server.simulators.spark import SparkSimulator
from tests.behaviour.asking import post
from tests.behaviour.probes import HI, KINDS, Probe, at
from tests.behaviour.probes_of_chats import CHATS
from tests.behaviour.probes_of_messages import MESSAGES
from tests.behaviour.probes_of_responses import COMPLETIONS, RESPONSES
from tests.behaviour.running import QUIET, Antiphon, antiphon
from tests.raw_http import Answer

MODELS = {
    "openai": "gpt-x",
    "azure": "gpt-y",
    "anthropic": "claude-sonnet-4-6",
    "gemini": "gemini-3-pro",
    "ollama": "llama-x",
    "spark": "spark-ultra",
}
DIALECTS: dict[str, tuple[str, tuple[Probe, ...], dict[str, Any]]] = {
    "chats": ("/v1/chat/completions", CHATS, {"messages": [HI]}),
    "messages": ("/v1/messages", MESSAGES, {"messages": [HI], "max_tokens": 500}),
    "responses": ("/v1/responses", RESPONSES, {"input": "hi"}),
    "completions": ("/v1/completions", COMPLETIONS, {"prompt": "hi"}),
}
# What needs no probe: it is carried out here, whoever is asked, or no request can be without it.
CARRIED_OUT = {
    "chats": {"messages", "model", "stream_options"},
    "messages": {"messages", "model"},
    "responses": {
        "input",
        "model",
        "background",
        "previous_response_id",
        "store",
        "metadata",
        "stream_options",
    },
    # The rest of a completion's fields are a chat's, and go the same way.
    "completions": {"model", "echo", "stream_options", *Chats.__annotations__},
}
OF_CLIENTS = {
    "chats": Chats.__annotations__,
    "messages": {**Messages.__annotations__, **BetaMessages.__annotations__},
    "responses": Responses.__annotations__,
    "completions": Completions.__annotations__,
}


@dataclass(frozen=True)
class World:
    """A server before one simulated upstream of each kind."""

    server: Antiphon
    sims: dict[str, Any]


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        sims: dict[str, Any] = {
            "openai": OpenAISimulator(),
            "azure": AzureSimulator(),
            "anthropic": AnthropicSimulator(),
            "gemini": GeminiSimulator(),
            "ollama": OllamaSimulator(),
            "spark": SparkSimulator(),
        }
        channels = []
        for kind, sim in sims.items():
            await stack.enter_async_context(sim)
            own: dict[str, Any] = {"base_url": sim.url, "api_key": "key"}
            if kind == "openai":
                own = {"base_url": sim.base_url}
            elif kind == "ollama":
                own = {"base_url": sim.url}
            elif kind == "spark":
                own = {
                    "base_url": sim.ws_url,
                    "app_id": "simulate",
                    "api_key": "sim-key",
                    "api_secret": "sim-secret",
                }
            channels.append(Channel(name=kind, kind=kind, models=(MODELS[kind],), **own))  # type: ignore[arg-type]
        settings = Settings(channels=tuple(channels), logging=QUIET)
        yield World(await stack.enter_async_context(antiphon(settings)), sims)


def fault(kind: str, probe: Probe, answer: Answer, sent: Any | None) -> str | None:
    """What is wrong with an answer; ``sent`` is what went upstream, None if nothing did."""
    place = probe.seen.get(kind)
    if place is None and probe.as_it_came and kind in ("openai", "azure"):
        if answer.status == 200 and all(at(sent, key) == value for key, value in probe.fields.items()):
            return None
        return f"was not sent as it came: {sent or answer.body!r}"
    if place is not None:
        there = at(sent, place[0])
        if answer.status == 200 and there is not None and there == place[1]:
            return None
        return f"is not at {place[0]}: {sent or answer.body!r}"
    if answer.status == 400 and sent is None:
        error = answer.json()["error"]
        if any(word in (error.get("param") or "") for word in probe.words):
            return None
        return f"was refused, but not by its name: {error}"
    if answer.status != 200:
        return f"failed: {answer.status} {answer.body!r}"
    told = answer.headers.get("x-antiphon-warnings", "")
    return (
        None if any(word in told for word in probe.words) else f"went without a word; told: {told!r}; {sent}"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_each_is_sent_or_refused_by_its_name_or_told(dialect: str, kind: str) -> None:
    path, probes, base = DIALECTS[dialect]
    faults = []
    async with world() as made:
        sim = made.sims[kind]
        for probe in probes:
            before = len(sim.requests)
            body = {"model": MODELS[kind], **base, **probe.fields}
            answer = await post(made.server, body, *probe.headers, path=path)
            sent = None
            if len(sim.requests) > before:
                headers = {name.lower(): value for name, value in sim.requests[-1].headers}
                sent = sim.requests[-1].json() | {"headers": headers}
            if said := fault(kind, probe, answer, sent):
                faults.append(f"{probe.name} {said}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_that_the_official_clients_know_is_probed(dialect: str) -> None:
    _, probes, _ = DIALECTS[dialect]
    assert not set(OF_CLIENTS[dialect]) - CARRIED_OUT[dialect] - names(probes)


def test_each_field_of_a_tool_that_anthropics_client_knows_is_probed() -> None:
    said = {"name", "type", "description", "input_schema"}
    assert set(ToolParam.__annotations__) - said == {
        probe.name.removeprefix("tools: ")
        for probe in MESSAGES
        if probe.name.startswith("tools: ") and "web_search" not in probe.name
    }


def names(probes: Iterable[Probe]) -> set[str]:
    return {word for probe in probes for word in (*probe.fields, probe.name)}
