"""Deltas → the events of a Responses stream, or one whole response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from server.deltas import Batch, Usage
from server.errors import ServerError
from server.responses_wire.output import Event, Output
from server.responses_wire.response import Head, Whole, begun, ended, failed

_json = msgspec.json.encode


class ResponseEncoder:
    """One client's stream. ``keep`` is given the response when it has ended, in good order or not."""

    def __init__(self, head: Head, *, summaries: bool, keep: Callable[[Whole], None]) -> None:
        self._head = head
        self._output = Output(_stem(head), summaries=summaries)
        self._keep = keep
        self._number = 0
        self._started = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be told, after ``finish``."""
        return self._output.left.warnings

    def encode(self, batch: Batch) -> bytes:
        """The events of a batch, joined for one write."""
        begin = b"" if self._started else self._begin()
        return begin + b"".join([self._event(event) for event in self._output.say(batch)])

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """The end of a complete answer."""
        begin = b"" if self._started else self._begin()
        last = b"".join([self._event(event) for event in self._output.end()])
        output = self._output
        figures = output.usage or usage or Usage(estimated=True)
        beside = output.left.beside(antiphon)
        response = ended(self._head, output.reason, output.items(), figures, beside)
        self._keep(_whole(response))
        return begin + last + self._event({"type": f"response.{response['status']}", "response": response})

    def fail(self, error: ServerError) -> bytes:
        """The end of an answer that failed, with what there is of it."""
        begin = b"" if self._started else self._begin()
        output = self._output
        response = failed(self._head, error, output.items(), output.left.beside(None))
        self._keep(Whole(_json(response), []))  # nobody goes on from half an answer, but from its question
        return begin + self._event({"type": "response.failed", "response": response})

    def _begin(self) -> bytes:
        self._started = True
        response = begun(self._head)
        names = ("response.created", "response.in_progress")
        return b"".join([self._event({"type": name, "response": response}) for name in names])

    def _event(self, event: Event) -> bytes:
        event["sequence_number"] = self._number
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _json(event))


class ResponseCollector:
    """Collects the batches of one answer; ``encode`` gives the body, which ``keep`` is given too."""

    def __init__(self, head: Head, *, summaries: bool, keep: Callable[[Whole], None]) -> None:
        self._head = head
        self._output = Output(_stem(head), summaries=summaries)
        self._keep = keep

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        self._output.say(batch)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be told, after ``encode``."""
        return self._output.left.warnings

    def encode(self, usage: Usage | None = None, antiphon: bytes | None = None) -> bytes:
        """The body; ``usage`` is used where the upstream gave none."""
        output = self._output
        output.end()
        figures = output.usage or usage or Usage(estimated=True)
        beside = output.left.beside(antiphon)
        whole = _whole(ended(self._head, output.reason, output.items(), figures, beside))
        self._keep(whole)
        return whole.body


def _stem(head: Head) -> str:
    """What a response's id and those of its items share."""
    return head.id.partition("_")[2]


def _whole(response: dict[str, Any]) -> Whole:
    return Whole(_json(response), [_json(item) for item in response["output"]])
