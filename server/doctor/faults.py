"""What a fault is, and what the clients of a sound configuration are promised when it happens."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from server.simulators.script import Script

Kind: TypeAlias = Literal["openai", "azure", "anthropic", "gemini", "ollama", "spark"]
Seen: TypeAlias = Literal["error", "cut", "whole"]
Clock: TypeAlias = Literal["connect", "first_token", "idle", "total"]
Retry: TypeAlias = Literal[
    "again",  # another channel, or this one once more
    "elsewhere",  # another channel or key, never the same again
    "never",
]
Place: TypeAlias = Literal[
    "answer",  # the simulator's script
    "refused",  # nobody listens
    "dns",  # the name does not exist
    "backlog",  # the queue of connections is full: dials are neither taken nor refused
    "tls-good",  # the certificate is right, and so is the answer
    "tls-expired",
    "tls-other-name",
    "tls-stranger",  # signed by nobody that the channel trusts
    "tls-plain",  # no TLS is spoken there
    "tls-silent",  # the handshake is never answered
    "clock",  # the clock of the simulator is wrong
]

ANSWER = "The first channel says that all is well on this side of the line."
"""What a sick channel would say if it could, in ``CHUNKS`` chunks."""
CHUNKS = 5
SIBLING = "The second channel answers in place of the first."
"""What a channel says that is well, where another is sick."""


SECRET = "sk-doctor-4f1c8e27ab90d35566e1"  # noqa: S105
"""What every key of an examined configuration begins with: no client may see it."""


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sees where every channel has the fault.

    ``statuses`` and ``codes`` are those of the error, or of the event that tells a cut. ``clock`` is the one
    that ends the call, if one has to. ``patience``: is the client told when to come back?
    """

    seen: Seen
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    retry: Retry = "never"
    clock: Clock | None = None
    patience: bool = False

    def __str__(self) -> str:
        words = [self.seen, *map(str, self.statuses), *self.codes]
        return " ".join(words)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One way to fail. ``streamed`` and ``plain``: what each form of request gets; None: not to be met.

    ``dials``: so often an upstream is asked at most within one attempt. ``asks``: how many requests are made,
    one after the other: ``once`` alone, ``again`` one more while the channel wants no call for ``wait_s``
    seconds, ``open`` as many as open its breaker and one more. ``heavy``: it takes the processor for long, so
    it is done alone.
    """

    name: str
    kind: Kind
    script: Script
    streamed: Promise | None
    plain: Promise | None
    place: Place = "answer"
    dials: int = 1
    asks: Literal["once", "again", "open"] = "once"
    wait_s: float = 0.0
    heavy: bool = False


WHOLE = Promise(seen="whole")


def error(
    status: int | tuple[int, ...],
    *codes: str,
    retry: Retry = "again",
    clock: Clock | None = None,
    patience: bool = False,
) -> Promise:
    """An error before the first delta."""
    statuses = status if isinstance(status, tuple) else (status,)
    return Promise(seen="error", statuses=statuses, codes=codes, retry=retry, clock=clock, patience=patience)


def cut(*codes: str, clock: Clock | None = None) -> Promise:
    """An answer that has begun, and is told to have been cut off."""
    return Promise(seen="cut", codes=codes, clock=clock)


def connections(kind: Kind, script: Script) -> list[Fault]:
    """What goes wrong before a word is exchanged; it is the same for every kind."""
    unreachable = error(502, "upstream_unreachable")
    late = error(504, "upstream_timeout_connect", clock="connect")
    places: list[tuple[str, Place, Promise]] = [
        ("connection-refused", "refused", unreachable),
        ("dns-failure", "dns", unreachable),
        ("slow-connect", "backlog", late),
        ("tls-good", "tls-good", WHOLE),
        ("tls-expired", "tls-expired", unreachable),
        ("tls-wrong-name", "tls-other-name", unreachable),
        ("tls-unknown-issuer", "tls-stranger", unreachable),
        ("tls-plain-text", "tls-plain", unreachable),
        ("tls-silent", "tls-silent", late),
    ]
    return [
        Fault(name=name, kind=kind, script=script, streamed=promise, plain=promise, place=place)
        for name, place, promise in places
    ]
