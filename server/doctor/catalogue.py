"""Upstream faults, and what a client of a sound configuration sees of each.

What is expected is docs/behaviour.md's: before the first delta an error with its own status, after it a cut
that is told as one, and a whole answer where the fault does not matter: one garbage line is skipped.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from server.simulators.anthropic_said import AnthropicScript
from server.simulators.azure import AzureScript
from server.simulators.gemini_said import GeminiScript
from server.simulators.ollama_said import OllamaScript
from server.simulators.script import Script
from server.simulators.spark_script import SparkScript

Place: TypeAlias = Literal["answer", "refused", "tls", "dns", "clock"]
Seen: TypeAlias = Literal["error", "cut", "whole"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One way to fail. ``statuses`` are those of an error that a client may be shown, best first.

    ``retried``: may another upstream call be made for it? If not, it costs one.
    ``dials``: how often an upstream is asked at most within one of them.
    """

    name: str
    kind: Literal["openai", "azure", "anthropic", "gemini", "ollama", "spark"]
    script: Script
    sees: Seen
    statuses: tuple[int, ...] = ()
    retried: bool = True
    dials: int = 1
    place: Place = "answer"  # refused, tls, dns: no upstream answers at all; clock: its clock is wrong


def catalogue() -> tuple[Fault, ...]:
    """Every fault, in the order of the scorecard; the names are unique."""
    return (
        *(*_statuses(), *_connections(), *_bodies(), *_streams(), *_harmless()),
        *_native("anthropic", AnthropicScript),
        *_native("gemini", GeminiScript),
        *_native("azure", AzureScript),
        *_native("ollama", OllamaScript),
        *_spark(),
    )


def _openai(name: str, script: Script, *statuses: int, sees: Seen = "error", retried: bool = True) -> Fault:
    return Fault(name=name, kind="openai", script=script, sees=sees, statuses=statuses, retried=retried)


def _statuses() -> list[Fault]:
    again = {408: 504, 409: 502, 425: 502, 500: 502, 502: 502, 503: 503, 504: 504, 529: 503}
    once = {400: 400, 404: 404, 413: 413, 422: 422}
    refused = {401: 502, 402: 429, 403: 502}
    return [
        *(_openai(f"status-{came}", Script(status=came), told) for came, told in again.items()),
        *(_openai(f"status-{came}", Script(status=came), told, retried=False) for came, told in once.items()),
        *(_openai(f"status-{came}", Script(status=came), told) for came, told in refused.items()),
        _openai("status-429", Script(status=429, retry_after=1), 429),
        _openai("status-429-without-time", Script(status=429), 429),
        _openai("html-error", Script(status=502, error_form="html"), 502),
        _openai("empty-error", Script(status=500, error_form="empty"), 502),
    ]


def _connections() -> list[Fault]:
    def nowhere(name: str, place: Place) -> Fault:
        return Fault(
            name=name, kind="openai", script=Script(), sees="error", statuses=(502, 504), place=place
        )

    return [
        nowhere("connection-refused", "refused"),
        nowhere("tls-failure", "tls"),
        nowhere("dns-failure", "dns"),
        _openai("closed-before-answer", Script(cut_head_at=0), 502),
        _openai("reset-before-answer", Script(cut_head_at=0, cut="rst"), 502),
        _openai("cut-in-head", Script(cut_head_at=9), 502),
        _openai("header-dripping", Script(drip_ms=200), 504),
        _openai("never-answers", Script(silent=True), 504),
        _openai("not-http", Script(status_line="HELLO"), 502),
    ]


def _bodies() -> list[Fault]:
    return [
        _openai("html-as-answer", Script(body="<html>Welcome</html>", content_type="text/html"), 502),
        _openai("json-cut-short", Script(body='{"choices": [', content_type="application/json"), 502),
        _openai("empty-body", Script(body="", content_type="application/json"), 502),
        _openai("error-in-200", Script(error_after=0, error_type="server_error", error_code="x"), 502, 503),
        _openai("empty-stream", Script(body="", content_type="text/event-stream"), 502),
        _openai("done-alone", Script(body="data: [DONE]\n\n", content_type="text/event-stream"), 502),
        _openai("bad-json-alone", Script(body="data: {not json\n\n", content_type="text/event-stream"), 502),
        _openai("oversized-line", Script(inject={0: "data: " + "x" * 40_000_000 + "\n\n"}), 502),
    ]


def _streams() -> list[Fault]:
    def after(name: str, script: Script) -> Fault:
        return _openai(name, script, sees="cut", retried=False)

    return [
        _openai("silent-before-content", Script(stall_after=0), 504),
        _openai("cut-before-content", Script(cut_after=0), 502),
        _openai("reset-before-content", Script(cut_after=0, cut="rst"), 502),
        after("stall-after-content", Script(chunks=5, stall_after=2)),
        after("cut-after-content", Script(chunks=5, cut_after=2)),
        after("reset-after-content", Script(chunks=5, cut_after=2, cut="rst")),
        after("ended-without-finish", Script(chunks=5, cut_after=2, cut="clean")),
        after("error-after-content", Script(chunks=5, error_after=2)),
    ]


def _harmless() -> list[Fault]:
    def harmless(name: str, script: Script) -> Fault:
        return _openai(name, script, sees="whole", retried=False)

    return [
        harmless("no-fault", Script()),
        harmless("missing-done", Script(done=0)),
        harmless("duplicate-done", Script(done=2)),
        harmless("bad-json-line", Script(chunks=5, inject={2: "data: {not json\n\n"})),
        harmless("comments", Script(comments_first=5, comments_between=True)),
        harmless("byte-by-byte", Script(chunks=2, split_at=1)),
        harmless("wrong-content-type", Script(content_type="text/plain")),
    ]


def _native(kind: Literal["azure", "anthropic", "gemini", "ollama"], script: type[Script]) -> list[Fault]:
    """What each dialect over HTTP tells in its own way; what HTTP alone tells is the same for all."""

    def native(name: str, *statuses: int, sees: Seen = "error", retried: bool = True, **fields: Any) -> Fault:
        return Fault(
            name=f"{kind}-{name}",
            kind=kind,
            script=script(**fields),
            sees=sees,
            statuses=statuses,
            retried=retried,
        )

    def after(name: str, **fields: Any) -> Fault:
        return native(f"{name}-after-content", sees="cut", retried=False, chunks=5, **fields)

    return [
        native("no-fault", sees="whole", retried=False),
        native("key-refused", 502, status=403),
        native("bad-request", 400, status=400, retried=False),
        native("rate-limit", 429, status=429, retry_after=1),
        native("overloaded", 503, status=503),
        native("never-answers", 504, silent=True),
        native("garbage", 502, body="not json"),
        native("dropped", 502, cut_after=0),
        native("silent", 504, stall_after=0),
        after("dropped", cut_after=2),
        after("reset", cut_after=2, cut="rst"),
        after("ended", cut_after=2, cut="clean"),
        after("stall", stall_after=2),
        after("error", error_after=2),
    ]


def _spark() -> list[Fault]:
    def spark(
        name: str, script: SparkScript, *statuses: int, sees: Seen = "error", retried: bool = True
    ) -> Fault:
        return Fault(name=name, kind="spark", script=script, sees=sees, statuses=statuses, retried=retried)

    return [
        spark("spark-no-fault", SparkScript(), sees="whole", retried=False),
        # The refusal tells Spark's time, and the dial is repeated with it.
        Fault(
            name="spark-clock-skew",
            kind="spark",
            script=SparkScript(),
            sees="whole",
            retried=False,
            dials=2,
            place="clock",
        ),
        spark("spark-handshake-401", SparkScript(status=401, body="{}"), 502),
        spark("spark-never-answers", SparkScript(silent=True), 504),
        spark("spark-rate-limit", SparkScript(error_code=11202), 429),
        spark("spark-dropped", SparkScript(chunks=5, cut_after=0), 502),
        spark("spark-garbage", SparkScript(inject={0: "not json"}), 502),
        spark("spark-silent", SparkScript(stall_after=0), 504),
        spark("spark-dropped-after-content", SparkScript(chunks=5, cut_after=2), sees="cut", retried=False),
        spark(
            "spark-reset-after-content",
            SparkScript(chunks=5, cut_after=2, cut="rst"),
            sees="cut",
            retried=False,
        ),
        spark(
            "spark-closed-after-content",
            SparkScript(chunks=5, cut_after=2, cut="clean"),
            sees="cut",
            retried=False,
        ),
        spark("spark-stall-after-content", SparkScript(chunks=5, stall_after=2), sees="cut", retried=False),
    ]
