"""Faults of Spark's websocket."""

from __future__ import annotations

from typing import Any

import msgspec

from server.doctor.faults import ANSWER, CHUNKS, WHOLE, Fault, Place, Promise, connections, cut, error
from server.simulators.spark_script import SparkScript

_LATE = error(504, "upstream_timeout_first_token", clock="first_token")
_BAD, _NONSENSE = error(502, "upstream_error"), error(502, "upstream_invalid", "upstream_cut")
# It may take longer to come than a model may take to speak.
_HUGE = error((502, 504), "upstream_invalid", "upstream_cut", "upstream_timeout_first_token")
_REFUSED = error(502, "upstream_auth", retry="elsewhere")
_CUT, _BROKEN = cut("upstream_cut"), error(502, "upstream_cut")


def spark_faults() -> list[Fault]:
    """All of them. Spark always streams: what is a cut for a stream is an error for a whole answer."""
    return [
        _spark("no-fault", WHOLE),
        *_handshakes(),
        *connections("spark", _script()),
        *_codes(),
        *_frames(),
        *_after_content(),
        *_harmless(),
        *_several(),
    ]


def _script(**fields: Any) -> SparkScript:
    return SparkScript(**{"text": ANSWER, "chunks": CHUNKS, **fields})


def _spark(
    name: str,
    streamed: Promise,
    plain: Promise | None = None,
    *,
    place: Place = "answer",
    dials: int = 1,
    heavy: bool = False,
    **fields: Any,
) -> Fault:
    return Fault(
        name=name,
        kind="spark",
        script=_script(**fields),
        streamed=streamed,
        plain=streamed if plain is None else plain,
        place=place,
        dials=dials,
        heavy=heavy,
    )


def _handshakes() -> list[Fault]:
    gone = error(502, "upstream_unreachable")
    return [
        # The refusal tells Spark's time, and the dial is repeated with it.
        _spark("clock-skew", WHOLE, place="clock", dials=2),
        _spark("handshake-401", _REFUSED, status=401, body="{}"),
        _spark("handshake-403", _REFUSED, status=403, body="{}"),
        _spark("handshake-404", error(502, "upstream_error", retry="elsewhere"), status=404, body="<html>"),
        *(_spark(f"handshake-{status}", _BAD, status=status, body="<html>") for status in (500, 502)),
        _spark("handshake-503", error(503, "overloaded"), status=503, body="<html>"),
        _spark(
            "handshake-never-answered", error(504, "upstream_timeout_connect", clock="connect"), silent=True
        ),
        _spark("handshake-closed", gone, cut_head_at=0),
        _spark("handshake-reset", gone, cut_head_at=0, cut="rst"),
        _spark("handshake-cut", gone, cut_head_at=20),
    ]


def _codes() -> list[Fault]:
    calm = error(429, "rate_limit_exceeded", patience=True)
    return [
        *(_spark(f"code-{code}", calm, error_code=code) for code in (11202, 11203)),
        _spark("code-10008-busy", error(503, "overloaded"), error_code=10008),
        _spark("code-10012-engine", error((500, 502), "upstream_error"), error_code=10012),
        _spark("code-10013-moderation", error(400, "content_filter", retry="never"), error_code=10013),
        _spark("code-10163-parameter", error(400, "invalid_parameter", retry="never"), error_code=10163),
        _spark("code-10907-too-long", error(400, "context_length_exceeded", retry="never"), error_code=10907),
        _spark("code-11201-quota", error(429, "insufficient_quota", retry="elsewhere"), error_code=11201),
        _spark("code-10313-credentials", _REFUSED, error_code=10313),
        _spark("code-99999-unknown", error(502, "upstream_error", retry="never"), error_code=99999),
    ]


def _frames() -> list[Fault]:
    return [
        _spark("dropped", _BROKEN, cut_after=0),
        _spark("closed", _BROKEN, cut_after=0, cut="clean"),
        _spark("silent", _LATE, stall_after=0),
        _spark("slow-first-token", _LATE, first_ms=60_000),
        _spark("only-pings", _LATE, first_ms=60_000, ping_ms=100),
        _spark("frame-not-json", _NONSENSE, inject={0: "not json"}),
        _spark("frame-of-another-kind", _NONSENSE, inject={0: '{"hello": [1]}'}),
        _spark("not-websocket", _NONSENSE, inject_raw={0: "HELLO, no frame"}),
        _spark("oversized-frame", _HUGE, heavy=True, inject={0: "x" * (17 * 1024 * 1024)}),
        _spark("no-words", error(502, "upstream_empty"), text=None, chunks=None, pieces=(), usage="zero"),
    ]


def _after_content() -> list[Fault]:
    late = error(504, "upstream_timeout_idle", clock="idle")
    return [
        _spark("dropped-after-content", _CUT, _BROKEN, cut_after=2),
        _spark("reset-after-content", _CUT, _BROKEN, cut_after=2, cut="rst"),
        _spark("closed-after-content", _CUT, _BROKEN, cut_after=2, cut="clean"),
        _spark("stall-after-content", cut("upstream_timeout_idle", clock="idle"), late, stall_after=2),
        _spark("error-after-content", cut(), error((502, 500)), error_after=2, error_code=10012),
        _spark("missing-last-frame", _CUT, _BROKEN, last_status="missing", close="drop"),
    ]


def _harmless() -> list[Fault]:
    return [
        _spark("pings", WHOLE, ping_ms=20, pace_ms=30),
        _spark("fragments", WHOLE, fragment=5),
        _spark("split-anywhere", WHOLE, split_at=7),
        _spark("binary-frames", WHOLE, frames="binary"),
        _spark("never-closes", WHOLE, close="never"),
        _spark("dropped-after-answer", WHOLE, close="drop"),
        _spark("status-in-choices-alone", WHOLE, last_status="choices"),
    ]


def _several() -> list[Fault]:
    patient = _spark("patience-is-kept", error((429, 503), patience=True), error_code=11202)
    dead = _spark("dead-for-long", error(503, "no_channel", patience=True), error_code=10012)
    return [
        msgspec.structs.replace(patient, asks="again", wait_s=1.0),
        msgspec.structs.replace(dead, asks="open"),
    ]
