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

from server.errors import InvalidRequest
from server.upstreams.image_guard import GuardedResolver, checked_url, plain_host
from server.upstreams.image_head import image_type
from server.upstreams.image_places import Places

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 65_536


class ImageFetcher:
    """Fetches images, ``at_once`` at a time. An async context manager: leaving it closes every socket.

    ``max_bytes`` bounds the body, ``total_s`` (seconds) everything from waiting for a place to the last
    byte, redirects included. No cookie, key or header of the client goes out; no proxy of the environment
    is used.
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
        self._places = Places(at_once, 4 * at_once, "fetched")
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

    async def fetch(self, url: str, param: str, *, deadline: float | None = None) -> bytes:
        """The image's bytes, by ``deadline`` (event loop time, seconds) if that is sooner than ``total_s``.

        Raises InvalidRequest (``invalid_image_url``) that names ``param``.
        What could not be reached and what is not public are told alike, so that our network stays unknown.
        Raises ImagesBusy when no place becomes free in that time, or too many wait for one.
        """
        target = self._checked(url, param)
        by = asyncio.get_running_loop().time() + self._total_s
        if deadline is not None:
            by = min(by, deadline)
        await self._places.take(by)
        try:
            async with asyncio.timeout_at(by):
                return await self._follow(target, param)
        # ValueError: UnicodeError for no name of DNS, and answers that break their own grammar.
        except (TimeoutError, OSError, ValueError, aiohttp.ClientError) as error:
            raise _refused(_UNREACHABLE, param) from error
        finally:
            self._places.give()

    async def _follow(self, target: URL, param: str) -> bytes:
        for _ in range(self._max_redirects + 1):
            async with self._session.get(target, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response, param)
                try:
                    onward = str(target.join(URL(response.headers["location"])))
                except (KeyError, ValueError) as error:
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
        if (response.content_length or 0) > self._max_bytes:
            raise self._too_large(param)
        data = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large(param)
        if image_type(bytes(data[:32])) is None:
            raise _refused("is no image in a format that is known; send png or jpeg", param)
        return bytes(data)

    def _too_large(self, param: str) -> InvalidRequest:
        return _refused(f"is larger than {self._max_bytes} bytes; send a smaller one", param)


_UNREACHABLE = (
    "could not be fetched from a public http or https address on port 80 or 443; send it as a data URI"
)


def _refused(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"The image {what}.", param=param, code="invalid_image_url")
