"""A channel to a Spark of the tests' own, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from server.deltas import Delta, TextDelta
from server.settings import Channel, Images
from server.upstreams.base import Call
from server.upstreams.image_source import ImageSource
from server.upstreams.spark import SparkUpstream
from tests.spark.spark_chats import chat
from tests.upstreams.spark_server import Refusal

KNOWN = {
    "name": "spark",
    "kind": "spark",
    "app_id": "appid123",
    "api_key": "the-api-key-0123",
    "api_secret": "the-api-secret-0123",
    "models": {"m": {"model": "spark-lite"}, "vision": {}, "spark-api": {}, "gone": {"model": "gpt"}},
}


@asynccontextmanager
async def upstream(base_url: str, **settings: Any) -> AsyncIterator[SparkUpstream]:
    made = SparkUpstream(
        msgspec.convert(KNOWN | {"base_url": base_url} | settings, Channel), ImageSource(Images())
    )
    try:
        yield made
    finally:
        await made.aclose()


async def deltas(asked: SparkUpstream, *, call: Call | None = None, **fields: Any) -> list[Delta]:
    async with aclosing(asked.stream(chat(**{"stream": True} | fields), call or Call())) as batches:
        return [delta async for batch in batches for delta in batch]


async def text(asked: SparkUpstream, **fields: Any) -> str:
    return "".join(delta.text for delta in await deltas(asked, **fields) if isinstance(delta, TextDelta))


def refusing(status: int, body: bytes, **headers: str) -> Refusal:
    return lambda request: (status, headers, body)
