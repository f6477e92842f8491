"""A chat's newest image as a data URI that the upstream can take, wherever it comes from."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from PIL import Image

from server.chat import ChatRequest
from server.errors import ImagesBusy, InvalidRequest
from server.openai_wire import parse_chat
from server.settings import Images
from server.upstreams.image_fitting import Bounds
from server.upstreams.image_source import THREADS, WAITING, ImageSource, Inlined
from tests.small_host import small_host

BOUNDS = Bounds(
    types=frozenset({"image/png", "image/jpeg"}), max_bytes=100_000, max_side=500, max_pixels=100_000
)


HEIC = msgspec.structs.replace(BOUNDS, types=BOUNDS.types | {"image/heic"})


def encoded(form: str = "PNG", size: tuple[int, int] = (60, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, form)
    return out.getvalue()


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def chat(*turns: list[str] | str) -> ChatRequest:
    """Each turn is a text, or the URLs of its images."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        content: Any = turn
        if isinstance(turn, list):
            content = [{"type": "text", "text": "What is it?", "x": 1.0}]
            content += [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in turn]
        messages.append({"role": "user", "content": content, "kept": 1.50})
    return parse_chat(msgspec.json.encode({"model": "m", "messages": messages}))


def url_of(request: ChatRequest, place: int = -1) -> str:
    return request.messages[place].images[0].url


@asynccontextmanager
async def source(**settings: Any) -> AsyncIterator[ImageSource]:
    made = ImageSource(Images(**settings))
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def host(answer: Any) -> AsyncIterator[str]:
    async def get(request: web.Request) -> web.StreamResponse:
        told: web.StreamResponse = await answer(request)
        return told

    async with small_host(get) as url:
        yield f"{url}/image"


async def test_an_image_that_fits_goes_on_as_it_came_and_nothing_else_changes() -> None:
    asked = chat("first", [uri(encoded())])
    async with source() as images:
        assert await images.inline(asked, BOUNDS) == Inlined(asked, asked, BOUNDS)


async def test_of_many_turns_the_newest_image_is_taken_and_the_others_left() -> None:
    async with source() as images:
        asked = chat([uri(b"broken")], [uri(encoded("GIF"), "image/gif")], "and?")
        got = await images.inline(asked, BOUNDS)
    assert url_of(got.chat, 0) == uri(b"broken")
    assert url_of(got.chat, 1).startswith("data:image/png;base64,")
    assert got.warning == "the image was converted from gif to png"
    before, after = (msgspec.json.decode(one.body) for one in (asked, got.chat))
    before["messages"][1]["content"][1]["image_url"]["url"] = url_of(got.chat, 1)
    assert after == before  # nothing else has changed


async def test_what_has_no_image_or_several_in_a_turn_is_left_as_it_is() -> None:
    async with source() as images:
        for asked in (chat("text"), chat([uri(encoded()), uri(encoded())])):
            assert (await images.inline(asked, BOUNDS)).chat is asked


async def test_an_image_is_fetched_from_a_host_that_is_allowed() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=encoded("WEBP"), content_type="image/webp")

    async with host(answer) as url, source(allow_hosts=("127.0.0.1",)) as images:
        got = await images.inline(chat([url]), BOUNDS)
    assert url_of(got.chat).startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/x.png", "http://localhost/x.png", "http://169.254.169.254/latest", "http://[::1]/"],
)
async def test_a_private_address_is_refused_with_the_parts_place(url: str) -> None:
    async with source() as images:
        with pytest.raises(InvalidRequest) as refused:
            await images.inline(chat("hello", [url]), BOUNDS)
    assert (refused.value.code, refused.value.param) == (
        "invalid_image_url",
        "messages[1].content[1].image_url",
    )


@pytest.mark.parametrize("data", [encoded()[:70], encoded("PNG", (2000, 2000))])
async def test_what_cannot_be_read_or_has_too_many_pixels_is_refused(data: bytes) -> None:
    async with source(max_pixels=1_000_000) as images:
        with pytest.raises(InvalidRequest) as refused:
            await images.inline(chat([uri(data)]), BOUNDS)
    assert (refused.value.code, refused.value.param) == ("invalid_image", "messages[0].content[1].image_url")


async def test_when_all_places_are_taken_the_others_are_told_to_come_again() -> None:
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        arrived.set()
        await leave.wait()
        return web.Response(body=encoded())

    async with host(answer) as url, source(allow_hosts=("127.0.0.1",), at_once=1, total_s=0.2) as images:
        first = asyncio.ensure_future(images.inline(chat([url]), BOUNDS))
        await arrived.wait()
        others = [images.inline(chat([url]), BOUNDS) for _ in range(2)]
        ends = await asyncio.gather(first, *others, return_exceptions=True)
    # The first runs out of time, and waiting for its place has taken all of the others'.
    assert [type(ends[0]), type(ends[-1])] == [InvalidRequest, ImagesBusy]


async def test_who_leaves_during_a_fetch_leaves_no_connection_behind() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    async with host(answer) as url, source(allow_hosts=("127.0.0.1",)) as images:
        asked = asyncio.ensure_future(images.inline(chat([url]), BOUNDS))
        await arrived.wait()
        asked.cancel()
        async with asyncio.timeout(10):
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await asked


def nothing_is_held(url: str) -> bool:
    return False


async def test_every_image_of_a_chat_is_put_in_and_all_else_keeps_its_bytes() -> None:
    asked_for: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked_for.append(request.path)
        return web.Response(body=encoded("JPEG"))

    async with host(answer) as url, source(allow_hosts=("127.0.0.1",)) as images:
        asked = chat("first", [url, uri(encoded())], "then", [url])
        got = (await images.inline_all(asked, BOUNDS, nothing_is_held)).chat
        held = await images.inline_all(asked, BOUNDS, lambda one: one == url)
    jpeg = uri(encoded("JPEG"), "image/jpeg")
    assert [[image.url for image in turn.images] for turn in got.messages] == [
        [],
        [jpeg, uri(encoded())],
        [],
        [jpeg],
    ]
    assert asked_for == ["/image"]  # once, though it stands there twice
    assert got.raw_messages()[0] == asked.raw_messages()[0]
    assert msgspec.json.decode(got.raw_messages()[1])["content"][1]["image_url"]["detail"] == "low"
    assert held == Inlined(asked, asked, BOUNDS)


async def test_a_data_uri_of_another_type_is_converted_and_the_others_not_looked_into() -> None:
    half = uri(encoded()[:20])
    asked = chat([uri(encoded("GIF"), "image/gif"), half])
    async with source() as images:
        got = await images.inline_all(asked, BOUNDS, nothing_is_held)
    converted, other = (image.url for image in got.chat.messages[0].images)
    assert got.warning == "images were converted from gif to png"
    assert got.suits(asked, BOUNDS)
    assert not got.suits(got.chat, BOUNDS)
    assert not got.suits(asked, msgspec.structs.replace(BOUNDS, max_bytes=1))
    assert converted.startswith("data:image/png;base64,")
    assert other == half


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (uri(encoded("JPEG")), "is image/jpeg by its first bytes"),
        ("data:image/png;base64,bm8gaW1hZ2U=", "in no format that is known"),
        ("data:image/png;base64,ü", "not valid base64"),
        ("data:image/png;charset=x", "must be given as data:"),
    ],
)
async def test_a_data_uri_that_is_not_what_it_says_is_refused(url: str, words: str) -> None:
    async with source() as images:
        with pytest.raises(InvalidRequest, match=words) as raised:
            await images.inline_all(chat(["data:image/heic;base64,AAAA", url]), HEIC, nothing_is_held)
    assert raised.value.param == "messages[0].content[2].image_url"


async def test_one_image_of_many_that_cannot_be_had_is_named() -> None:
    asked = chat([uri(encoded())], [uri(encoded()), "http://127.0.0.1:9/inside.png"])
    async with source() as images:
        with pytest.raises(InvalidRequest) as raised:
            await images.inline_all(asked, BOUNDS, nothing_is_held)
    assert (raised.value.param, raised.value.code) == (
        "messages[1].content[2].image_url",
        "invalid_image_url",
    )


async def test_more_than_a_few_conversions_do_not_queue_up() -> None:
    asked, more = chat([uri(encoded("GIF"), "image/gif")]), 3
    async with source() as images:
        all_at_once = (images.inline(asked, BOUNDS) for _ in range(THREADS + WAITING + more))
        ends = await asyncio.gather(*all_at_once, return_exceptions=True)
    busy = [end for end in ends if isinstance(end, ImagesBusy)]
    assert [(end.status, end.code, end.retry_after_s) for end in busy] == [(503, "overloaded", 1.0)] * more
    assert sum(isinstance(end, Inlined) for end in ends) == THREADS + WAITING


async def test_who_leaves_gives_the_place_back_and_what_nobody_waits_for_is_not_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is begun would be told in the log, for it is broken."""
    caplog.set_level(logging.INFO, "antiphon.upstream")
    good, broken = (
        chat([uri(data, "image/gif")])
        for data in (encoded("GIF", (2000, 2000)), encoded("GIF", (80, 80))[:-30])
    )
    async with source() as images:
        for _ in range(3):
            converting = [asyncio.ensure_future(images.inline(good, BOUNDS)) for _ in range(THREADS)]
            # Fewer than may wait: a place that is given back a moment late makes its next owner wait too.
            waiting = [asyncio.ensure_future(images.inline(broken, BOUNDS)) for _ in range(WAITING - THREADS)]
            await asyncio.sleep(0)  # all have begun to wait
            for one in (*waiting, *converting):
                one.cancel()
            ends = await asyncio.gather(*waiting, *converting, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            await asyncio.gather(*[images.inline(good, BOUNDS) for _ in range(THREADS)])
        assert "could not be converted" not in caplog.text
        with pytest.raises(InvalidRequest):
            await images.inline(broken, BOUNDS)
    assert "could not be converted" in caplog.text


async def test_the_callers_time_ends_a_fetch_and_the_wait_for_a_conversion() -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    now = asyncio.get_running_loop().time
    async with host(answer) as url, source(allow_hosts=("127.0.0.1",), total_s=300) as images:
        with pytest.raises(InvalidRequest, match="could not be fetched"):
            await images.inline(chat([url]), BOUNDS, deadline=now() + 0.2)
        async with asyncio.timeout(10):
            await gone.wait()
        large = chat([uri(encoded("GIF", (3000, 3000)), "image/gif")])
        with pytest.raises(ImagesBusy):
            await images.inline(large, BOUNDS, deadline=now())


# Run in a child that cannot import Pillow, as where the extra is not installed.
WITHOUT_PILLOW = """
import asyncio, logging, sys
sys.modules["PIL"] = None
from server.errors import InvalidRequest
from server.openai_wire import parse_chat
from server.settings import Images
from server.upstreams.image_source import ImageSource
from server.upstreams.spark import IMAGE_BOUNDS
from tests.small_host import small_host

async def main():
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    images = ImageSource(Images())
    for line in sys.stdin.buffer:
        try:
            print("went on" if await images.inline(parse_chat(line), IMAGE_BOUNDS) else "")
        except InvalidRequest as error:
            print(error.code, error.param, error.message)
    await images.aclose()

asyncio.run(main())
"""


def test_without_pillow_what_fits_goes_on_and_the_rest_is_told_what_is_missing() -> None:
    asked = [chat([uri(encoded("PNG", (90, 60)))]), *[chat([uri(encoded("GIF", (90, 60)), "image/gif")])] * 2]
    child = [sys.executable, "-c", WITHOUT_PILLOW]
    lines = b"\n".join(one.body for one in asked)
    told = subprocess.run(child, input=lines, capture_output=True, check=True, text=False).stdout.decode()
    went_on, for_operator, *refused = told.splitlines()
    assert went_on == "went on"
    assert "install Pillow (the extra 'images')" in for_operator  # once
    assert len(refused) == 2
    assert refused[0].startswith("invalid_image messages[0].content[1].image_url The image would have to be")
    assert "send jpeg or png of at most 4194304 bytes" in refused[0]
    assert "'images'" in refused[0]


async def test_one_request_with_very_many_images_does_not_fill_the_queue_alone() -> None:
    gifs = [uri(encoded("GIF", (60, 40 + at)), "image/gif") for at in range(2 * (THREADS + WAITING))]
    async with source() as images:
        got = (await images.inline_all(chat(gifs), BOUNDS, nothing_is_held)).chat
    assert all(image.url.startswith("data:image/png;base64,") for image in got.messages[0].images)
