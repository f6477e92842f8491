"""Events of two runs as a server tells them: a healthy one, and one in which much goes wrong."""

from __future__ import annotations

import json
from typing import Any

from server.events import Event, decode

RUN = "run_5f0c7a9be1d24c6f8a3b90d17e42c6aa"
DRAFT = {"id": "draft.1", "name": "draft", "round": 1}
SUMMARY = {"id": "summary.1", "name": "summary", "round": 1}
MEMBERS = {"m1": "deepseek-flash", "m2": "spark-max", "m3": "qwen-plus"}
USAGE = {"prompt_tokens": 61, "completion_tokens": 212, "total_tokens": 273}


def event_json(type: str, number: int, ms: int, data: dict[str, Any], **where: Any) -> dict[str, Any]:
    """An event as it stands on the wire."""
    time = f"2026-11-21T09:00:{ms / 1000:06.3f}Z"
    head = {"v": 1, "type": type, "sequence_number": number, "time": time, "elapsed_ms": ms}
    return {**head, "run_id": RUN, **where, "data": data}


def event(type: str, number: int, ms: int, data: dict[str, Any] | None = None, **where: Any) -> Event:
    """An event as a watcher has it."""
    decoded = decode(json.dumps(event_json(type, number, ms, data or {}, **where)).encode())
    assert decoded is not None
    return decoded


def of(member: str, attempt: int = 1) -> dict[str, Any]:
    """Where an event of a member stands."""
    ref = {"id": member, "model": MEMBERS[member], "sample": 1, "attempt": attempt}
    return {"stage": DRAFT, "member": ref}


def created(**fields: Any) -> Event:
    members = [{"id": id, "model": model, "weight": 1} for id, model in MEMBERS.items()]
    data = {"response_id": "c", "model": "parallel", "strategy": "synthesize", "stream": True}
    return event("run.created", 1, 0, {**data, "members": members, "summary": "spark-ultra", **fields})


def drafting() -> list[Event]:
    """One has finished, one writes, one was refused twice; two seconds have gone."""
    refused = {"code": "rate_limit_exceeded", "http_status": 429}
    failed = {**refused, "retryable": True, "latency_ms": 1200, "message": "The upstream asks for less."}
    return [
        created(),
        event("run.in_progress", 2, 1),
        event("stage.started", 3, 1, {"expected": list(MEMBERS)}, stage=DRAFT),
        *(event("model.started", at, 2, **of(member)) for at, member in enumerate(MEMBERS, 4)),
        event("model.first_token", 7, 412, {"ttft_ms": 410, "kind": "text"}, **of("m1")),
        event(
            "model.retrying",
            8,
            500,
            {**refused, "delay_ms": 9, "next_attempt": 2, "same_channel": True},
            **of("m3"),
        ),
        event("model.first_token", 9, 1000, {"ttft_ms": 998, "kind": "text"}, **of("m2")),
        event("model.failed", 10, 1214, failed, **of("m3", 2)),
        event(
            "model.finished",
            11,
            1800,
            {"finish_reason": "stop", "chars": 804, "latency_ms": 1798, "usage": USAGE},
            **of("m1"),
        ),
        event("model.progress", 11, 2000, {"chars": 400, "tokens_estimated": 100}, volatile=True, **of("m2")),
    ]


def whole() -> list[Event]:
    """The same run to its end, with a summary."""
    usage = {"prompt_tokens": 971, "completion_tokens": 1059, "total_tokens": 2030, "estimated": True}
    said = {"chars": 600, "latency_ms": 1000, "finish_reason": "length"}
    return [
        *drafting(),
        event("model.finished", 12, 2200, {**said, "usage": {**USAGE, "estimated": True}}, **of("m2")),
        event("stage.finished", 13, 2200, {"ended_by": "all", "duration_ms": 2199}, stage=DRAFT),
        event("run.degraded", 14, 2200, {"level": "partial", "reason": "failed", "members": ["m3"]}),
        event("stage.started", 15, 2200, {"expected": ["summary"]}, stage=SUMMARY),
        event("summary.started", 16, 2200, {"model": "spark-ultra", "seed": 1}, stage=SUMMARY),
        event("summary.first_token", 17, 2600, {"ttft_ms": 400, "kind": "text"}, stage=SUMMARY),
        event(
            "summary.delta",
            17,
            2700,
            {"kind": "text", "text": "Both ", "text_offset": 0},
            volatile=True,
            stage=SUMMARY,
        ),
        event(
            "summary.delta",
            17,
            3600,
            {"kind": "text", "text": "agree.\nIt scatters.", "text_offset": 5},
            volatile=True,
            stage=SUMMARY,
        ),
        event(
            "summary.finished",
            18,
            3600,
            {"finish_reason": "stop", "chars": 24, "latency_ms": 1400, "usage": USAGE},
            stage=SUMMARY,
        ),
        event("stage.finished", 19, 3600, {"ended_by": "all", "duration_ms": 1400}, stage=SUMMARY),
        event(
            "run.completed",
            20,
            3601,
            {
                "answer_by": "summary",
                "level": "partial",
                "finish_reason": "stop",
                "used": ["m1", "m2"],
                "usage": usage,
                "cost": 0.0012,
                "timings": {"first_text_ms": 2600, "total_ms": 3601},
            },
        ),
    ]
