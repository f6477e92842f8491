"""The doors of an Azure resource: the address of each deployment's endpoints, and what opens them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

from yarl import URL

from server.errors import ServerError, UpstreamAuth
from server.settings import Channel
from server.upstreams.entra import TokenSource
from server.upstreams.exchange import secrets_of


class AzureDoors:
    """One channel's: a key of its own, or a token of Entra that is had anew now and then.

    ``secrets`` are the key and the last tokens, which may stand in no error. ``token_number`` goes
    up with each new token, so that what was made with an older one is known.
    """

    def __init__(self, channel: Channel) -> None:
        settings = channel.azure
        self._settings = settings
        self._base = (channel.base_url or "").rstrip("/") + "/openai"
        self._tokens: TokenSource | None = None
        if settings.token_file or settings.token_command:
            self._tokens = TokenSource(settings.token_file, settings.token_command, settings.token_every_s)
        self._loop = asyncio.get_running_loop()
        self._key = channel.api_key or ""
        self.secrets = secrets_of(channel)
        self.token_number = 0

    @property
    def locked(self) -> bool:
        """Must a token be had (``unlock``) before a request can go out?"""
        return self._tokens is not None and self._tokens.kept(self._loop.time()) is None

    async def unlock(self) -> None:
        """Have a token. Raises UpstreamAuth, which tells the operator what to mend."""
        if self._tokens is None:
            return
        token = await self._tokens.get()
        if token != self._key:
            self._key = token
            self.secrets = (token, *self.secrets)[:4]  # the last ones too: they may still be spoken of
            self.token_number += 1

    def heed(self, error: ServerError) -> None:
        """A token that is refused is not used again."""
        if self._tokens is not None and isinstance(error, UpstreamAuth):
            self._tokens.forget()

    def url(self, deployment: str, path: str) -> URL:
        """Where the endpoint ``path`` (such as ``/chat/completions``) of a deployment is."""
        if self._settings.api_version is None:
            return URL(f"{self._base}/v1{path}", encoded=True)
        place = f"{self._base}/deployments/{quote(deployment, safe='')}{path}"
        return URL(f"{place}?api-version={self._settings.api_version}", encoded=True)

    def headers(self) -> Mapping[str, str]:
        """The header that carries the key or the token, if there is one."""
        if not self._key:
            return {}
        if self._settings.auth == "bearer":
            return {"Authorization": f"Bearer {self._key}"}
        return {"api-key": self._key}
