"""A chat's images as an upstream that takes only bytes wants them: fetched, checked, made to fit.

What fits is passed on as it came, judged by its head alone. The rest is converted by Pillow (extra
``images``), in threads of its own; without Pillow it is refused.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from server.chat import ChatRequest
from server.errors import InvalidRequest, ServerError
from server.settings import Images
from server.upstreams.image_data import decode_data_uri
from server.upstreams.image_fetch import ImageFetcher
from server.upstreams.image_fitting import Bounds, Fitted, NoPillow, Unfit, as_it_is, fit
from server.upstreams.image_head import image_type
from server.upstreams.image_places import Places
from server.upstreams.image_sharing import RunImages

log = logging.getLogger("antiphon.upstream")

# Images are converted by so many threads: each may hold a whole image's pixels.
THREADS = 2
# So many more wait for one, each with its bytes: a few seconds' work.
WAITING = 8
# Of one request with many images so many are in hand at a time, so that it does not fill the queue alone.
_IN_HAND = 4
# Characters of base64 that tell what an image is.
_HEAD = 64
# Types that cannot be told by their first bytes here, nor converted.
_UNKNOWN_HEADS = ("image/heic", "image/heif")


class Inlined(msgspec.Struct, frozen=True):
    """A request with its images inside, the one it was made of, and what they were made to fit.

    ``warning`` says in ASCII words what was done to the images; "": nothing.
    """

    asked: ChatRequest
    chat: ChatRequest
    bounds: Bounds
    warning: str = ""

    def suits(self, chat: ChatRequest, bounds: Bounds) -> bool:
        """Was it made of this very request, for this upstream's bounds?"""
        return self.asked is chat and self.bounds is bounds


class ImageSource:
    """Gives requests their images as bytes. ``aclose`` closes every socket and ends the threads.

    Nothing is opened before the first request that has an image.
    """

    def __init__(self, settings: Images) -> None:
        self._settings = settings
        self._fetcher: ImageFetcher | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._places = Places(THREADS, WAITING, "converted")
        self._converting: set[asyncio.Future[Fitted]] = set()
        self._told = False

    async def aclose(self) -> None:
        """After the last request. A conversion that has begun cannot be stopped: its end is awaited."""
        if self._fetcher is not None:
            await self._fetcher.aclose()
        if self._converting:
            await asyncio.wait(self._converting)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    async def inline(
        self,
        chat: ChatRequest,
        bounds: Bounds,
        *,
        deadline: float | None = None,
        shared: RunImages | None = None,
    ) -> Inlined:
        """The request with the image of its newest turn that bears one as a data URI within ``bounds``.

        Turns with several images, and older ones, stay as they are: what becomes of them is the upstream's
        rule. Raises ``InvalidRequest`` that names the part for an image that cannot be had, read or made to
        fit, and ``ImagesBusy`` when too many are being fetched or converted. No part of it goes on after
        ``deadline`` (event loop time, seconds), but for a conversion that has begun, which nobody awaits.
        What other calls of the same run have had made is taken from ``shared``.
        """
        bearing = [place for place, message in enumerate(chat.messages) if message.images]
        if not bearing or len(chat.messages[bearing[-1]].images) != 1:
            return Inlined(chat, chat, bounds)
        place = bearing[-1]
        raw = chat.raw_messages()
        message: dict[str, Any] = msgspec.json.decode(raw[place])
        number = next(at for at, part in enumerate(message["content"]) if part.get("type") == "image_url")
        image = message["content"][number]["image_url"]
        param = f"messages[{place}].content[{number}].image_url"
        fitted = await self._fitted(image["url"], bounds, param, deadline, shared)
        uri = fitted.uri
        if uri == image["url"]:
            return Inlined(chat, chat, bounds)
        image["url"] = uri
        raw[place] = msgspec.json.encode(message)
        warning = fitted.done and f"the image was {fitted.done}"
        return Inlined(chat, chat.with_messages(raw), bounds, warning)

    async def inline_all(
        self,
        chat: ChatRequest,
        bounds: Bounds,
        keep: Callable[[str], bool],
        *,
        deadline: float | None = None,
        shared: RunImages | None = None,
    ) -> Inlined:
        """The request with every image as a data URI of a type within ``bounds``.

        Fetched is what stands on the web, but for what ``keep`` says of its URL; data URIs are converted if
        they are of another type, and else looked into no further than their first bytes. Raises as
        ``inline`` does.
        """
        places = {
            image.url: f"messages[{place}].content[{number}].image_url"
            for place, message in reversed([*enumerate(chat.messages)])
            for number, part in enumerate(message.content if isinstance(message.content, list) else ())
            if part.type == "image_url" and (image := part.image_url) is not None
            if not keep(image.url) and not _declared(image.url, bounds)
        }
        if not places:
            return Inlined(chat, chat, bounds)
        turns = asyncio.Semaphore(_IN_HAND)

        async def made_to_fit(url: str, param: str) -> Fitted:
            async with turns:
                return await self._fitted(url, bounds, param, deadline, shared)

        failed: ServerError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                made = {
                    url: group.create_task(made_to_fit(url, param), name="image")
                    for url, param in places.items()
                }
        except* ServerError as errors:
            failed = next(one for one in errors.exceptions if isinstance(one, ServerError))
        if failed is not None:
            raise failed
        fitted = {url: task.result() for url, task in made.items()}
        uris = {url: one.uri for url, one in fitted.items()}
        done = dict.fromkeys(one.done for one in fitted.values() if one.done)
        warning = f"images were {' or '.join(done)}" if done else ""
        whole = chat.with_messages(_with_images(raw, uris) for raw in chat.raw_messages())
        return Inlined(chat, whole, bounds, warning)

    async def _fitted(
        self, url: str, bounds: Bounds, param: str, deadline: float | None, shared: RunImages | None
    ) -> Fitted:
        if shared is None:
            return await self._fit(url, bounds, param, deadline, partial(self._fetch, url, param, deadline))
        fetch = partial(shared.fetched.get, url, partial(self._fetch, url, param, deadline))
        make = partial(self._fit, url, bounds, param, deadline, fetch)
        return await shared.fitted.get((url, bounds), make)

    async def _fit(
        self,
        url: str,
        bounds: Bounds,
        param: str,
        deadline: float | None,
        fetch: Callable[[], Awaitable[bytes]],
    ) -> Fitted:
        # Base64 is decoded here whatever its size: a thread would hold the interpreter just as long.
        if url[:5].lower() == "data:":
            data = decode_data_uri(url, max_bytes=self._settings.max_bytes, param=param)
        else:
            data = await fetch()
        try:
            return as_it_is(data, bounds) or await self._convert(data, bounds, deadline)
        except Unfit as error:
            if isinstance(error, NoPillow):
                self._tell_operator()
            raise InvalidRequest(f"The image {error}.", param=param, code="invalid_image") from None

    async def _fetch(self, url: str, param: str, deadline: float | None) -> bytes:
        if self._fetcher is None:
            settings = self._settings
            self._fetcher = ImageFetcher(
                allow_hosts=settings.allow_hosts,
                max_bytes=settings.max_bytes,
                total_s=settings.total_s,
                max_redirects=settings.max_redirects,
                at_once=settings.at_once,
            )
        return await self._fetcher.fetch(url, param, deadline=deadline)

    async def _convert(self, data: bytes, bounds: Bounds, deadline: float | None) -> Fitted:
        """Convert it in a thread. The place is taken until the thread is done, whether or not we wait."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
        await self._places.take(deadline)
        loop = asyncio.get_running_loop()
        work = partial(fit, data, bounds, self._settings.max_pixels)
        converting = loop.run_in_executor(self._pool, work)
        self._converting.add(converting)
        converting.add_done_callback(self._converted)
        left_s = None if deadline is None else deadline - loop.time()
        done, _ = await asyncio.wait((converting,), timeout=left_s)
        if not done:
            raise self._places.busy()
        return converting.result()

    def _converted(self, converting: asyncio.Future[Fitted]) -> None:
        self._converting.discard(converting)
        self._places.give()
        if not converting.cancelled():
            converting.exception()  # noted, though nobody may wait for it any more

    def _tell_operator(self) -> None:
        if not self._told:
            self._told = True
            log.warning("images are refused that could be converted: install Pillow (the extra 'images')")


def _declared(url: str, bounds: Bounds) -> bool:
    """Is it a data URI that says to be of one of the types, and do its first bytes bear that out?"""
    kind = next((kind for kind in bounds.types if url[: len(kind) + 6].lower() == f"data:{kind};"), None)
    if kind is None or kind in _UNKNOWN_HEADS:
        return kind is not None
    start = url.find(",", 0, 256) + 1
    try:
        return start > 0 and image_type(base64.b64decode(url[start : start + _HEAD])) == kind
    except ValueError:
        return False


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
