"""The azure upstream: its doors and keys, what its content filter says, and its errors."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from server.deltas import Finished, TextDelta
from server.errors import ContentFiltered, RateLimited, UpstreamAuth, UpstreamError, UpstreamRefused
from server.simulators.azure import AzureScript, AzureSimulator
from server.upstreams.base import Call, Upstream
from tests.channels import answer, chat, deltas, failure, said_and_failed
from tests.upstreams.openai_cases import KEY, TEXT, upstream


@pytest.fixture
async def sim() -> AsyncIterator[AzureSimulator]:
    async with AzureSimulator(api_key=KEY, token="t0", default=AzureScript(text=TEXT, chunks=4)) as simulator:
        yield simulator


def speaking(sim: AzureSimulator, **settings: Any) -> AbstractAsyncContextManager[Upstream]:
    known = {"kind": "azure", "models": {"m": {"model": "my-4o"}}}
    return upstream(f"{sim.url}/", **(known | settings))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("filter", ["sync", "async", "annotations", "none"])
@pytest.mark.parametrize("version", [None, "2024-10-21"])
async def test_an_answer_is_had_by_either_door(
    sim: AzureSimulator, version: str | None, filter: Any, stream: bool
) -> None:
    sim.script(AzureScript(text=TEXT, chunks=4, filter=filter))
    async with speaking(sim, azure={"api_version": version}) as channel:
        told = await deltas(channel, request=chat(stream=stream))
    assert "".join(delta.text for delta in told if type(delta) is TextDelta) == TEXT
    assert [delta.reason for delta in told if type(delta) is Finished] == ["stop"]
    (request,) = sim.requests
    classic = "/openai/deployments/my-4o/chat/completions?api-version=2024-10-21"
    assert request.path == (classic if version else "/openai/v1/chat/completions")
    assert (request.header("api-key"), request.header("authorization")) == (KEY, None)
    assert request.json()["model"] == "my-4o"


async def test_a_deployments_name_cannot_leave_its_place(sim: AzureSimulator) -> None:
    name = "a/../b?c#d é"
    async with speaking(sim, models={"m": {"model": name}}, azure={"api_version": "2024-10-21"}) as channel:
        await failure(channel)
    path = "/openai/deployments/a%2F..%2Fb%3Fc%23d%20%C3%A9/chat/completions?api-version=2024-10-21"
    assert sim.requests[0].path == path


@pytest.mark.parametrize(
    ("deployment", "limit"), [("gpt-5-mini", "max_completion_tokens"), ("my-4o", "max_tokens")]
)
async def test_a_deployment_named_after_a_newer_model_is_told_the_limit_as_that_takes_it(
    sim: AzureSimulator, deployment: str, limit: str
) -> None:
    async with speaking(sim, models={"m": {"model": deployment}}) as channel:
        await deltas(channel, request=chat(max_tokens=5))
    assert {"max_tokens", "max_completion_tokens"} & set(sim.requests[0].json()) == {limit}


async def test_from_within_combinations_it_says_so(sim: AzureSimulator) -> None:
    async with speaking(sim) as channel:
        await deltas(channel, Call(depth=3))
    assert sim.requests[0].header("x-antiphon-depth") == "3"


async def test_a_filtered_prompt_and_a_filtered_answer(sim: AzureSimulator) -> None:
    sim.script(AzureScript(filtered="prompt"), AzureScript(filtered="answer"))
    async with speaking(sim) as channel:
        error = await failure(channel)
        assert (type(error), error.status, error.param) == (ContentFiltered, 400, "prompt")
        told = await deltas(channel)
    assert [delta.reason for delta in told if type(delta) is Finished] == ["content_filter"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_deployment_that_is_not_there_is_the_operators_trouble(
    caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    async with AzureSimulator(deployments=("other",)) as sim, speaking(sim) as channel:
        error = await failure(channel, request=chat(stream=stream))
    assert (type(error), error.code, error.status) == (UpstreamRefused, "model_not_found", 404)
    assert (error.retryable, error.upstream_status) == (True, 404)
    assert "channel a: the service knows no such deployment" in caplog.text


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (AzureScript(status=401, body='{"statusCode": 401, "message": "Unauthorized"}'), UpstreamAuth),
        (AzureScript(status=429, error_code="429", retry_after=2, retry_after_form="ms"), RateLimited),
        (AzureScript(status=400, error_message="odd"), UpstreamRefused),
        (AzureScript(chunks=4, cut_after=0), UpstreamError),
    ],
)
async def test_errors_are_ours(sim: AzureSimulator, script: AzureScript, kind: type) -> None:
    sim.script(script)
    async with speaking(sim) as channel:
        error = await failure(channel)
    assert isinstance(error, kind)
    if kind is RateLimited:
        assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", 2)


async def test_an_error_in_midstream_ends_the_answer(sim: AzureSimulator) -> None:
    sim.script(AzureScript(text=TEXT, chunks=4, error_after=2))
    async with speaking(sim) as channel:
        said, error = await said_and_failed(channel)
    assert (len(said), isinstance(error, UpstreamError)) == (2, True)


async def test_older_versions_are_not_asked_for_usage(sim: AzureSimulator) -> None:
    async with speaking(sim, azure={"api_version": "2023-05-15"}, stream_usage="refused") as channel:
        assert await answer(channel) == TEXT


async def test_a_token_of_a_file_is_read_anew_when_it_is_refused(sim: AzureSimulator, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t0\n")
    settings = {"auth": "bearer", "token_file": str(file)}
    async with speaking(sim, api_key=None, azure=settings) as channel:
        for stream in (True, False):
            assert await answer(channel, request=chat(stream=stream)) == TEXT
        sim.token = "t1"
        error = await failure(channel)
        assert type(error) is UpstreamAuth
        file.write_text("t1\n")
        assert await answer(channel) == TEXT
    sent = [request.header("authorization") for request in sim.requests]
    assert sent == ["Bearer t0", "Bearer t0", "Bearer t0", "Bearer t1"]


async def test_a_token_is_in_no_error(sim: AzureSimulator, tmp_path: Path) -> None:
    sim.token = "token-0123456789"
    (tmp_path / "token").write_text(sim.token)
    sim.script(AzureScript(status=400, error_message=f"odd {sim.token} of my-4o"))
    settings = {"auth": "bearer", "token_file": str(tmp_path / "token")}
    async with speaking(sim, api_key=None, azure=settings) as channel:
        error = await failure(channel)
    assert error.message == "odd *** of m"


async def test_without_its_token_a_call_fails_before_it_is_sent(sim: AzureSimulator, tmp_path: Path) -> None:
    settings = {"auth": "bearer", "token_command": [sys.executable, "-c", "raise SystemExit(3)"]}
    async with speaking(sim, api_key=None, azure=settings) as channel:
        for stream in (True, False):
            error = await failure(channel, request=chat(stream=stream))
            assert (type(error), "token_command" in error.message) == (UpstreamAuth, True)
    assert sim.requests == []
