"""Spark's image understanding from outside: an image by URL or data URI in, an answer out."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from server.settings import Channel, Images, Settings, TimeoutsPatch
from server.simulators.spark import SparkSimulator
from tests.behaviour.asking import error_of, post
from tests.behaviour.running import QUIET, Antiphon, antiphon
from tests.small_host import small_host


def picture(form: str = "PNG", size: tuple[int, int] = (300, 200)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, form)
    return out.getvalue()


def asking(url: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return {"model": "spark-vision", "messages": [{"role": "user", "content": parts}]}


def settings(sim: SparkSimulator, **images: Any) -> Settings:
    spark = msgspec.convert(
        {
            "name": "spark",
            "kind": "spark",
            "base_url": sim.ws_url,
            "app_id": "simulate",
            "api_key": "sim-key",
            "api_secret": "sim-secret",
            "models": {"spark-vision": {}},
        },
        Channel,
    )
    return Settings(channels=(spark,), images=Images(**images), logging=QUIET)


@asynccontextmanager
async def serving(**images: Any) -> AsyncIterator[tuple[Antiphon, SparkSimulator]]:
    async with SparkSimulator() as sim, antiphon(settings(sim, **images)) as server:
        yield server, sim


@asynccontextmanager
async def image_host(body: bytes) -> AsyncIterator[str]:
    async def get(request: web.Request) -> web.Response:
        if request.match_info["name"] == "away":
            raise web.HTTPFound("http://127.0.0.2/inside.png")
        return web.Response(body=body)

    async with small_host(get) as url:
        yield url


def sent_image(sim: SparkSimulator) -> bytes:
    """What Spark got as the first of the messages."""
    first = sim.requests[-1].json()["payload"]["message"]["text"][0]
    assert first["content_type"] == "image"
    return base64.b64decode(first["content"])


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
async def test_an_image_in_a_data_uri_arrives_as_it_is(form: str) -> None:
    data = picture(form)
    async with serving() as (server, sim):
        uri = f"data:image/{form.lower()};base64,{base64.b64encode(data).decode()}"
        answer = await post(server, asking(uri))
        assert answer.status == 200, answer.body
        assert sent_image(sim) == data


async def test_an_image_behind_a_url_is_fetched_and_made_one_that_spark_takes() -> None:
    async with image_host(picture("WEBP")) as host, serving(allow_hosts=("127.0.0.1",)) as (server, sim):
        answer = await post(server, asking(f"{host}/image"))
        assert answer.status == 200, answer.body
        assert sent_image(sim).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("away", b"", "invalid_image_url"),
        ("page", b"<html>not an image</html>", "invalid_image_url"),
        ("small", picture(size=(20, 20)), "invalid_image"),
        ("broken", picture()[:80], "invalid_image"),
        ("bomb", picture("WEBP", (4000, 4000)), "invalid_image"),
    ],
)
async def test_what_is_no_image_for_spark_is_the_requests_fault_and_asks_nobody(
    path: str, body: bytes, code: str
) -> None:
    allowed = {"allow_hosts": ("127.0.0.1",), "max_pixels": 10_000_000}
    async with image_host(body) as host, serving(**allowed) as (server, sim):
        answer = await post(server, asking(f"{host}/{path}"))
        error = error_of(answer, 400)
        assert (error["code"], error["param"]) == (code, "messages[0].content[0].image_url")
        assert not sim.requests


async def test_a_private_address_is_refused_without_a_hint_of_what_is_there() -> None:
    async with image_host(picture()) as host, serving() as (server, sim):
        error = error_of(await post(server, asking(f"{host}/image")), 400)
        assert error["code"] == "invalid_image_url"
        assert "127.0.0.1" not in error["message"]
        assert not sim.requests


async def test_what_was_done_to_the_image_and_to_older_ones_is_told_in_a_header() -> None:
    webp, png = (
        f"data:image/{form.lower()};base64,{base64.b64encode(picture(form)).decode()}"
        for form in ("WEBP", "PNG")
    )
    async with serving() as (server, sim):
        converted = await post(server, asking(webp))
        assert converted.headers["x-antiphon-warnings"] == "the image was converted from webp to png"
        asked = asking(png)
        older = asking(webp)["messages"] * 2
        answer = {"role": "assistant", "content": "A thing."}
        asked["messages"] = [older[0], answer, older[1], answer, *asked["messages"]]
        left_out = await post(server, asked)
        assert left_out.headers["x-antiphon-warnings"] == "2 older images were left out"
        assert sent_image(sim) == picture("PNG")
        fit = await post(server, asking(png))
        assert "x-antiphon-warnings" not in fit.headers


@asynccontextmanager
async def silent_host() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Its address, and what is set when somebody has come and when he has left."""
    come, left = asyncio.Event(), asyncio.Event()

    async def get(request: web.Request) -> web.Response:
        come.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return web.Response()

    app = web.Application()
    app.router.add_get("/slow", get)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/slow", come, left
    finally:
        await runner.cleanup()


async def test_a_slow_image_host_ends_with_the_requests_time_and_is_no_fault_of_spark() -> None:
    async with silent_host() as (url, _, left), SparkSimulator() as sim:
        made = settings(sim, allow_hosts=("127.0.0.1",), total_s=300)
        hasty = msgspec.structs.replace(made.channels[0], timeouts=TimeoutsPatch(total_s=0.5))
        async with antiphon(msgspec.structs.replace(made, channels=(hasty,))) as server:
            for _ in range(7):  # more than a breaker would bear
                left.clear()
                error = error_of(await post(server, asking(url)), 400)
                assert error["code"] == "invalid_image_url"
                async with asyncio.timeout(10):
                    await left.wait()
            png = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
            assert (await post(server, asking(png))).status == 200


async def test_a_client_that_leaves_during_the_fetch_takes_it_along() -> None:
    allowed = {"allow_hosts": ("127.0.0.1",), "total_s": 300}
    async with silent_host() as (url, come, left), serving(**allowed) as (server, sim):
        asked = asyncio.ensure_future(post(server, asking(url)))
        async with asyncio.timeout(10):
            await come.wait()
            asked.cancel()
            await left.wait()
        assert not sim.requests


async def test_another_attempt_does_not_fetch_the_image_anew() -> None:
    fetched = 0

    async def get(request: web.Request) -> web.Response:
        nonlocal fetched
        fetched += 1
        return web.Response(body=picture("WEBP"))

    app = web.Application()
    app.router.add_get("/image", get)
    async with TestServer(app, host="127.0.0.1") as host, SparkSimulator() as sim:
        made = settings(sim, allow_hosts=("127.0.0.1",))
        nobody = msgspec.structs.replace(
            made.channels[0], name="nobody", base_url="ws://127.0.0.1:9", priority=1
        )
        made = msgspec.structs.replace(made, channels=(nobody, *made.channels))
        async with antiphon(made) as server:
            answer = await post(server, asking(str(host.make_url("/image"))))
            assert answer.status == 200, answer.body
            assert answer.headers["x-antiphon-attempts"] == "upstream_unreachable, ok"
            assert answer.headers["x-antiphon-warnings"] == "the image was converted from webp to png"
    assert fetched == 1
