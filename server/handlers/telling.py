"""What an answer tells of how it came about: attempts, adaptations, and the ``antiphon`` object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from server.openai_wire import usage_json
from server.upstreams.base import AnswerInfo, Call

# The header tells so many attempts; a panel may make more. (attempts)
MAX_ATTEMPTS_TOLD = 100
# Headers beyond 8 KiB are refused by many clients. (warnings)
MAX_WARNINGS_TOLD = 32


def warnings_told(call: Call, own_param: Callable[[str], str]) -> list[str]:
    """What was adapted in the request, in ASCII words; ``own_param`` knows the client's names of fields.

    Of a combination, behind the ids of the calls that it is true of: ``m1, m3: seed was left out``; an id
    within a member that is a combination is ``m2/m1``.
    """
    if not call.parts:
        return [_in_own_words(warning, own_param) for warning in adaptations(call)]
    calls: dict[str, list[str]] = {}
    for id, warning in _of_parts(call, ""):
        ids = calls.setdefault(_in_own_words(warning, own_param), [])
        if id not in ids:
            ids.append(id)
    told = [f"{', '.join(ids)}: {warning}" for warning, ids in calls.items()]
    more = len(told) - MAX_WARNINGS_TOLD
    return [*told[:MAX_WARNINGS_TOLD], f"and {more} more"] if more > 0 else told


def _in_own_words(warning: str, own_param: Callable[[str], str]) -> str:
    """Most warnings begin with the name of a field."""
    name, blank, rest = warning.partition(" ")
    return own_param(name) + blank + rest


def _of_parts(call: Call, within: str) -> Iterator[tuple[str, str]]:
    for log, part in call.parts:
        id = within + log.id
        if part.parts:
            yield from _of_parts(part, f"{id}/")
        for warning in adaptations(part):
            yield id, warning


def adaptations(call: Call) -> tuple[str, ...]:
    """What was adapted in the request of the attempt that counts: the last one."""
    if call.warnings is None or call.warnings[0] != call.channel:
        return ()
    return call.warnings[1]


def attempts_told(call: Call, *, names: bool) -> str:
    """What became of each attempt, oldest first: ``ok`` or an error's code; with the channels' names.

    Of a combination each call's attempts that are over, behind its id.
    """
    if not call.parts:
        return ", ".join(_outcomes(call, whole=True, names=names))
    told = [
        f"{log.id}:{word}"
        for log, part in call.parts
        for word in _outcomes(part, whole=log.state == "finished", names=names)
    ]
    return ", ".join(told[:MAX_ATTEMPTS_TOLD])


def drafts_told(call: Call) -> str:
    """``drafts`` if a draft of a combination was kept, ``miss`` if none was; "" if that is not known yet."""
    outcomes = {part.caching.outcome for _, part in call.parts if part.caching is not None}
    if "hit" in outcomes:
        return "drafts"
    return "" if "" in outcomes or not outcomes else "miss" if "miss" in outcomes else "bypass"


def _outcomes(call: Call, *, whole: bool, names: bool) -> list[str]:
    outcomes = list(call.tried)
    if whole and len(outcomes) < call.attempts_made:
        outcomes.append((call.channel, "ok"))
    # A code may be an upstream's own word: quoted, it is fit for a header.
    words = [(quote(channel, safe=""), quote(code[:64], safe="")) for channel, code in outcomes]
    return [f"{channel}={code}" if names else code for channel, code in words]


def antiphon_field(run_id: str, info: AnswerInfo) -> bytes:
    """How an answer came about, as the ``antiphon`` object that goes with it."""
    members = [
        {
            "id": call.id,
            "model": call.model,
            "state": call.state,
            **({"code": call.code} if call.code else {}),
            **({"warnings": call.warnings} if call.warnings else {}),
            "usage": None if call.usage is None else Raw(usage_json(call.usage)),
            "cost": call.cost,
            **({"cache": call.cache} if call.cache else {}),
        }
        for call in info.members
    ]
    fields: dict[str, Any] = {
        "run_id": run_id,
        "strategy": info.strategy,
        "level": info.level,
        "answer_by": info.answer_by,
        "members": members,
    }
    if info.agreement is not None:
        fields["agreement"] = info.agreement
    if info.steps:
        fields["steps"] = info.steps
    return msgspec.json.encode(fields)
