"""What the openai upstream makes of answers that are none."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import (
    ContentFiltered,
    InsufficientQuota,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.channels import answer, chat, failure, said_and_failed
from tests.upstreams.openai_cases import KEY, TEXT, connections, upstream

# ── refusals ──


@pytest.mark.parametrize(
    ("script", "kind", "status", "code"),
    [
        (Script(status=400), UpstreamRefused, 400, "invalid_value"),
        (
            Script(status=400, error_code="context_length_exceeded"),
            UpstreamRefused,
            400,
            "context_length_exceeded",
        ),
        (Script(status=400, error_code="content_filter"), ContentFiltered, 400, "content_filter"),
        (Script(status=401), UpstreamAuth, 502, "upstream_auth"),
        (Script(status=402), InsufficientQuota, 429, "insufficient_quota"),
        (Script(status=403), UpstreamAuth, 502, "upstream_auth"),
        (Script(status=404, error_code="model_not_found"), UpstreamRefused, 404, "model_not_found"),
        (Script(status=408), UpstreamTimeout, 504, "upstream_timeout"),
        (Script(status=409), UpstreamError, 502, "upstream_error"),
        (Script(status=413), UpstreamRefused, 413, None),
        (Script(status=422), UpstreamRefused, 422, None),
        (Script(status=429), RateLimited, 429, "rate_limit_exceeded"),
        (Script(status=500), UpstreamError, 502, "upstream_error"),
        (Script(status=502, error_form="html"), UpstreamError, 502, "upstream_error"),
        (Script(status=503), Overloaded, 503, "overloaded"),
        (Script(status=504), UpstreamTimeout, 504, "upstream_timeout"),
        (Script(status=529), Overloaded, 503, "overloaded"),
        (Script(status=599, error_form="empty"), UpstreamError, 502, "upstream_error"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Script) else None,
)
async def test_a_status_becomes_our_error(
    sim: OpenAISimulator, script: Script, kind: type[ServerError], status: int, code: str | None, http: str
) -> None:
    sim.script(script)
    async with upstream(sim.base_url, http=http) as channel:
        error = await failure(channel)
        assert (type(error), error.status, error.upstream_status) == (kind, status, script.status)
        assert error.code == code or code is None
        assert await answer(channel) == TEXT
    assert len(sim.requests) == 2  # nothing is repeated here
    assert connections(sim) == 1  # and an error that was read to its end costs no connection


@pytest.mark.parametrize("form", ["seconds", "date", "ms", "both"])
async def test_how_long_to_wait_is_passed_on(sim: OpenAISimulator, form: Any, http: str) -> None:
    sim.script(Script(status=429, retry_after=7, retry_after_form=form))
    async with upstream(sim.base_url, http=http) as channel:
        wait_s = (await failure(channel)).retry_after_s
    assert wait_s == pytest.approx(7, abs=2)


@pytest.mark.parametrize("form", ["openai", "text", "flat", "msg", "base_resp", "array"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_inside_a_200_is_an_error(sim: OpenAISimulator, form: Any, stream: bool) -> None:
    sim.script(Script(error_after=0, error_form=form))
    async with upstream(sim.base_url) as channel:
        error = await failure(channel, request=chat(stream=stream))
    assert error.status >= 400
    assert error.retryable


@pytest.mark.parametrize("event", [True, False])
async def test_an_error_after_the_first_delta_comes_behind_what_was_said(
    sim: OpenAISimulator, event: bool, http: str
) -> None:
    for join in (1, 100):
        sim.script(Script(text=TEXT, chunks=4, error_after=2, error_event=event, join=join))
        async with upstream(sim.base_url, http=http) as channel:
            said, error = await said_and_failed(channel)
        assert (len(said), type(error)) == (2, UpstreamError)


@pytest.mark.parametrize("script", [Script(pieces=()), Script(body=""), Script(body="data: [DONE]\n\n")])
async def test_an_answer_of_nothing_is_an_error(sim: OpenAISimulator, script: Script) -> None:
    sim.script(Script(pieces=(), usage="zero") if script.pieces == () else script)
    async with upstream(sim.base_url) as channel:
        assert type(await failure(channel)) is UpstreamEmpty


@pytest.mark.parametrize("body", ["<html>\n</html>", "data: nonsense\n\n", "{", '{"a":1}'])
async def test_an_answer_of_nonsense_is_invalid_and_not_quoted(sim: OpenAISimulator, body: str) -> None:
    sim.script(Script(body=body))
    async with upstream(sim.base_url) as channel:
        error = await failure(channel)
    assert (type(error), error.status, error.code) == (UpstreamInvalid, 502, "upstream_invalid")
    assert body not in error.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_and_the_key_stays_here(
    sim: OpenAISimulator, status: int, http: str
) -> None:
    async with OpenAISimulator() as elsewhere:
        sim.script(Script(status=status, redirect=f"{elsewhere.base_url}/chat/completions"))
        async with upstream(sim.base_url, http=http) as channel:
            error = await failure(channel)
        assert (type(error), error.status) == (UpstreamInvalid, 502)
        assert elsewhere.stats()["connections_total"] == 0
    assert "127.0.0.1" not in error.message


async def test_what_an_upstream_says_is_cleaned_of_keys_addresses_and_its_own_names(
    sim: OpenAISimulator,
) -> None:
    secret = "a secret of the header"
    message = f"{KEY} and {secret} at http://10.0.0.1/x: their-m is not m2, mine is"
    sim.script(Script(status=400, error_message=message))
    models = {"m": {"model": "their-m"}}
    async with upstream(sim.base_url, models=models, headers={"X-A": secret, "X-B": "mine"}) as channel:
        error = await failure(channel)
    assert error.message == "*** and *** at *** m is not m2, mine is"


async def test_of_a_huge_error_body_little_is_read(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(status=500, body_bytes=100_000_000))
    async with upstream(sim.base_url, http=http) as channel:
        assert (await failure(channel)).upstream_status == 500
        await sim.wait_until(lambda: not sim.stats()["connections_open"])
    assert sim.requests[-1].sent_bytes < 20_000_000  # what sockets hold, and no more


@pytest.mark.parametrize("script", [{"cut_at_byte": 10}, {"cut_at_byte": 10, "cut": "rst"}])
async def test_if_the_words_of_an_error_do_not_come_its_status_does(
    sim: OpenAISimulator, script: dict[str, Any], http: str
) -> None:
    sim.script(Script(status=400, **script))
    async with upstream(sim.base_url, http=http) as channel:
        error = await failure(channel, request=chat(stream=False))
        assert (type(error), error.status) == (UpstreamRefused, 400)
        assert await answer(channel) == TEXT
