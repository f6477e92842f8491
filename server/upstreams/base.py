"""What an upstream promises to whoever calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol, TypeAlias

import msgspec

from server.answer_cache import Caching
from server.chat import ChatRequest
from server.deltas import Batch, Deltas, Usage
from server.errors import ModelNotFound, ServerError
from server.presets import timeouts_of
from server.prices import Prices
from server.settings import Channel, Timeouts, TimeoutsPatch
from server.spark_ws import Credentials
from server.surfaces import AnswerHead, SurfaceRequest
from server.upstreams.image_sharing import RunImages
from server.upstreams.image_source import Inlined


class Observer(Protocol):
    """Whoever wants to hear of a call's steps, besides its deltas. Calls are synchronous and never raise."""

    def queued(self, channel: str) -> None:
        """The call waits for a slot of ``channel``; its clocks have not started."""

    def attempt(self, number: int, channel: str) -> None:
        """Attempt ``number`` (from 1) goes to ``channel``."""

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        """The attempt failed before its first delta; the next one begins after ``delay_s`` seconds."""

    def noted(
        self, channel: str, state: str, *, reason: str | None = None, for_s: float | None = None
    ) -> None:
        """Something was decided about ``channel``, for ``for_s`` seconds if that is known.

        ``state``: asked (in another's place), hedged (beside another that was silent for ``for_s``),
        passed_over (``reason``: breaker, cooling, refused, unavailable, time, budget, enough), kept (its
        answer is given again), shared (its answer to an equal request is given here too), or what an attempt
        of this call has made of it: open (its breaker), closed, cooling, refused.
        """

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        """The request did not go to ``channel`` as it was asked; what was adapted, in ASCII words."""


class CallInfo(msgspec.Struct, frozen=True):
    """One call that was made for an answer.

    ``state`` is finished, failed, cancelled or skipped, ``code`` says why it is not finished. ``usage``
    None: it cost nothing. ``cost`` None: nobody knows. ``warnings`` tell what was adapted in its request.
    ``cache`` is hit, miss or bypass where its answers are kept, "" elsewhere.
    """

    id: str
    model: str
    state: str
    usage: Usage | None = None
    code: str | None = None
    cost: float | None = None
    warnings: tuple[str, ...] = ()
    cache: str = ""


class StepInfo(msgspec.Struct, frozen=True):
    """One step of a model that thinks step by step."""

    title: str
    content: str
    seconds: float


class AnswerInfo(msgspec.Struct, frozen=True):
    """How an answer came about. ``answer_by`` is ``summary`` or a member's id.

    ``agreement`` is the winning value's share of a vote, ``steps`` what was thought before the answer,
    ``plain_body`` the whole body of a plain answer where it is to be another form than OpenAI's.
    """

    strategy: str
    level: str
    answer_by: str | None
    members: tuple[CallInfo, ...] = ()
    agreement: float | None = None
    steps: tuple[StepInfo, ...] = ()
    plain_body: bytes | None = None


class ParentRun(Protocol):
    """The run that a call belongs to, as far as an upstream may know it."""

    @property
    def id(self) -> str: ...

    @property
    def key(self) -> str:
        """The name of the access key that asked for it."""


class Siblings(Protocol):
    """The calls of one stage of a combination, which are to fail as independently as they can.

    ``places`` counts where its attempts have gone, by ``ChannelState.place``.
    """

    places: Counter[str]

    def enough(self) -> bool:
        """Are there answers enough, so that a call that failed need not be made again?"""


class Part(Protocol):
    """A call as its run tells of it: its id there, and its state, which is ``finished`` when it is whole."""

    id: str
    state: str


# The clocks of a call at a channel, from what the channel says of them itself.
TimeoutsAt: TypeAlias = Callable[[TimeoutsPatch], Timeouts]


class OwnTimeouts:
    """The clocks of one channel: ``said`` of them there, and with the defaults."""

    __slots__ = ("_all", "said")

    def __init__(self, channel: Channel) -> None:
        self.said = timeouts_of(channel)
        self._all = self.said.over(Timeouts())

    def of(self, call: Call) -> Timeouts:
        """The clocks of ``call`` at this channel."""
        return self._all if call.timeouts is None else call.timeouts(self.said)


class Call:
    """How one call is to be carried out: limits and who listens. One object for each call.

    ``timeouts`` gives the clocks at a channel, from what is said of them there; None means the channel's own.
    ``deadline`` (event loop time, seconds) is the end of the time that the caller has; no attempt begins that
    could not end before it. ``attempts`` is the number of tries in all, None the model's own. ``avoid`` names
    channels that are not asked. ``run`` is the run that it belongs to, ``depth`` how many combinations it is
    within. ``channel`` and ``attempts_made`` tell where the last attempt went, ``tried`` which attempts have
    failed: channel and code of each. ``answer`` is set when the answer is complete, by whoever knows how it
    came about. ``begun`` is called once, when an answer made from others has its first word of a draft: from
    then on a failure need be no status any more. ``warnings`` are a channel and what it had to adapt in the
    request, in ASCII words; None: nothing. ``inlined`` is the request with its images inside, once an attempt
    has made it: the next needs no fetch. ``images`` are those that the calls of one run have in common; None:
    it is alone. ``credentials`` are the caller's own, in place of the channel's; no further call is given
    them. ``siblings`` are the calls beside it, if it is one of a stage. ``parts`` are the calls that were
    begun for it, where a combination answers, each with what its run knows of it. ``caching`` says what may
    be done with answers that are kept; None: nothing. ``resent`` counts the attempts that were made within
    another, since the connection kept for it had been closed.
    """

    __slots__ = (
        "answer",
        "attempts",
        "attempts_made",
        "avoid",
        "begun",
        "caching",
        "channel",
        "credentials",
        "deadline",
        "depth",
        "images",
        "inlined",
        "observer",
        "parts",
        "resent",
        "run",
        "siblings",
        "timeouts",
        "tried",
        "warnings",
    )

    def __init__(
        self,
        *,
        timeouts: TimeoutsAt | None = None,
        deadline: float | None = None,
        attempts: int | None = None,
        observer: Observer | None = None,
        run: ParentRun | None = None,
        depth: int = 0,
        credentials: Credentials | None = None,
    ) -> None:
        self.timeouts = timeouts
        self.deadline = deadline
        self.attempts = attempts
        self.observer = observer
        self.run = run
        self.depth = depth
        self.credentials = credentials
        self.siblings: Siblings | None = None
        self.parts: Sequence[tuple[Part, Call]] = ()
        self.channel = ""
        self.attempts_made = 0
        self.resent = 0
        self.avoid: tuple[str, ...] = ()
        self.tried: tuple[tuple[str, str], ...] = ()
        self.answer: AnswerInfo | None = None
        self.begun: Callable[[], None] | None = None
        self.warnings: tuple[str, tuple[str, ...]] | None = None
        self.images: RunImages | None = None
        self.inlined: Inlined | None = None
        self.caching: Caching | None = None

    def sent_again(self, error: ServerError) -> None:
        """Note that an attempt came to nothing and the same channel is asked once more, at once."""
        self.tried += ((self.channel, error.code),)
        self.resent += 1
        self.attempts_made += 1
        if self.observer is not None:
            self.observer.retrying(error, delay_s=0, next_attempt=self.attempts_made, same_channel=True)
            self.observer.attempt(self.attempts_made, self.channel)

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        """Note what ``channel`` had to adapt in the request, and have it told."""
        self.warnings = (channel, warnings)
        if self.observer is not None:
            self.observer.adapted(channel, warnings)


class Upstream(Protocol):
    """One that answers a chat: a channel, a routed model, or a combination of many.

    ``stream`` yields batches of deltas, each all that one read brought, never empty. A stream that ends
    without raising is complete: every choice had its ``Finished``. It raises a ``ServerError`` when it fails,
    before the first delta or after. Closing it closes the connection beneath it within 50 ms.
    It honours ``chat.stream``: a plain request is one plain upstream request and comes as one batch.
    """

    name: str

    def stream(self, chat: ChatRequest, call: Call) -> Deltas: ...


def prices_of(upstream: Upstream) -> Prices | None:
    """What its answers cost; None where nobody has said, or where each says so itself."""
    prices: Prices | None = getattr(upstream, "prices", None)
    return prices


def prices_by_name(models: Callable[[str], Upstream], name: str) -> Prices | None:
    """The prices of who answers under ``name``; None, too, if there is no such model (its call will tell)."""
    try:
        return prices_of(models(name))
    except ModelNotFound:
        return None


class SurfaceCaller(Protocol):
    """What a channel offers beside chats."""

    def ask(
        self, request: SurfaceRequest, model: str, call: Call
    ) -> AsyncGenerator[AnswerHead | bytes, None]:
        """Yield the answer's head, then its bytes as they come. ``model`` is the public name.

        Raises a ``ServerError`` when it fails, before the head or after. Closing it closes the connection.
        """


def surfaces_of(upstream: Upstream) -> SurfaceCaller | None:
    """What it offers beside chats; None for one that takes chats alone."""
    offered: SurfaceCaller | None = getattr(upstream, "surfaces", None)
    return offered


Whole: TypeAlias = Callable[[ChatRequest, Call], Awaitable[Batch]]


def whole(upstream: Upstream) -> Whole:
    """How to ask for a plain answer: the upstream's own ``whole`` if it has one, else all that it streams.

    It gives everything as one batch and raises what ``stream`` raises. A plain answer needs none of the
    generators that a stream goes through, and they cost more than all else.
    """
    own: Whole | None = getattr(upstream, "whole", None)
    return own if own is not None else partial(_collect, upstream)


async def _collect(upstream: Upstream, chat: ChatRequest, call: Call) -> Batch:
    async with aclosing(upstream.stream(chat, call)) as batches:
        return [delta async for batch in batches for delta in batch]
