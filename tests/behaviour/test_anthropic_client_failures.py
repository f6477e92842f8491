"""What the official Anthropic client makes of failures, refusals and cuts."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from server.settings import Access, AccessKey
from server.simulators.script import ToolCall
from tests.behaviour.anthropic_client import ASKED, TOOLS, asking, body_of, message
from tests.behaviour.asking import exchange, get_request, post
from tests.behaviour.kinds import KINDS
from tests.behaviour.running import ask


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "kind_of_error", "type_"),
    [
        ({"status": 400}, anthropic.BadRequestError, "invalid_request_error"),
        ({"status": 401}, anthropic.InternalServerError, "api_error"),
        ({"status": 429, "retry_after": 1}, anthropic.RateLimitError, "rate_limit_error"),
        ({"status": 500}, anthropic.InternalServerError, "api_error"),
        ({"status": 503}, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_each_failure_is_the_exception_of_its_status(
    fields: dict[str, Any], kind_of_error: type[anthropic.APIStatusError], type_: str, stream: bool
) -> None:
    async with asking("openai") as (client, kind):
        for _ in range(3):
            kind.say(**fields)
        with pytest.raises(kind_of_error) as raised:
            await message(client, stream, model="m", max_tokens=10, messages=ASKED)
        assert body_of(raised.value)["type"] == type_
        assert raised.value.request_id


async def test_our_own_refusals_are_in_anthropics_shape_from_every_layer() -> None:
    keys = Access(keys=(AccessKey(name="me", key="good"), AccessKey(name="odd", key="narrow", models=("x",))))
    async with asking("openai", access=keys) as (client, kind):
        with pytest.raises(anthropic.AuthenticationError) as stranger:
            await client.messages.create(model="m", max_tokens=10, messages=ASKED)
        assert body_of(stranger.value)["type"] == "authentication_error"
        good = client.with_options(api_key="good")
        assert (await good.messages.create(model="m", max_tokens=10, messages=ASKED)).content
        with pytest.raises(anthropic.PermissionDeniedError) as narrow:
            await client.with_options(api_key="narrow").messages.create(
                model="m", max_tokens=10, messages=ASKED
            )
        assert body_of(narrow.value)["type"] == "permission_error"
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await good.messages.create(model="mm", max_tokens=10, messages=ASKED)
        assert body_of(unknown.value)["code"] == "model_not_found"
        key = "x-api-key: good"
        head = get_request("/v1/messages", key, "Content-Length: 999999999", method="POST")
        too_large = await exchange(kind.server, head)
        for answer, status, type_ in (
            (await post(kind.server, b"{", key, path="/v1/messages"), 400, "invalid_request_error"),
            (too_large, 413, "request_too_large"),
            (await post(kind.server, ask(), key, path="/v1/messages/batches"), 404, "not_found_error"),
            (await exchange(kind.server, get_request("/messages/", key)), 405, "invalid_request_error"),
        ):
            told = answer.json()
            assert answer.status == status
            assert (told["type"], told["error"]["type"]) == ("error", type_)
            assert answer.headers["request-id"] == answer.headers["x-request-id"] == told["request_id"]


@pytest.mark.parametrize("name", KINDS)
async def test_a_cut_stream_never_looks_whole(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(text="one two three four", chunks=4, cut_after=2)
        with pytest.raises(anthropic.APIStatusError) as raised:
            await message(client, True, model=kind.model, max_tokens=10, messages=ASKED)
        assert body_of_event(raised.value)["code"] == "upstream_cut"
        kind.say(text="one two three four", chunks=4, cut_after=2)
        asked = {"model": kind.model, "max_tokens": 10, "messages": ASKED, "stream": True}
        sent = (await post(kind.server, asked, path="/v1/messages")).body
        assert b"message_stop" not in sent
        assert b"message_delta" not in sent
        assert sent.rpartition(b"event: ")[2].startswith(b"error\n")
        await kind.nothing_left()


def body_of_event(error: anthropic.APIStatusError) -> dict[str, Any]:
    body: Any = error.body
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize("name", KINDS)
async def test_a_client_that_leaves_ends_every_call(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(text="one two three four", chunks=4, stall_after=2)
        async with client.messages.stream(model=kind.model, max_tokens=10, messages=ASKED) as stream:
            assert await anext(stream.text_stream)
        await kind.nothing_left()


async def test_arguments_that_are_no_json_are_an_error_and_never_a_call() -> None:
    async with asking("openai") as (client, kind):
        kind.say(tools=(ToolCall(arguments="{not json"),))
        with pytest.raises(anthropic.InternalServerError) as raised:
            await message(client, False, model="m", max_tokens=10, messages=ASKED, tools=TOOLS)
        assert body_of(raised.value)["code"] == "upstream_invalid"
        kind.say(tools=(ToolCall(arguments="{not json"),))
        asked = {"model": "m", "max_tokens": 10, "messages": ASKED, "tools": TOOLS, "stream": True}
        sent = (await post(kind.server, asked, path="/v1/messages")).body
        assert b"upstream_invalid" in sent
        assert b"message_stop" not in sent
        await kind.nothing_left()
