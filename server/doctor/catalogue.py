"""Upstream faults over HTTP, and the whole catalogue.

What is promised is docs/behaviour.md's: before the first delta an error with its own status, after it a cut
that is told as one, and a whole answer where the fault does not matter: one garbage line is skipped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from server.doctor.faults import (
    ANSWER,
    CHUNKS,
    SECRET,
    WHOLE,
    Clock,
    Fault,
    Kind,
    Promise,
    connections,
    cut,
    error,
)
from server.doctor.spark_faults import spark_faults
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.azure import AzureScript
from server.simulators.gemini_said import GeminiScript
from server.simulators.ollama_said import OllamaScript
from server.simulators.script import Script

LONG_S = 30.0
"""A Retry-After that no request can wait for."""
OVERSIZED = 17 * 1024 * 1024
"""One line of so many bytes is more than may come at once."""
_SCRIPTS: dict[Kind, type[Script]] = {
    "openai": Script,
    "azure": AzureScript,
    "anthropic": AnthropicScript,
    "gemini": GeminiScript,
    "ollama": OllamaScript,
}
_EVENT_STREAM = "text/event-stream"
_JSON = "application/json"


def catalogue() -> tuple[Fault, ...]:
    """Every fault, in the order of the scorecard. A name is unique among the faults of one kind."""
    over_http = [fault for kind in _SCRIPTS for fault in _Http(kind).faults()]
    return (*over_http, *spark_faults())


class _Http:
    """The faults of one kind that speaks HTTP."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._events = kind in ("openai", "azure")  # its streams end with [DONE]

    def faults(self) -> list[Fault]:
        return [
            self._harmless("no-fault"),
            *self._statuses(),
            *connections(self._kind, self._script()),
            *self._heads(),
            *self._bodies(),
            *self._streams(),
            *self._plain(),
            *self._harmless_ones(),
            *self._several(),
        ]

    def _script(self, **fields: Any) -> Script:
        return _SCRIPTS[self._kind](**{"text": ANSWER, "chunks": CHUNKS, **fields})

    def _fault(
        self,
        name: str,
        streamed: Promise | None,
        plain: Promise | None,
        *,
        heavy: bool = False,
        **fields: Any,
    ) -> Fault:
        script = self._script(**fields)
        return Fault(name=name, kind=self._kind, script=script, streamed=streamed, plain=plain, heavy=heavy)

    def _both(self, name: str, promise: Promise, *, heavy: bool = False, **fields: Any) -> Fault:
        return self._fault(name, promise, promise, heavy=heavy, **fields)

    def _statuses(self) -> list[Fault]:
        bad, busy, late = (
            error(502, "upstream_error"),
            error(503, "overloaded"),
            error(504, "upstream_timeout"),
        )
        again = {408: late, 409: bad, 425: bad, 500: bad, 502: bad, 503: busy, 504: late, 529: busy}
        refused = error(502, "upstream_auth", retry="elsewhere")
        spent = error(429, "insufficient_quota", retry="elsewhere")
        calm = error(429)
        missing = error(502, "upstream_error", retry="elsewhere")
        return [
            *(self._both(f"status-{status}", promise, status=status) for status, promise in again.items()),
            *(
                self._both(f"status-{status}", error(status, retry="never"), status=status)
                for status in (400, 413, 422)
            ),
            self._both(
                "status-404-model",
                # Of a model that is not pulled another server may have it.
                error(404, "model_not_found", retry="elsewhere" if self._kind == "ollama" else "never"),
                status=404,
                error_message="There is no such model",
            ),
            self._both(
                "status-404-address",
                missing,
                status=404,
                error_form="html",
                error_message="404 page not found",
            ),
            *(self._both(f"status-{status}", refused, status=status) for status in (401, 403)),
            self._both("status-402", spent, status=402),
            self._both("status-429", error(429, patience=True), status=429, retry_after=LONG_S),
            self._both(
                "status-429-by-date",
                error(429, patience=True),
                status=429,
                retry_after=LONG_S,
                retry_after_form="date",
            ),
            self._both("status-429-without-time", calm, status=429),
            self._both("status-503-with-time", error(503, patience=True), status=503, retry_after=LONG_S),
            self._both("html-error", bad, status=502, error_form="html"),
            self._both("empty-error", bad, status=500, error_form="empty"),
            self._both("huge-error", bad, status=500, body="x", body_bytes=8_000_000),
            self._both("redirect", error(502, "upstream_invalid"), status=307, body=""),
            self._both(
                "echoed-key-400",
                error(400, retry="never"),
                status=400,
                error_message=f"Your key {SECRET}-0 may not ask this",
            ),
            self._both("echoed-key-401", refused, status=401, error_message=f"Wrong key: {SECRET}-0"),
        ]

    def _heads(self) -> list[Fault]:
        gone, nonsense = error(502, "upstream_unreachable"), error(502, "upstream_invalid")
        return [
            self._both("closed-before-answer", gone, cut_head_at=0),
            self._both("reset-before-answer", gone, cut_head_at=0, cut="rst"),
            self._both("cut-in-head", gone, cut_head_at=9),
            self._late("never-answers", silent=True),
            self._late("slow-head", delay_ms=60_000),
            self._late("header-dripping", drip_ms=200),
            self._both("not-http", nonsense, status_line="HELLO"),
        ]

    def _late(self, name: str, **fields: Any) -> Fault:
        """No first token in time. Plain answers may take their time: of them the whole is timed."""
        return self._fault(name, _late("first_token"), _late("total"), **fields)

    def _bodies(self) -> list[Fault]:
        def body(name: str, promise: Promise, text: str, content_type: str) -> Fault:
            return self._both(name, promise, body=text, content_type=content_type)

        nonsense = error(502, "upstream_invalid", "upstream_empty", "upstream_cut")
        empty = error(502, "upstream_empty", "upstream_invalid", "upstream_cut")
        return [
            body("html-as-answer", nonsense, "<html>Welcome</html>", "text/html"),
            body("json-cut-short", nonsense, '{"choices": [', _JSON),
            body("json-of-another-kind", nonsense, '{"hello": [1, 2]}', _JSON),
            body("empty-body", empty, "", _JSON),
            body("empty-stream", empty, "", _EVENT_STREAM),
            body("done-alone", empty, "data: [DONE]\n\n", _EVENT_STREAM),
            body("bad-json-alone", nonsense, "data: {not json\n\n", _EVENT_STREAM),
            self._both("error-in-200", error((500, 502, 503, 529)), error_after=0),
            self._both("no-words", error(502, "upstream_empty"), text=None, chunks=None, pieces=()),
            self._both(
                "no-words-no-usage",
                error(502, "upstream_empty"),
                text=None,
                chunks=None,
                pieces=(),
                usage="never",
            ),
            self._fault(
                "oversized-line",
                # It may take longer to come than a model may take to speak.
                error((502, 504), "upstream_invalid", "upstream_timeout_first_token"),
                None,
                heavy=True,
                inject={0: "data: " + "x" * OVERSIZED + "\n\n"},
            ),
        ]

    def _streams(self) -> list[Fault]:
        def streamed(name: str, promise: Promise, **fields: Any) -> Fault:
            return self._fault(name, promise, None, **fields)

        return [
            streamed("silent-before-content", _late("first_token"), stall_after=0),
            streamed("slow-first-token", _late("first_token"), first_ms=60_000),
            streamed("only-comments", _late("first_token"), first_ms=60_000, keep_alive_ms=100),
            streamed("cut-before-content", error(502, "upstream_cut"), cut_after=0),
            streamed("reset-before-content", error(502, "upstream_cut"), cut_after=0, cut="rst"),
            streamed("stall-after-content", cut("upstream_timeout_idle", clock="idle"), stall_after=2),
            streamed("cut-after-content", cut("upstream_cut"), cut_after=2),
            streamed("reset-after-content", cut("upstream_cut"), cut_after=2, cut="rst"),
            streamed("ended-without-finish", cut("upstream_cut"), cut_after=2, cut="clean"),
            streamed("error-after-content", cut(), error_after=2),
            streamed(
                "endless", cut("upstream_timeout_total", clock="total"), text=None, chunks=600, pace_ms=100
            ),
        ]

    def _plain(self) -> list[Fault]:
        def plain(name: str, promise: Promise, **fields: Any) -> Fault:
            return self._fault(name, None, promise, **fields)

        broken = error(502, "upstream_cut", "upstream_invalid")
        return [
            plain("body-cut", broken, cut_at_byte=40),
            plain("body-reset", broken, cut_at_byte=40, cut="rst"),
            plain("body-shorter-than-told", broken, length_extra=10, framing="length"),
            plain("body-stalls", _late("total"), stall_at_byte=40),
        ]

    def _harmless(self, name: str, **fields: Any) -> Fault:
        return self._both(name, WHOLE, **fields)

    def _harmless_ones(self) -> list[Fault]:
        ones = [
            self._harmless("comments", comments_first=5, comments_between=True),
            self._harmless("split-anywhere", split_at=7),
            self._harmless("crlf", line_end="crlf"),
            self._harmless("bad-json-line", inject={2: "data: {not json\n\n"}),
            self._harmless("wrong-content-type", content_type="text/plain"),
            self._harmless("connection-dropped-after-answer", connection="drop"),
        ]
        if self._events:
            return [
                *ones,
                self._harmless("missing-done", done=0),
                self._harmless("duplicate-done", done=2),
            ]
        return ones

    def _several(self) -> list[Fault]:
        """What is seen in more than one request only."""
        asked = self._both(
            "patience-is-kept", error((429, 503), patience=True), status=429, retry_after=LONG_S
        )
        dead = self._both("dead-for-long", error(503, "no_channel", patience=True), status=500)
        return [
            msgspec.structs.replace(asked, asks="again", wait_s=LONG_S),
            msgspec.structs.replace(dead, asks="open"),
        ]


def _late(clock: Clock) -> Promise:
    return error(
        504, f"upstream_timeout_{clock}", retry="never" if clock == "total" else "again", clock=clock
    )
