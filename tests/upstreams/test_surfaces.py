"""A channel's surfaces: bytes out, bytes back, within the clocks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from server.chat import JsonObject
from server.errors import (
    ContentFiltered,
    InsufficientQuota,
    RateLimited,
    ServerError,
    SurfaceNotOffered,
    UpstreamAuth,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.surfaces import SURFACES, AnswerHead, JsonRequest
from server.upstreams.base import Call, SurfaceCaller, surfaces_of
from tests.upstreams.openai_cases import KEY, all_closed, upstream

BY_NAME = {one.path: one for one in SURFACES}
EMBED = {"model": "m", "input": "one two"}
SPEAK = {"model": "m", "voice": "alloy", "input": "one two three"}


@asynccontextmanager
async def surfaces(
    *scripts: Script, path: str = "/embeddings", **settings: Any
) -> AsyncIterator[tuple[OpenAISimulator, SurfaceCaller]]:
    async with OpenAISimulator() as sim:
        sim.script(*scripts, route=path.strip("/"))
        async with upstream(sim.base_url, **settings) as made:
            offered = surfaces_of(made)
            assert offered is not None
            yield sim, offered


async def ask(
    offered: SurfaceCaller, fields: dict[str, Any], path: str = "/embeddings", name: str = "m"
) -> tuple[AnswerHead, list[bytes]]:
    request = JsonRequest(BY_NAME[path], name, JsonObject(json.dumps(fields).encode()))
    async with aclosing(offered.ask(request, "m", Call())) as parts:
        head = await anext(parts)
        assert isinstance(head, AnswerHead)
        return head, [part async for part in parts if isinstance(part, bytes)]


async def failure(offered: SurfaceCaller, fields: dict[str, Any], path: str = "/embeddings") -> ServerError:
    with pytest.raises(ServerError) as raised:
        await ask(offered, fields, path)
    return raised.value


async def test_a_json_answer_comes_whole_with_its_usage_under_the_clients_name() -> None:
    async with surfaces(models={"m": {"model": "theirs"}}) as (sim, offered):
        head, parts = await ask(offered, EMBED, name="an-alias")
        assert (head.status, head.content_type) == (200, "application/json")
        assert head.usage is not None
        assert (head.usage.prompt_tokens, head.usage.total_tokens) == (2, 2)
        (body,) = parts
        assert head.length == len(body)
        assert json.loads(body)["model"] == "an-alias"
        (sent,) = sim.requests
        assert sent.json()["model"] == "theirs"
        assert sent.header("authorization") == f"Bearer {KEY}"
        assert sent.header("accept") == "*/*"


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "type": "tokens"}, (3, 4, 7)),
        ({"total_tokens": 5}, (5, 0, 5)),
        ({"prompt_tokens": 2, "completion_tokens": 1}, (2, 1, 3)),
        ({"type": "duration", "seconds": 3}, None),
        ({"prompt_tokens": None, "total_tokens": "x"}, None),
        (None, None),
        ([1], None),
    ],
)
async def test_usage_is_read_by_whichever_names(usage: Any, told: tuple[int, int, int] | None) -> None:
    async with surfaces(Script(body=json.dumps({"usage": usage}))) as (_, offered):
        head, _ = await ask(offered, EMBED)
    if told is None:
        assert head.usage is None
    else:
        assert head.usage is not None
        figures = head.usage.prompt_tokens, head.usage.completion_tokens, head.usage.total_tokens
        assert figures == told


@pytest.mark.parametrize(
    "body",
    [
        '{"model":7}',
        '{"model":null}',
        '{"data":[]}',
        "[1,2]",
        '"text"',
        '{"a":{"model":"theirs"}}',
        '{"error":null}',
    ],
)
async def test_what_names_no_model_comes_as_it_is(body: str) -> None:
    async with surfaces(Script(body=body)) as (_, offered):
        assert (await ask(offered, EMBED))[1] == [body.encode()]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(status=500), UpstreamError),
        (Script(status=401), UpstreamAuth),
        (Script(status=402), InsufficientQuota),
        (Script(status=429, retry_after=3), RateLimited),
        (Script(status=422), UpstreamRefused),
        (Script(status=400, error_code="content_filter"), ContentFiltered),
        (Script(status=404), UpstreamRefused),
        (Script(status=404, error_message="Not Found", error_code=""), SurfaceNotOffered),
        (Script(status=405, error_form="html"), SurfaceNotOffered),
        (Script(status=501, error_form="empty"), SurfaceNotOffered),
        (Script(error_after=0, error_type="rate_limit_error"), RateLimited),
        (Script(body='{"base_resp":{"status_code":1008,"status_msg":"no balance"}}'), InsufficientQuota),
        (Script(body='{"model":"m","model":"m"}'), UpstreamInvalid),
        (Script(body='{"data":'), UpstreamInvalid),
        (Script(body="", content_type="application/json"), UpstreamEmpty),
        (Script(body="<html>", content_type="text/html; charset=utf-8"), UpstreamInvalid),
        (Script(cut_at_byte=9), UpstreamCut),
        (Script(redirect="https://elsewhere"), UpstreamInvalid),
    ],
)
async def test_a_failure_is_one_of_ours(script: Script, kind: type[ServerError]) -> None:
    async with surfaces(script) as (_, offered):
        assert type(await failure(offered, EMBED)) is kind


async def test_nothing_of_ours_is_told_in_an_error() -> None:
    said = f"The key {KEY} may not ask theirs at https://internal.example/x"
    script = Script(status=400, error_message=said)
    async with surfaces(script, models={"m": {"model": "theirs"}}) as (_, offered):
        error = await failure(offered, EMBED)
    assert error.message == "The key *** may not ask m at ***"


async def test_a_presets_codes_mean_what_they_mean_in_chats() -> None:
    script = Script(status=400, error_code="1113", error_message="x")
    async with surfaces(script, preset="zhipu") as (_, offered):
        assert isinstance(await failure(offered, EMBED), InsufficientQuota)


async def test_sound_comes_in_pieces_as_it_leaves() -> None:
    async with surfaces(Script(pace_ms=20), path="/audio/speech") as (_, offered):
        head, parts = await ask(offered, SPEAK, "/audio/speech")
    assert (head.content_type, head.length) == ("audio/mpeg", None)
    assert len(parts) > 1
    assert b"".join(parts).startswith(b"ID3")


@pytest.mark.parametrize(
    ("script", "length"),
    [(Script(framing="length"), 3010), (Script(framing="length", encoding="gzip"), None)],
)
async def test_a_length_goes_on_where_it_is_that_of_what_is_sent(script: Script, length: int | None) -> None:
    async with surfaces(script, path="/audio/speech") as (_, offered):
        head, parts = await ask(offered, SPEAK, "/audio/speech")
    assert head.length == length
    assert len(b"".join(parts)) == 3010


@pytest.mark.parametrize("odd", ["", "audio/\u00e9"])
async def test_a_type_that_cannot_go_on_is_told_as_bytes(odd: str) -> None:
    script = Script(headers={"content-type": odd or None})
    async with surfaces(script, path="/audio/speech") as (_, offered):
        head, _parts = await ask(offered, SPEAK, "/audio/speech")
    assert head.content_type == "application/octet-stream"


@pytest.mark.parametrize("after", [0, 1])
async def test_silence_within_an_answer_that_flows_is_timed(after: int) -> None:
    script = Script(stall_after=after)
    async with surfaces(script, path="/audio/speech", timeouts={"idle_s": 0.1}) as (sim, offered):
        error = await failure(offered, SPEAK, "/audio/speech")
        assert isinstance(error, UpstreamTimeout)
        assert error.clock == "idle"
        await all_closed(sim)


@pytest.mark.parametrize(
    ("settings", "clock"),
    [
        ({"timeouts": {"total_s": 0.1}}, "total"),
        ({"timeouts": {"first_token_s": 0.1, "total_s": 9}, "head_in_time": True}, "first_token"),
    ],
)
async def test_a_head_that_does_not_come_is_timed(settings: dict[str, Any], clock: str) -> None:
    async with surfaces(Script(silent=True), **settings) as (sim, offered):
        error = await failure(offered, EMBED)
        assert isinstance(error, UpstreamTimeout)
        assert error.clock == clock
        await all_closed(sim)


async def test_a_slow_reader_is_not_the_upstreams_silence() -> None:
    script = Script(chunks=3, pace_ms=1)
    async with surfaces(script, path="/audio/speech", timeouts={"idle_s": 0.3}) as (_, offered):
        request = JsonRequest(BY_NAME["/audio/speech"], "m", JsonObject(json.dumps(SPEAK).encode()))
        async with aclosing(offered.ask(request, "m", Call())) as parts:
            await anext(parts)
            await anext(parts)
            await asyncio.sleep(0.6)
            assert [part async for part in parts]


async def test_an_answer_that_is_left_closes_its_connection_and_a_whole_one_keeps_it() -> None:
    async with surfaces(Script(stall_after=1), path="/audio/speech") as (sim, offered):
        request = JsonRequest(BY_NAME["/audio/speech"], "m", JsonObject(json.dumps(SPEAK).encode()))
        async with aclosing(offered.ask(request, "m", Call())) as parts:
            await anext(parts)
        await all_closed(sim)
        for _ in range(3):
            await ask(offered, SPEAK, "/audio/speech")
            await ask(offered, EMBED)
        assert sim.stats()["connections_total"] == 2


async def test_another_kind_offers_chats_alone() -> None:
    async with upstream("http://127.0.0.1:1", kind="anthropic") as made:
        assert surfaces_of(made) is None
