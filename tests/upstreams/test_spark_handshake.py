"""Spark's handshake: the signature and its clock, and what a refusal means."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from websockets.http11 import Request

from server.errors import RateLimited, ServerError, UpstreamAuth
from tests.upstreams.spark_channel import deltas, refusing, text, upstream
from tests.upstreams.spark_server import spark_server

CLOCK = b'{"message":"HMAC signature cannot be verified, a valid date or x-date header is required"}'


async def test_each_dial_has_a_signature_and_a_user_of_its_own() -> None:
    async with spark_server() as spark, upstream(spark.base_url) as asked:
        both = await asyncio.gather(text(asked), text(asked, user="me"))
        assert list(both) == ["pong", "pong"]
        assert len({request["header"]["uid"] for request in spark.requests}) == 2


@pytest.mark.parametrize(("minutes", "dates"), [(15, 1), (-15, 1), (15, 2)])  # a proxy may add a date
async def test_a_wrong_clock_is_learned_and_corrected_once(minutes: int, dates: int) -> None:
    theirs = timedelta(minutes=minutes)

    def refuse(request: Request) -> tuple[int, dict[str, str], bytes] | None:
        now = datetime.now(UTC) + theirs
        signed = parsedate_to_datetime(spark.dates()[-1])
        if abs(signed - now) < timedelta(seconds=300):
            return None
        return 403, {"Date": "\n".join([format_datetime(now, usegmt=True)] * dates)}, CLOCK

    async with spark_server(refuse=refuse) as spark, upstream(spark.base_url) as asked:
        assert await text(asked) == "pong"
        assert len(spark.urls) == 2
        assert await text(asked) == "pong"
        assert len(spark.urls) == 3  # what was learned is kept


async def test_a_clock_that_cannot_be_corrected_is_refused_after_one_more_dial() -> None:
    date = format_datetime(datetime.now(UTC), usegmt=True)
    async with spark_server(refuse=refusing(403, CLOCK, Date=date)) as spark:
        async with upstream(spark.base_url) as asked:
            with pytest.raises(UpstreamAuth, match="clock"):
                await deltas(asked)
        assert len(spark.urls) == 2


async def test_refused_credentials_are_the_operators_trouble_and_dialled_once() -> None:
    body = b'{"message":"HMAC signature does not match"}'
    async with spark_server(refuse=refusing(401, body)) as spark, upstream(spark.base_url) as asked:
        with pytest.raises(UpstreamAuth) as caught:
            await deltas(asked)
        assert (caught.value.status, caught.value.upstream_status) == (502, 401)
        assert len(spark.urls) == 1


@pytest.mark.parametrize("wait", ["7", "7\n7"])
async def test_a_refusal_for_too_many_connections_says_how_long_to_wait(wait: str) -> None:
    refuse = refusing(429, b"", **{"Retry-After": wait})
    async with spark_server(refuse=refuse) as spark, upstream(spark.base_url) as asked:
        with pytest.raises(RateLimited) as caught:
            await deltas(asked)
        assert caught.value.retry_after_s == 7


async def test_a_redirect_is_not_followed() -> None:
    async with spark_server() as other:
        refuse = refusing(302, b"", Location=f"{other.base_url}/v1.1/chat")
        async with spark_server(refuse=refuse) as spark, upstream(spark.base_url) as asked:
            with pytest.raises(ServerError, match="302"):
                await deltas(asked)
        assert other.urls == []
