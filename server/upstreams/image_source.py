"""A chat's images as an upstream that takes only bytes wants them: fetched, checked, made to fit.

What fits is passed on as it came. The rest is converted by Pillow (extra ``images``), in threads of its own;
without Pillow it is refused.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from server.chat import ChatRequest
from server.errors import InvalidRequest, ServerError
from server.settings import Images
from server.upstreams.image_data import decode_data_uri
from server.upstreams.image_fetch import ImageFetcher, image_type
from server.upstreams.image_fitting import Bounds, Unfit, can_convert, fit

log = logging.getLogger("antiphon.upstream")

# Images are converted by so many threads: each may hold a whole image's pixels.
THREADS = 2


class ImageSource:
    """Gives requests their images as bytes. ``aclose`` closes every socket and ends the threads.

    Nothing is opened before the first request that has an image.
    """

    def __init__(self, settings: Images) -> None:
        self._settings = settings
        self._fetcher: ImageFetcher | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._told = False

    async def aclose(self) -> None:
        """After the last request."""
        if self._fetcher is not None:
            await self._fetcher.aclose()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def inline(self, chat: ChatRequest, bounds: Bounds) -> ChatRequest:
        """The request with the image of its newest turn that bears one as a data URI within ``bounds``.

        Turns with several images, and older ones, stay as they are: what becomes of them is the upstream's
        rule. Raises ``InvalidRequest`` that names the part for an image that cannot be had, read or made to
        fit, and ``Overloaded`` when too many are being fetched.
        """
        bearing = [place for place, message in enumerate(chat.messages) if message.images]
        if not bearing or len(chat.messages[bearing[-1]].images) != 1:
            return chat
        place = bearing[-1]
        raw = chat.raw_messages()
        message: dict[str, Any] = msgspec.json.decode(raw[place])
        number = next(at for at, part in enumerate(message["content"]) if part.get("type") == "image_url")
        image = message["content"][number]["image_url"]
        param = f"messages[{place}].content[{number}].image_url"
        image["url"] = await self._fitting(image["url"], bounds, param)
        raw[place] = msgspec.json.encode(message)
        return chat.with_messages(raw)

    async def inline_all(self, chat: ChatRequest, bounds: Bounds, keep: Callable[[str], bool]) -> ChatRequest:
        """The request with every image as a data URI of a type within ``bounds``.

        Fetched is what stands on the web, but for what ``keep`` says of its URL; data URIs are converted if
        they are of another type, and else not looked into. Raises as ``inline`` does.
        """
        places = {
            image.url: f"messages[{place}].content[{number}].image_url"
            for place, message in reversed([*enumerate(chat.messages)])
            for number, part in enumerate(message.content if isinstance(message.content, list) else ())
            if part.type == "image_url" and (image := part.image_url) is not None
            if not keep(image.url) and not _declared(image.url, bounds)
        }
        if not places:
            return chat
        failed: ServerError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                made = {
                    url: group.create_task(self._fitting(url, bounds, param), name="image")
                    for url, param in places.items()
                }
        except* ServerError as errors:
            failed = next(one for one in errors.exceptions if isinstance(one, ServerError))
        if failed is not None:
            raise failed
        return chat.with_messages(
            _with_images(raw, {url: task.result() for url, task in made.items()})
            for raw in chat.raw_messages()
        )

    async def _fitting(self, url: str, bounds: Bounds, param: str) -> str:
        loop, settings = asyncio.get_running_loop(), self._settings
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
        if url[:5].lower() == "data:":
            data = await loop.run_in_executor(
                self._pool, lambda: decode_data_uri(url, max_bytes=settings.max_bytes, param=param)
            )
        else:
            data = await self._fetch(url, param)
        if not can_convert():
            kind = image_type(data)
            if kind is None or kind not in bounds.types or len(data) > bounds.max_bytes:
                self._tell_operator()
                raise InvalidRequest(
                    f"The image is {kind} of {len(data)} bytes; send {bounds.said()}.",
                    param=param,
                    code="invalid_image",
                )
            return _uri(kind, data)
        try:
            fitting = await loop.run_in_executor(self._pool, fit, data, bounds, settings.max_pixels)
        except Unfit as error:
            raise InvalidRequest(f"The image {error}.", param=param, code="invalid_image") from None
        return _uri(*fitting)

    async def _fetch(self, url: str, param: str) -> bytes:
        if self._fetcher is None:
            settings = self._settings
            self._fetcher = ImageFetcher(
                allow_hosts=settings.allow_hosts,
                max_bytes=settings.max_bytes,
                total_s=settings.total_s,
                max_redirects=settings.max_redirects,
                at_once=settings.at_once,
            )
        return await self._fetcher.fetch(url, param)

    def _tell_operator(self) -> None:
        if not self._told:
            self._told = True
            log.warning("images are refused that could be converted: install Pillow (the extra 'images')")


def _declared(url: str, bounds: Bounds) -> bool:
    """Is it a data URI that says to be of one of the types?"""
    return any(url[: len(kind) + 6].lower() == f"data:{kind};" for kind in bounds.types)


def _with_images(raw: bytes, images: Mapping[str, str]) -> bytes:
    """A message with other URLs for its images; as it came if it has none of them."""
    message: dict[str, Any] = msgspec.json.decode(raw)
    content = message.get("content")
    shown = [
        part["image_url"]
        for part in (content if isinstance(content, list) else ())
        if part.get("type") == "image_url" and part["image_url"]["url"] in images
    ]
    for image in shown:
        image["url"] = images[image["url"]]
    return msgspec.json.encode(message) if shown else raw


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
