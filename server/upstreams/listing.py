"""Which models an upstream says it has: its own list, read over a connection of its own.

Shapes: OpenAI's ``GET {base}/models`` is ``{"data": [{"id"}]}``; Anthropic's ``GET /v1/models`` is the same,
in pages by ``after_id`` while ``has_more``; Gemini's ``GET /v1beta/models`` is ``{"models": [{"name",
"supportedGenerationMethods"}]}``, in pages by ``pageToken`` while there is a ``nextPageToken``. Kinds that
have no such list give None.
"""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import msgspec
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, TraceConfig
from yarl import URL

from server.errors import ServerError, UpstreamInvalid, UpstreamTimeout
from server.gemini_wire import gemini_error
from server.ollama_wire import ollama_error
from server.openai_wire import clean_error, upstream_error
from server.presets import preset_of
from server.settings import Channel, Timeouts
from server.upstreams.anthropic import messages_target
from server.upstreams.exchange import MAX_ERROR_BYTES, secrets_of
from server.upstreams.gemini import models_target
from server.upstreams.http import unreachable
from server.upstreams.ollama import ollama_target
from server.upstreams.openai import fixed_target

LISTING_S = 15.0
# A secret as short as this may stand in a model's name by chance: such names are kept. (characters)
LONGEST_WORD = 7
MAX_LIST_BYTES = 8 * 1024 * 1024
MAX_PAGES = 20
MAX_NAME = 200
"""Left out are longer names, those that are no printable line, and those with a secret of the channel."""


class Listing(msgspec.Struct, frozen=True):
    """What an upstream lists: ``models`` by its own names, in its order, none twice.

    ``connect_s``: how long name, connection and TLS took together.
    """

    models: tuple[str, ...]
    connect_s: float


class _Card(msgspec.Struct, frozen=True):
    id: str


class _Page(msgspec.Struct, frozen=True):
    data: list[_Card]
    has_more: bool = False
    last_id: str | None = None

    def names(self) -> list[str]:
        return [card.id for card in self.data]

    def next(self) -> dict[str, str] | None:
        """What the query has for the next page; None: this is the last."""
        return {"after_id": self.last_id} if self.has_more and self.last_id is not None else None


class _GeminiCard(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    supported_generation_methods: list[str] = []


class _GeminiPage(msgspec.Struct, frozen=True, rename="camel"):
    models: list[_GeminiCard] = []
    next_page_token: str | None = None

    def names(self) -> list[str]:
        """Of those that can chat."""
        chatting = [
            card.name for card in self.models if "generateContent" in card.supported_generation_methods
        ]
        return [name.removeprefix("models/") for name in chatting]

    def next(self) -> dict[str, str] | None:
        """What the query has for the next page; None: this is the last."""
        return {"pageToken": self.next_page_token} if self.next_page_token else None


class _OllamaCard(msgspec.Struct, frozen=True):
    name: str


class _OllamaPage(msgspec.Struct, frozen=True):
    models: list[_OllamaCard]

    def names(self) -> list[str]:
        """All that are pulled."""
        return [card.name for card in self.models]

    def next(self) -> None:
        """There is one page."""


class ModelLister:
    """Reads model lists, each within ``patience_s`` seconds a page.

    Needs a running event loop; ``aclose`` ends its connections.
    """

    def __init__(self, patience_s: float = LISTING_S) -> None:
        self._patience_s = patience_s
        trace = TraceConfig()
        trace.on_connection_create_start.append(_connecting)
        trace.on_connection_create_end.append(_connected)
        self._session = ClientSession(
            connector=TCPConnector(force_close=True),  # each listing also tells how long connecting takes
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            trace_configs=[trace],
        )

    async def list(self, channel: Channel) -> Listing | None:
        """What ``channel`` (with its first key) lists; None if its kind has no list.

        Raises a ``ServerError`` cleaned of secrets.
        """
        if channel.api_keys:
            channel = msgspec.structs.replace(channel, api_key=channel.api_keys[0], api_keys=())
        match channel.kind:
            case "openai" if preset_of(channel).lists:
                target = fixed_target(channel)
                path = target.url.path.removesuffix("/chat/completions")
                url = target.url.with_path(path.rstrip("/") + "/models")
            case "anthropic":
                target = messages_target(channel)
                url = target.url.with_path(target.url.path.removesuffix("/messages") + "/models")
                url = url.with_query(limit=1000)
            case "gemini":
                target = models_target(channel)
                url = target.url.with_query(pageSize=1000)
            case "ollama":
                target = ollama_target(channel, "/api/tags")
                url = target.url
            case _:
                return None
        headers = {name: value for name, value in target.headers.items() if name != "Content-Type"}
        try:
            return await self._read(channel, url, headers | {"Accept": "application/json"}, target.tls)
        except ServerError as error:
            clean_error(error, secrets=secrets_of(channel), names={})
            raise

    async def aclose(self) -> None:
        """End its connections."""
        await self._session.close()

    async def _read(self, channel: Channel, url: URL, headers: dict[str, str], tls: Any) -> Listing:
        connect_s = channel.timeouts.over(Timeouts()).connect_s
        timing: dict[str, float] = {}
        names: dict[str, None] = {}
        prefix, secrets = preset_of(channel).list_prefix, secrets_of(channel)
        try:
            for _ in range(MAX_PAGES):
                async with self._session.get(
                    url,
                    headers=headers,
                    ssl=tls or True,
                    proxy=channel.proxy,
                    allow_redirects=False,
                    timeout=ClientTimeout(total=self._patience_s, sock_connect=connect_s or None),
                    trace_request_ctx=timing,
                ) as answer:
                    page = _page(channel, answer.status, await _bounded(answer))
                listed = (name for name in page.names() if _is_name(name, secrets))
                names |= dict.fromkeys(name.removeprefix(prefix) for name in listed)
                if (query := page.next()) is None:
                    break
                url = url.update_query(query)
        except (aiohttp.ConnectionTimeoutError, aiohttp.SocketTimeoutError) as error:
            raise UpstreamTimeout("connect", connect_s) from error
        except TimeoutError as error:
            raise UpstreamTimeout("total", self._patience_s) from error
        except aiohttp.ClientPayloadError as error:
            raise UpstreamInvalid("The upstream's list of models was cut off.") from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise unreachable() from error
        return Listing(tuple(names), timing.get("connect_s", 0.0))


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    limit = MAX_LIST_BYTES if answer.status == 200 else MAX_ERROR_BYTES
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            if answer.status != 200:
                break
            raise UpstreamInvalid("The upstream's list of models is far too long.")
    return b"".join(pieces)


_PAGES = {"gemini": _GeminiPage, "ollama": _OllamaPage}
_REFUSALS = {"gemini": gemini_error, "ollama": ollama_error}


def _page(channel: Channel, status: int, body: bytes) -> _Page | _GeminiPage | _OllamaPage:
    if 300 <= status < 400:
        raise UpstreamInvalid("The upstream redirects; put its real address into base_url.")
    if status != 200:
        raise _REFUSALS.get(channel.kind, upstream_error)(status, body)
    try:
        page: _Page | _GeminiPage | _OllamaPage = msgspec.json.decode(
            body, type=_PAGES.get(channel.kind, _Page)
        )
        return page
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UpstreamInvalid("The upstream's list of models cannot be read.") from error


def _is_name(name: str, secrets: tuple[str, ...]) -> bool:
    sound = 0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()
    return sound and not any(secret in name for secret in secrets if len(secret) > LONGEST_WORD)


async def _connecting(session: ClientSession, context: Any, params: Any) -> None:
    context.began = time.monotonic()


async def _connected(session: ClientSession, context: Any, params: Any) -> None:
    timing: dict[str, float] = context.trace_request_ctx
    timing.setdefault("connect_s", time.monotonic() - context.began)
