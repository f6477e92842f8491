"""A public model's surfaces beside chats: the same channels, attempts and failover, bytes for deltas."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic

from server.chat import ChatRequest
from server.errors import ServerError, SurfaceNotOffered
from server.routed_model import Failed, RoutedModel
from server.routing.channel import ChannelState, Lane
from server.routing.limits import Ticket
from server.settings import ChannelModel, Routing
from server.surface_settings import SurfaceName
from server.surfaces import AnswerHead, SurfaceRequest, offers
from server.token_estimates import tokens_of_bytes
from server.upstreams.base import Call, surfaces_of


class RoutedSurface(RoutedModel):
    """One model, over those of its channels that offer a certain surface.

    Where the model takes chats too, its channels' standing is one of its own: an upstream that fails at
    something which it was never made for is none the worse for chats.
    """

    def __init__(
        self,
        model: str,
        surface: SurfaceName,
        channels: Sequence[tuple[ChannelState, ChannelModel]],
        rng: random.Random,
        routing: Routing = Routing(),  # noqa: B008 - frozen
    ) -> None:
        self.model = model
        beside_chats = any(offers(state.settings, served, "chat") for state, served in channels)
        super().__init__(f"{model} ({surface})" if beside_chats else model, channels, rng, routing)

    async def ask(self, request: SurfaceRequest, call: Call) -> AsyncGenerator[AnswerHead | bytes, None]:
        """Yield the head and the bytes of the first channel that answers; see ``SurfaceCaller``.

        Another channel is tried before the head only.
        """
        failed: list[Failed] = []
        own_time = call.deadline is None
        spoken = False
        candidate, began = await self._first(call)
        while True:
            state, health = candidate.state, candidate.health
            probe = health.begin(began) if health.breaker.until else False
            lane = state.only  # which key it is to be is only known when the call begins
            self._prepare(state, failed, call, began)
            try:
                ticket = await state.take_counted(
                    call, _tokens(request), None if probe else health, self._elsewhere
                )
                try:
                    lane = self._begin(state, failed, call)
                    async with aclosing(self._answer(lane, request, call, ticket)) as parts:
                        async for part in parts:
                            if not spoken and (probe or self._timed):
                                self._spoke(candidate, monotonic() - began, call, probe=probe)
                                probe = False
                            spoken = True
                            yield part
                finally:
                    state.give(ticket)
                state.count(state.name, "ok")
                health.breaker.succeeded(monotonic())
                return
            except ServerError as error:
                self._note(candidate, lane, error, call, probe=probe, own_time=own_time)
                probe = False
                if spoken:
                    raise
                failed.append(Failed(candidate, lane, error))
                candidate = await self._next(failed, call)
                began = monotonic()
            finally:
                if probe:
                    health.abandoned(monotonic())

    async def _answer(
        self, lane: Lane, request: SurfaceRequest, call: Call, ticket: Ticket | None
    ) -> AsyncGenerator[AnswerHead | bytes, None]:
        surfaces = surfaces_of(lane.upstream)
        assert surfaces is not None  # the router asks only for what a channel can offer
        async with aclosing(surfaces.ask(request, self.model, call)) as parts:
            async for part in parts:
                if ticket is not None and isinstance(part, AnswerHead) and part.usage is not None:
                    ticket.used = part.usage.total_tokens
                yield part


def _tokens(request: SurfaceRequest) -> int:
    return 0 if request.surface.form else tokens_of_bytes(request.size)


class SurfacesOnly(RoutedModel):
    """A model none of whose channels takes chats."""

    def _fitting(self, chat: ChatRequest) -> ChatRequest:
        raise not_offered(self.name, "chat", [state.name for state, _ in self.channels])


def not_offered(model: str, surface: str, channels: list[str]) -> SurfaceNotOffered:
    """What a client is told that asks a model for what no channel of it takes."""
    names = ", ".join(dict.fromkeys(channels))
    what = "chats" if surface == "chat" else surface
    error = SurfaceNotOffered(
        f"{model} does not offer {what}; ask another model, or have the operator add {surface} to surfaces "
        f"of its channel ({names}).",
        param="model",
    )
    error.retryable = False
    return error


def combination_asked(name: str, surface: str) -> SurfaceNotOffered:
    """What a client is told that asks a combination for anything but a chat."""
    error = SurfaceNotOffered(
        f"{name} is a combination, which answers chats only; ask a model for {surface}.", param="model"
    )
    error.retryable = False
    return error
