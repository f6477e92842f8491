"""Events as plain lines, for pipes, log files and terminals that cannot draw. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from server.cli.lanes import clean, seconds
from server.events import ErrorInfo, Event, ModelDelta, SummaryDelta, timestamp

_SAID_ELSEWHERE = frozenset({"v", "message", "error"})


def event_line(event: Event) -> str:
    """``09:00:02.140 run_5f0c7a9b +2.14 s m1 spark-max: model.finished finish_reason=stop …``"""
    data = event.data
    words = [timestamp(event.time)[11:23], clean(event.run_id, 60)[:12], f"+{seconds(event.elapsed_ms)}"]
    if event.member is not None:
        words.append(f"{clean(event.member.id, 40)} {clean(event.member.model, 80)}:")
    elif event.stage is not None:
        words.append(f"{clean(event.stage.id, 40)}:")
    words.append(event.type)
    if isinstance(data, (ModelDelta, SummaryDelta)):
        return " ".join([*words, data.kind, _quoted(data.text)])
    told: dict[str, Any] = msgspec.to_builtins(data)
    words += [f"{name}={_value(value)}" for name, value in told.items() if name not in _SAID_ELSEWHERE]
    error = getattr(data, "error", None)
    if isinstance(error, ErrorInfo):
        words.append(f"code={clean(error.code)} {_quoted(error.message)}")
    elif isinstance(message := told.get("message"), str):
        words.append(_quoted(message))
    return " ".join(words)


def snapshot_line(run: dict[str, Any]) -> str:
    """How a run stood when the watcher joined it."""
    members = run.get("members") or ()
    states = " ".join(f"{clean(one.get('id'), 40)}={clean(one.get('state'), 20)}" for one in members)
    return (
        f"{'':12} {clean(run.get('id'), 60)[:12]} stands: {clean(run.get('model'), 80)} "
        f"{clean(run.get('status'), 20)} {states}"
    ).rstrip()


def _value(value: object) -> str:
    """A value on one line; an object's members without their quotes and braces."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case dict():
            return "{" + " ".join(f"{clean(key, 40)}={_value(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + " ".join(_value(one) for one in value) + "]"
        case str():
            return clean(value)
        case _:
            return str(value)


def _quoted(text: str) -> str:
    return '"' + clean(text.replace("\n", "\\n"), 4000) + '"'
