"""HTTP/1.1 over aiohttp's client: through proxies, and wherever our own client is not wanted."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.http_exceptions import ContentEncodingError

from server.errors import UpstreamTimeout
from server.surfaces import Upload
from server.upstreams.clocks import Patrol
from server.upstreams.http import (
    KEEP_S,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    Again,
    Target,
    Watch,
    cut,
    nobody_counts,
    nobody_watches,
    not_http,
    refused_by_proxy,
    unanswered,
    unreachable,
    unreadable,
    watched,
)

LARGE_BYTES = 1024 * 1024
_ENCODINGS = ("", "identity", "gzip", "deflate")  # what aiohttp inflates without further packages


class AiohttpAnswer:
    """See ``http.HttpAnswer``."""

    __slots__ = ("_failed", "_readable", "_response", "headers", "status")

    status: int
    headers: Mapping[str, str]

    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self._failed: Exception | None = None
        self.status = response.status
        self.headers = {}
        for name, value in response.headers.items():
            lower = name.lower()
            self.headers[lower] = f"{self.headers[lower]}, {value}" if lower in self.headers else value
        self._readable = self.headers.get("content-encoding", "").lower() in _ENCODINGS

    @property
    def at_end(self) -> bool:
        """See ``http.HttpAnswer``."""
        return self._failed is None and self._response.content.at_eof()

    async def read(self) -> bytes:
        """See ``http.HttpAnswer``."""
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            broken = isinstance(error.__cause__, ContentEncodingError)
            raise (unreadable() if broken else cut()) from error
        if data and not self._readable:
            raise unreadable()
        return data

    def fail(self, error: Exception) -> None:
        """See ``http.HttpAnswer``."""
        self._failed = error
        self._response.content.set_exception(error)

    def close(self) -> None:
        """See ``http.HttpAnswer``."""
        if self._response.closed:
            return
        if self.at_end:
            self._response.release()
        else:
            self._response.close()


class AiohttpClient:
    """See ``http.HttpClient``. Needs a running event loop.

    No limit on connections (channels have their own, and a second one would be a hidden queue), no cookies,
    no proxies from the environment. A kept connection that turns out to be closed is the router's to retry.
    """

    def __init__(self) -> None:
        self.patrol = Patrol(asyncio.get_running_loop())
        self._session = ClientSession(
            connector=TCPConnector(limit=0, keepalive_timeout=KEEP_S),
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def post(
        self,
        target: Target,
        body: bytes,
        *,
        connect_s: float,
        watch: Watch = nobody_watches,
        again: Again = nobody_counts,
    ) -> AiohttpAnswer:
        """See ``http.HttpClient``. It sends nothing twice: aiohttp does so with idempotent methods alone."""
        return await watched(self._request(target, body, connect_s), watch, discard=AiohttpAnswer.close)

    async def upload(
        self, target: Target, body: Upload, *, connect_s: float, watch: Watch = nobody_watches
    ) -> AiohttpAnswer:
        """See ``http.Uploader``."""
        return await watched(self._request(target, body, connect_s), watch, discard=AiohttpAnswer.close)

    async def _request(self, target: Target, body: bytes | Upload, connect_s: float) -> AiohttpAnswer:
        headers = target.headers
        data: bytes | io.BytesIO | AsyncIterator[bytes]
        if isinstance(body, bytes):
            # aiohttp warns of large bytes, since it would send them at once; a file it sends in pieces.
            data = body if len(body) <= LARGE_BYTES else io.BytesIO(body)
        else:
            data = body.pieces()
            headers = {**headers, "Content-Length": str(body.size)}
        try:
            response = await self._session.request(
                "POST",
                target.url,
                data=data,
                headers=headers,
                allow_redirects=False,
                ssl=target.tls or True,
                proxy=target.proxy,
                timeout=_timeout(connect_s),
            )
        except aiohttp.ServerTimeoutError as error:
            raise UpstreamTimeout("connect", connect_s) from error
        except aiohttp.ServerDisconnectedError as error:
            raise unanswered() from error
        except aiohttp.ClientHttpProxyError as error:
            raise refused_by_proxy(error.status) from error
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise not_http() from error
        except (
            aiohttp.ClientError,
            OSError,
            UnicodeError,
        ) as error:  # UnicodeError: a name that cannot be one
            raise unreachable() from error
        return AiohttpAnswer(response)

    async def aclose(self) -> None:
        """See ``http.HttpClient``."""
        self.patrol.stop()
        await self._session.close()


@functools.lru_cache(maxsize=64)
def _timeout(connect_s: float) -> ClientTimeout:
    """Only the connect clock is the client's; a healthy long stream is never cut by one of its defaults."""
    return ClientTimeout(
        total=None, connect=connect_s or None, sock_connect=connect_s or None, sock_read=None
    )
