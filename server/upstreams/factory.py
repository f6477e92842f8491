"""Settings of a channel → its upstream."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypeAlias, assert_never

import msgspec

from server.settings import Channel, Images
from server.upstreams.anthropic import AnthropicUpstream
from server.upstreams.azure import AzureUpstream
from server.upstreams.gemini import GeminiUpstream
from server.upstreams.http import HttpClient
from server.upstreams.http_aiohttp import AiohttpClient
from server.upstreams.http_fast import FastClient
from server.upstreams.http_upstream import HttpUpstream
from server.upstreams.image_source import ImageSource
from server.upstreams.listing import ModelLister
from server.upstreams.local import LocalUpstream
from server.upstreams.local_process import LocalProcess
from server.upstreams.ollama import OllamaUpstream
from server.upstreams.openai import OpenAIUpstream
from server.upstreams.spark import SparkUpstream
from server.upstreams.spark_http import SparkHttpUpstream
from server.upstreams.surfaces import SurfaceUpstream

ChannelUpstream: TypeAlias = (
    OpenAIUpstream | AnthropicUpstream | GeminiUpstream | OllamaUpstream | SparkUpstream | LocalUpstream
)


class Clients:
    """The HTTP clients of the process; each keeps its connections for all channels that use it.

    ``images`` is where upstreams that take only bytes get a chat's images from, ``lister`` reads what models
    upstreams say they have, ``uploader`` sends what is too large for memory. ``skipped`` counts by channel
    what was passed over in answers, since nobody here knows it.
    """

    def __init__(self, images: Images, skipped: Counter[str] | None = None) -> None:
        self.skipped: Counter[str] = Counter() if skipped is None else skipped
        self._fast = FastClient()
        self._aiohttp = self.uploader = AiohttpClient()
        self.images = ImageSource(images)
        self.lister = ModelLister()

    def of(self, channel: Channel) -> HttpClient:
        """The one that a channel uses."""
        return self._aiohttp if channel.proxy or channel.http == "aiohttp" else self._fast

    async def close(self) -> None:
        """Close every connection."""
        await self._fast.aclose()
        await self._aiohttp.aclose()
        await self.images.aclose()
        await self.lister.aclose()


def client_session(
    images: Images = Images(),  # noqa: B008 - frozen
    skipped: Counter[str] | None = None,
) -> Clients:
    """The clients of the process; closed by who calls this, after the last request."""
    return Clients(images, skipped)


def build_upstreams(channel: Channel, session: Clients) -> list[ChannelUpstream]:
    """The upstreams of a channel, one for each of its keys; see ``build_upstream``."""
    if not channel.api_keys:
        return [build_upstream(channel, session)]
    return [
        build_upstream(msgspec.structs.replace(channel, api_key=key, api_keys=()), session)
        for key in channel.api_keys
    ]


def build_upstream(channel: Channel, session: Clients) -> ChannelUpstream:
    """The upstream of a channel; whoever builds it awaits its ``aclose``, after the last call."""
    made = _made(channel, session)
    if isinstance(made, HttpUpstream):
        made.skipped = session.skipped
    return made


def _made(channel: Channel, session: Clients) -> ChannelUpstream:
    client = session.of(channel)
    match channel.kind:
        case "openai" if channel.preset == "spark-http":
            return SparkHttpUpstream(channel, client)
        case "openai":
            surfaces = SurfaceUpstream(channel, client, session.uploader)
            return OpenAIUpstream(channel, client, surfaces=surfaces)
        case "azure":
            return AzureUpstream(channel, client, session.uploader)
        case "anthropic":
            return AnthropicUpstream(channel, client)
        case "gemini":
            return GeminiUpstream(channel, client, session.images, session.uploader)
        case "ollama":
            return OllamaUpstream(channel, client, session.images, session.uploader)
        case "spark":
            return SparkUpstream(channel, session.images)
        case "local":
            process = LocalProcess(
                path=Path(channel.path) if channel.path else None,
                threads=channel.threads,
                slots=channel.slots,
                context=channel.context,
            )
            return LocalUpstream(channel, client, process)
        case _ as never:
            assert_never(never)
