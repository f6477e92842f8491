"""A real, tiny call of each of a channel's keys: does it answer, and how soon?

Asked for by an operator, or by a timer. It goes past choice, failover and retry, to one channel that may be
disabled or left alone; its outcome counts for the channel's standing as any other call's does, and a key
that answers is in good standing again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from fnmatch import fnmatchcase
from time import monotonic
from typing import TypeAlias

import msgspec

from server.chat import ChatRequest, JsonObject
from server.deltas import ReasoningDelta, TextDelta, ToolCallDelta
from server.errors import NoChannel, ServerError, UpstreamEmpty, UpstreamTimeout
from server.routing.channel import ChannelState, Lane
from server.settings import AUTO, Channel, Timeouts, TimeoutsPatch
from server.upstreams.base import Call
from server.upstreams.listing import Listing

PROMPT = "Answer with one word: yes"
# A trial is over by then, whatever time the channel's own calls have. (seconds)
TRIAL_S = 60.0
# So much of the answer is kept to be shown. (characters)
MAX_TEXT = 200
_SAID = frozenset({TextDelta, ReasoningDelta, ToolCallDelta})


class Trial(msgspec.Struct, frozen=True):
    """What became of one call. ``key`` names the key without a letter of it; times are in seconds.

    ``code`` and ``message`` say why it failed, None if it did not.
    """

    key: str
    ok: bool
    total_s: float
    first_token_s: float | None = None
    text: str = ""
    code: str | None = None
    message: str | None = None


class ChannelTrial(msgspec.Struct, frozen=True):
    """What became of a channel's trial: of each key in ``calls``, of the list of models it has.

    ``models`` are the names that the upstream lists, None if it has no list or did not give it; then
    ``models_error`` says why. ``missing`` are those of the channel's models that it does not list.
    ``connect_s`` is how long name, connection and TLS took for the list.
    """

    channel: str
    kind: str
    model: str
    ok: bool
    calls: tuple[Trial, ...]
    connect_s: float | None = None
    models: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    models_error: str | None = None


ListModels: TypeAlias = Callable[[Channel], Awaitable[Listing | None]]


async def try_channel(state: ChannelState, model: str | None, list_models: ListModels) -> ChannelTrial:
    """Ask for the channel's list of models, and ``model`` (its public name) with each of its keys.

    Without ``model`` it is the first one that the list has and the channel lets in; if there is none, that is
    the failure. Otherwise a list that does not come is told, and is no failure: many have none. The channel
    is well if one key is.
    """
    listing, models_error = None, None
    try:
        listing = await list_models(state.settings)
    except ServerError as error:
        if model is None:
            return _unlisted(state, error)
        models_error = error.message
    if model is None:
        model = next(iter(allowed(state.settings, listing.models if listing else ())), None)
        if model is None:
            return _unlisted(state, NoChannel("Its upstream lists no model that list_only lets in."))
    calls = await try_keys(state, model)
    return ChannelTrial(
        state.name,
        state.settings.kind,
        model,
        ok=any(call.ok for call in calls),
        calls=tuple(calls),
        connect_s=listing.connect_s if listing else None,
        models=listing.models if listing else None,
        missing=_missing(state, listing.models) if listing else (),
        models_error=models_error,
    )


async def try_keys(state: ChannelState, model: str) -> list[Trial]:
    """Ask ``model`` (its public name) of ``state`` with each key in turn, in their order. Raises nothing of
    the upstream's: what failed is told in the trials.
    """
    return [await _try(state, lane, model) for lane in state.lanes]


def allowed(channel: Channel, models: Iterable[str]) -> tuple[str, ...]:
    """Which of the listed models the channel's patterns let in, in their order."""
    only = channel.list_only
    return tuple(name for name in models if not only or any(fnmatchcase(name, one) for one in only))


async def _try(state: ChannelState, lane: Lane, model: str) -> Trial:
    health, key = state.health.of(model), lane.health
    began = monotonic()
    first: float | None = None
    text = ""
    try:
        if (reason := lane.upstream.unavailable) is not None:
            raise NoChannel(reason)
        call = Call(timeouts=_short)
        chat = _question(model)
        ticket = await state.take(call, chat)
        try:
            async with aclosing(state.ask(lane, chat, call, ticket)) as batches:
                async for batch in batches:
                    if first is None and any(type(delta) in _SAID for delta in batch):
                        first = monotonic() - began
                    text += "".join(delta.text for delta in batch if type(delta) is TextDelta)
                    text = text[:MAX_TEXT]
        finally:
            state.give(ticket)
        if first is None:
            raise UpstreamEmpty("The upstream's answer is empty.")
    except ServerError as error:
        now = monotonic()
        state.count(state.name, error.code)
        if not (isinstance(error, UpstreamTimeout) and error.clock == "total"):  # others have more time
            health.failed(error, key, now, probe=False, cooldown_s=state.settings.cooldown_s)
        return Trial(
            key.label,
            ok=False,
            total_s=now - began,
            first_token_s=first,
            text=text,
            code=error.code,
            message=error.message,
        )
    state.count(state.name, "ok")
    now = monotonic()
    health.recovered(key, now)
    return Trial(key.label, ok=True, total_s=now - began, first_token_s=first, text=text)


def _unlisted(state: ChannelState, error: ServerError) -> ChannelTrial:
    """There is no model to ask."""
    call = Trial(state.name, ok=False, total_s=0, code=error.code, message=error.message)
    return ChannelTrial(
        state.name, state.settings.kind, AUTO, ok=False, calls=(call,), models_error=error.message
    )


def _missing(state: ChannelState, listed: tuple[str, ...]) -> tuple[str, ...]:
    theirs = {name: model.model or name for name, model in state.settings.served().items()}
    return tuple(name for name, there in theirs.items() if there not in listed)


def _question(model: str) -> ChatRequest:
    # No bound on the answer: reasoning alone might fill it, and vendors name the bound in two ways.
    message = {"role": "user", "content": PROMPT}
    body = {"model": model, "messages": [message], "stream": True}
    return ChatRequest(JsonObject(msgspec.json.encode(body)))


def _short(said: TimeoutsPatch) -> Timeouts:
    timeouts = said.over(Timeouts())
    total_s = min(timeouts.total_s or TRIAL_S, TRIAL_S)
    return msgspec.structs.replace(timeouts, total_s=total_s)
