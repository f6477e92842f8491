"""Kind ``azure``: OpenAI's dialect behind the doors of Azure.

Bytes are relayed as from ``openai``. Of its own are the addresses (a deployment in the path, or
the v1 route), the header with the key, tokens of Entra, and the errors of its gateway. What its content
filter says stays in the chunks; the first one, which has no choices, goes to clients alone that ask for such.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from server.chat import ChatRequest
from server.errors import ServerError
from server.refusals import refused
from server.settings import Channel
from server.surfaces import SurfaceRequest
from server.upstreams.azure_doors import AzureDoors
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target, Uploader
from server.upstreams.http_upstream import channel_target
from server.upstreams.openai import CHAT_PATH, OpenAIUpstream
from server.upstreams.surfaces import SurfaceUpstream

log = logging.getLogger("antiphon.upstream")


class AzureUpstream(OpenAIUpstream):
    """One channel of kind ``azure``; else as ``OpenAIUpstream``. ``uploader`` takes what memory cannot."""

    def __init__(self, channel: Channel, client: HttpClient, uploader: Uploader) -> None:
        self._doors = AzureDoors(channel)
        self._targets_token = 0  # the number of the token in them
        super().__init__(channel, client, surfaces=_AzureSurfaces(channel, client, uploader, self._doors))
        self._by_deployment: dict[tuple[str, int], Target] = {}  # and by how deep a call is

    def target(self, chat: ChatRequest, call: Call) -> Target | Awaitable[Target]:
        """The door of the model's deployment; a token of Entra may have to be had first."""
        deployment = self._their_name(chat)
        if self._doors.locked:
            return self._unlocked(deployment, call.depth)
        return self._door(deployment, call.depth)

    def explained(self, error: ServerError) -> ServerError:
        """A deployment that is not there is the operator's trouble, and so is a token that has run out."""
        self._secrets = self._doors.secrets
        return super().explained(_explained(error, self._channel, self._doors))

    async def _unlocked(self, deployment: str, depth: int) -> Target:
        await self._doors.unlock()
        return self._door(deployment, depth)

    def _door(self, deployment: str, depth: int) -> Target:
        if self._targets_token != self._doors.token_number:
            self._by_deployment.clear()
            self._targets_token = self._doors.token_number
        door = self._by_deployment.get((deployment, depth))
        if door is None:
            headers = dict(self._doors.headers())
            if depth:
                headers["X-Antiphon-Depth"] = str(depth)
            door = channel_target(self._channel, self._doors.url(deployment, CHAT_PATH), headers)
            self._by_deployment[deployment, depth] = door
        return door


class _AzureSurfaces(SurfaceUpstream):
    """What is no chat, by the same doors. In the classic one the body's model counts for nothing."""

    def __init__(self, channel: Channel, client: HttpClient, uploader: Uploader, doors: AzureDoors) -> None:
        super().__init__(channel, client, uploader)
        self._doors = doors
        self._targets_token = 0  # the number of the token in them

    def target(self, request: SurfaceRequest, theirs: str) -> Target | Awaitable[Target]:
        """See ``SurfaceUpstream``."""
        if self._doors.locked:
            return self._unlocked(request, theirs)
        return self._door(request, theirs)

    def explained(self, error: ServerError) -> ServerError:
        """See ``AzureUpstream``."""
        return super().explained(_explained(error, self._channel, self._doors))

    def secrets(self) -> tuple[str, ...]:
        """See ``SurfaceUpstream``."""
        return self._doors.secrets

    async def _unlocked(self, request: SurfaceRequest, theirs: str) -> Target:
        await self._doors.unlock()
        return self._door(request, theirs)

    def _door(self, request: SurfaceRequest, theirs: str) -> Target:
        if self._targets_token != self._doors.token_number:
            self._targets.clear()
            self._targets_token = self._doors.token_number
        url = self._doors.url(theirs, request.path)
        known = self._targets.get(place := str(url))
        if known is None:
            known = self.made(request, url, self._doors.headers())
            if not request.surface.form:
                self._targets[place] = known
        return known


def _explained(error: ServerError, channel: Channel, doors: AzureDoors) -> ServerError:
    """The same error, or what it means in the mouth of this service."""
    if error.upstream_code == "DeploymentNotFound":
        log.warning("channel %s: the service knows no such deployment", channel.name)
        words = "The upstream knows no such deployment; the operator must mend the channel."
        told = refused(404, words, "model_not_found")
        told.retryable = True  # on another channel
        told.upstream_status, told.upstream_code = error.upstream_status, error.upstream_code
        return told
    doors.heed(error)
    return error
