"""The routes of Anthropic's clients; what the official client makes of them is in tests/behaviour."""

from __future__ import annotations

from server.settings import Access, AccessKey, Settings
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import both, exchange, get_request, post
from tests.behaviour.running import QUIET, channel

ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def settings(sim: OpenAISimulator) -> Settings:
    keys = (AccessKey(name="me", key="good"), AccessKey(name="odd", key="narrow", models=("other",)))
    return Settings(channels=(channel(sim),), access=Access(keys=keys), logging=QUIET)


async def test_the_key_is_taken_as_anthropics_clients_send_it_and_any_version_is_good() -> None:
    async with both(settings) as (server, _sim):
        for headers in (
            ("x-api-key: good", "anthropic-version: 1999-01-01", "anthropic-beta: a,b"),
            ("Authorization: Bearer good",),
        ):
            answer = await post(server, ASKED, *headers, path="/v1/messages")
            assert answer.status == 200
            assert answer.headers["request-id"] == answer.headers["x-request-id"]


async def test_a_page_may_read_the_requests_id_on_errors_too() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, b"{", "x-api-key: good", "Origin: https://page", path="/v1/messages")
        assert answer.status == 400
        assert "request-id" in answer.headers["access-control-expose-headers"].split(", ")
        asked = get_request(
            "/v1/messages",
            "Origin: https://page",
            "Access-Control-Request-Headers: anthropic-version, x-api-key",
            method="OPTIONS",
        )
        assert "anthropic-version" in (await exchange(server, asked)).headers["access-control-allow-headers"]


async def test_tokens_are_counted_for_models_that_the_key_may_ask_alone() -> None:
    async with both(settings) as (server, sim):
        path = "/v1/messages/count_tokens"
        told = (await post(server, ASKED, "x-api-key: good", path=path)).json()
        assert told["estimated"] is True
        assert told["input_tokens"] > 0
        assert (await post(server, ASKED, "x-api-key: narrow", path=path)).status == 403
        assert not sim.requests
