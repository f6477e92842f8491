"""What a client's dialect is to whoever carries out an answer."""

from __future__ import annotations

from typing import Protocol

from server.chat import ChatRequest
from server.deltas import Batch, Usage
from server.errors import ServerError
from server.run_log import Run


class Encoder(Protocol):
    """Writes one client's stream: each gives whole events, b"" for none. All raise ``ServerError``.

    ``warnings`` is complete after ``finish``, which tells them: what of the answer has no words here.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """In short ASCII words."""

    def encode(self, batch: Batch) -> bytes:
        """The events of a batch."""

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """The end of a complete answer; ``usage`` is used where the upstream gave none."""

    def fail(self, error: ServerError) -> bytes:
        """The end of an answer that failed: nothing that looks whole."""


class Collector(Protocol):
    """Makes one body of all batches of an answer; ``warnings`` as above, complete after ``encode``."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """In short ASCII words."""

    def add(self, batch: Batch) -> None:
        """Take in one batch."""

    def encode(self, usage: Usage | None = None, antiphon: bytes | None = None) -> bytes:
        """The body; ``usage`` is used where the upstream gave none. Raises ``ServerError``."""


class Dialect(Protocol):
    """What one request's client speaks.

    ``prefix`` begins the ids of its answers. ``heartbeat`` is what fills the silence once an answer has
    begun, in whole events. ``chats``: it is OpenAI's chat completions, which some settings shape further.
    """

    prefix: str
    heartbeat: bytes
    chats: bool

    def own_param(self, param: str) -> str:
        """The client's name for a field of the chat that was made of its request."""

    def encoder(self, run: Run, chat: ChatRequest, *, own: bool) -> Encoder:
        """For a stream. ``own``: the answer is the run's, and not one model's that is relayed."""

    def collector(self, run: Run, chat: ChatRequest, *, own: bool) -> Collector:
        """For one body; ``own`` as above."""

    def relayed(self, batch: Batch, model: str) -> bytes | None:
        """The upstream's own body, where it may go on as it is but for the ``model``."""
