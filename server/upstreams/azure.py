"""Kind ``azure``: OpenAI's chat completions behind the doors of Azure.

Bytes are relayed as from ``openai``. Of its own are the addresses (a deployment in the path, or
the v1 route), the header with the key, tokens of Entra, and the errors of its gateway. What its content
filter says stays in the chunks; the first one, which has no choices, goes to clients alone that ask for such.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from urllib.parse import quote

from yarl import URL

from server.chat import ChatRequest
from server.errors import ServerError, UpstreamAuth, UpstreamError
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.entra import TokenSource
from server.upstreams.http import HttpClient, Target
from server.upstreams.http_upstream import channel_target
from server.upstreams.openai import OpenAIUpstream

log = logging.getLogger("antiphon.upstream")


class AzureUpstream(OpenAIUpstream):
    """One channel of kind ``azure``; else as ``OpenAIUpstream``."""

    def __init__(self, channel: Channel, client: HttpClient) -> None:
        settings = channel.azure
        self._tokens: TokenSource | None = None
        if settings.token_file or settings.token_command:
            self._tokens = TokenSource(settings.token_file, settings.token_command, settings.token_every_s)
        self._loop = asyncio.get_running_loop()
        self._key = channel.api_key or ""
        self._doors: dict[tuple[str, int], Target] = {}  # by deployment, and how deep a call is
        super().__init__(channel, client)

    def target(self, chat: ChatRequest, call: Call) -> Target | Awaitable[Target]:
        """The door of the model's deployment; a token of Entra may have to be had first."""
        deployment = self._their_name(chat)
        if self._tokens is not None and self._tokens.kept(self._loop.time()) is None:
            return self._with_new_token(self._tokens, deployment, call.depth)
        return self._door(deployment, call.depth)

    def explained(self, error: ServerError) -> ServerError:
        """A deployment that is not there is the operator's trouble, and so is a token that has run out."""
        if error.upstream_code == "DeploymentNotFound":
            log.warning("channel %s: the service knows no such deployment", self.name)
            told = UpstreamError("The upstream knows no such deployment; the operator must mend the channel.")
            told.upstream_status, told.upstream_code = error.upstream_status, error.upstream_code
            return told
        if self._tokens is not None and isinstance(error, UpstreamAuth):
            self._tokens.forget()
        return super().explained(error)

    async def _with_new_token(self, tokens: TokenSource, deployment: str, depth: int) -> Target:
        token = await tokens.get()
        if token != self._key:
            self._key = token
            self._secrets = (token, *self._secrets)[:4]  # the last ones too: they may still be spoken of
            self._doors.clear()
        return self._door(deployment, depth)

    def _door(self, deployment: str, depth: int) -> Target:
        door = self._doors.get((deployment, depth))
        if door is None:
            door = self._doors[deployment, depth] = azure_target(self._channel, deployment, self._key, depth)
        return door


def azure_target(channel: Channel, deployment: str, key: str, depth: int = 0) -> Target:
    """Where chats with a deployment go; see ``openai.fixed_target`` for ``depth``."""
    settings = channel.azure
    base = (channel.base_url or "").rstrip("/") + "/openai"
    if settings.api_version is None:
        url = URL(f"{base}/v1/chat/completions", encoded=True)
    else:
        path = f"{base}/deployments/{quote(deployment, safe='')}/chat/completions"
        url = URL(f"{path}?api-version={settings.api_version}", encoded=True)
    headers: dict[str, str] = {}
    if key:
        headers = {"Authorization": f"Bearer {key}"} if settings.auth == "bearer" else {"api-key": key}
    if depth:
        headers["X-Antiphon-Depth"] = str(depth)
    return channel_target(channel, url, headers)
