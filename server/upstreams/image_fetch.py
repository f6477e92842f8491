"""Images behind http(s) URLs, fetched for upstreams that take only bytes, where ``image_guard`` lets us."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from server.errors import InvalidRequest, Overloaded
from server.upstreams.image_guard import GuardedResolver, checked_url, plain_host

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 65_536


def image_type(data: bytes) -> str | None:
    """The media type by the first bytes (png, jpeg, gif, webp, bmp, tiff); None: another."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "image/tiff"
    return "image/bmp" if data.startswith(b"BM") and len(data) > 26 else None


class ImageFetcher:
    """Fetches images, ``at_once`` at a time. An async context manager: leaving it closes every socket.

    ``max_bytes`` bounds the body, ``total_s`` (seconds) everything from DNS to the last byte, redirects
    included. No cookie, key or header of the client goes out; no proxy of the environment is used.
    """

    def __init__(
        self,
        *,
        allow_hosts: Collection[str] = (),
        max_bytes: int = 20_000_000,
        total_s: float = 10.0,
        max_redirects: int = 3,
        at_once: int = 16,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allow_hosts = frozenset(plain_host(host) for host in allow_hosts)
        self._max_bytes = max_bytes
        self._total_s = total_s
        self._max_redirects = max_redirects
        self._slots = asyncio.Semaphore(at_once)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=GuardedResolver(resolver or ThreadedResolver(), self._allow_hosts),
                use_dns_cache=False,
                force_close=True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"accept": "image/*", "accept-encoding": "identity", "user-agent": "antiphon"},
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every socket."""
        await self._session.close()

    async def fetch(self, url: str, param: str) -> bytes:
        """The image's bytes. Raises InvalidRequest (``invalid_image_url``) that names ``param``.

        What could not be reached and what is not public are told alike, so that our network stays unknown.
        Raises Overloaded when none of the ``at_once`` places becomes free in ``total_s``.
        """
        try:
            async with asyncio.timeout(self._total_s):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded("Too many images are being fetched; try again in a moment.") from None
        try:
            async with asyncio.timeout(self._total_s):
                return await self._follow(url, param)
        except (
            TimeoutError,
            OSError,
            UnicodeError,
            aiohttp.ClientError,
        ) as error:  # UnicodeError: no name of DNS
            raise _refused(_UNREACHABLE, param) from error
        finally:
            self._slots.release()

    async def _follow(self, url: str, param: str) -> bytes:
        target = self._checked(url, param)
        for _ in range(self._max_redirects + 1):
            async with self._session.get(target, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response, param)
                try:
                    onward = str(target.join(URL(response.headers.get("location", ""))))
                except ValueError as error:
                    raise _refused(_UNREACHABLE, param) from error
            target = self._checked(onward, param)
        raise _refused(f"redirects more than {self._max_redirects} times; give its final URL", param)

    def _checked(self, url: str, param: str) -> URL:
        try:
            return checked_url(url, self._allow_hosts)
        except ValueError as error:
            raise _refused(_UNREACHABLE, param) from error

    async def _read(self, response: aiohttp.ClientResponse, param: str) -> bytes:
        if response.status != 200 or response.headers.get("content-encoding", "identity") != "identity":
            raise _refused(_UNREACHABLE, param)
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            data += chunk
            if len(data) > self._max_bytes:
                raise _refused(f"is larger than {self._max_bytes} bytes; send a smaller one", param)
        if image_type(bytes(data[:32])) is None:
            raise _refused("is no image in a format that is known; send png or jpeg", param)
        return bytes(data)


_UNREACHABLE = (
    "could not be fetched from a public http or https address on port 80 or 443; send it as a data URI"
)


def _refused(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"The image {what}.", param=param, code="invalid_image_url")
