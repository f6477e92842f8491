"""What one request makes of a combination: who is called, within which limits.

A request may change the limits with its ``antiphon`` field, downwards only and only where the configuration
lets it. Whatever the combination cannot do is refused here, before any call is paid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.errors import InvalidRequest
from server.settings import Combination, Member, Overridable, Summary
from server.strategy_settings import Accept

KNOWN_OVERRIDES: tuple[str, ...] = get_args(Overridable)
PASSING = frozenset({"race", "fallback"})
"""Strategies whose answer is one member's own, as it comes: tools pass."""
# Strategies whose answer is a draft, so that it may continue an assistant turn.
_VERBATIM = PASSING | {"all", "vote", "best_of", "cascade"}
_USED_BY_ONE: Mapping[str, tuple[str, ...]] = {
    "direct": ("strategy", "max_cost"),
    "steps": ("strategy", "deadline_s", "max_cost"),
}
_WRITING = frozenset({"synthesize", "moa", "critique", "council"})


class PlannedCall(msgspec.Struct, frozen=True):
    """One call of a draft stage. ``place`` counts from 0; ``sample`` from 1."""

    id: str
    place: int
    sample: int
    member: Member

    @property
    def model(self) -> str:
        """The model or combination that is asked."""
        return self.member.model


class Plan(msgspec.Struct, frozen=True):
    """One request's way through a combination. Limits are those of ``coordinator``'s settings, resolved.

    ``model`` is set for strategy ``direct`` only, ``calls`` for all others.
    """

    settings: Combination
    strategy: str
    calls: tuple[PlannedCall, ...] = ()
    model: str | None = None
    summary: Summary | None = None
    # Was the summary configured for images?
    vision_summary: bool = False
    quorum: int = 1
    min_success: int = 1
    grace_s: float = 0
    deadline_s: float = 0
    images: int = 0
    # In price units: what the run may cost (None: no limit), and what the summary costs at most.
    max_cost: int | None = None
    summary_most: int | None = None
    # What the run costs at most, as it is told; None: nobody knows.
    ceiling: float | None = None
    # So many of ``calls`` are asked, the rest are over the budget; None: all.
    keep: int | None = None


def make_plan(settings: Combination, chat: ChatRequest) -> Plan:
    """The plan for ``chat``. Raises ``InvalidRequest`` for what the combination cannot or may not do."""
    wishes = _wishes(settings, chat)
    strategy = _strategy(settings, wishes)
    images = count_images(chat, settings.vision_by)
    if strategy == "direct":
        model = settings.vision_model if images and settings.vision_model else settings.model
        assert model is not None  # the configuration was checked
        return Plan(settings, strategy, model=model, images=images)
    _refuse_what_it_cannot(chat, settings, strategy)
    if strategy == "steps":
        model = settings.vision_model if images and settings.vision_model else settings.model
        assert model is not None  # the configuration was checked
        return Plan(
            settings,
            strategy,
            summary=Summary(model=model),
            deadline_s=_seconds(wishes, "deadline_s", settings.deadline_s, above=True),
            images=images,
        )
    if images and not settings.vision_members:
        raise InvalidRequest(
            f"{settings.name} has no members for images; send text only, or ask a model with vision.",
            param="messages",
            code="unsupported_image",
        )
    calls = expand(settings.vision_members if images else settings.members)
    wanted_calls = _chosen(calls, wishes)
    count = len(wanted_calls)
    quorum = min(settings.quorum or -(-2 * count // 3), count)
    # Fewer members than min_success can only be those for images: then all of them.
    min_success = min(settings.min_success, len(calls))
    if count < min_success:
        raise _wrong("members", f"must name at least {min_success} members: fewer drafts are no answer")
    quorum = _whole(wishes, "quorum", quorum, least=min(min_success, quorum))
    summary = (settings.vision_summary or settings.summary) if images else settings.summary
    return Plan(
        settings,
        strategy,
        calls=wanted_calls,
        summary=summary if writes(settings, strategy) else None,
        vision_summary=bool(images and settings.vision_summary),
        quorum=quorum,
        min_success=min_success,
        grace_s=_seconds(wishes, "grace_s", settings.grace_s),
        deadline_s=_seconds(wishes, "deadline_s", settings.deadline_s, above=True),
        images=images,
    )


def expand(members: tuple[Member, ...]) -> tuple[PlannedCall, ...]:
    """One planned call for each sample of each member."""
    calls: list[PlannedCall] = []
    for number, member in enumerate(members, 1):
        name = member.id or f"m{number}"
        for sample in range(1, member.samples + 1):
            own = name if member.samples == 1 else f"{name}.{sample}"
            calls.append(PlannedCall(own, len(calls), sample, member))
    return tuple(calls)


def count_images(chat: ChatRequest, vision_by: str) -> int:
    """Images that bind the choice of members: those of the last user turn, or of the whole history."""
    if vision_by == "history":
        return sum(len(turn.images) for turn in chat.messages)
    turn = chat.last_turn
    return len(turn.images) if turn else 0


def cost_limit(settings: Combination, chat: ChatRequest) -> float | None:
    """What the run may cost, in the currency of the prices; None: as much as it does.

    Raises ``InvalidRequest`` for a wish that is above the combination's own limit.
    """
    wishes = _wishes(settings, chat)
    if "max_cost" not in wishes:
        return settings.max_cost
    wanted: float = _decode(wishes, "max_cost", float, "an amount of money")
    if not wanted > 0 or (settings.max_cost is not None and wanted > settings.max_cost):
        most = "" if settings.max_cost is None else f" and at most {settings.max_cost:g}"
        raise _wrong("max_cost", f"must be above 0{most}")
    return wanted


def refuse_overrides(chat: ChatRequest) -> None:
    """Refuse the ``antiphon`` field's keys for a plain model, which has nothing to override."""
    for key in chat.fields.antiphon or {}:
        raise _wrong(key, "has no use with a plain model; address a combination")


def tools_field(chat: ChatRequest) -> str | None:
    """The field in which the request brings tools; None if it brings none."""
    for field in ("tools", "functions"):
        raw = chat.json.raw(field)
        if raw is not None and raw.strip() not in (b"null", b"[]"):
            return field
    return None


def takes_tools(settings: Combination, strategy: str, field: str) -> bool:
    """Are tools, which came under this field's name, of use?"""
    if strategy in (*PASSING, "direct", "steps"):
        return True
    # What members call by the older field is relayed, and cannot be compared.
    agree = settings.tools == "agree" and field == "tools"
    return agree or (settings.tools == "summary" and strategy in _WRITING)


def members_call(plan: Plan) -> bool:
    """Do the members get the client's tools?"""
    return bool(plan.calls) and (plan.strategy in PASSING or plan.settings.tools == "agree")


def _refuse_what_it_cannot(chat: ChatRequest, settings: Combination, strategy: str) -> None:
    if chat.choices > 1 and strategy != "fallback":
        raise InvalidRequest(
            "A combination gives one answer; leave n out, or ask a plain model.",
            param="n",
            code="unsupported_parameter",
        )
    field = tools_field(chat)
    if field is not None and not takes_tools(settings, strategy, field):
        raise InvalidRequest(
            f"This combination does not take {field}; leave them out, or ask a plain model.",
            param=field,
            code="unsupported_parameter",
        )
    if strategy not in _VERBATIM and chat.messages and chat.messages[-1].role == "assistant":
        raise InvalidRequest(
            "The answer is written anew, so it cannot continue an assistant turn; end with a user turn.",
            param="messages",
            code="unsupported_parameter",
        )


def _wishes(settings: Combination, chat: ChatRequest) -> Mapping[str, Raw]:
    """The request's overrides, each known and open to requests."""
    wishes = chat.fields.antiphon or {}
    for key in wishes:
        if key not in KNOWN_OVERRIDES:
            raise _wrong(key, f"is not known; there is {', '.join((*settings.overridable, 'background'))}")
        if key not in settings.overridable:
            raise _wrong(key, f"may not be changed by a request to {settings.name}")
        if key not in _USED_BY_ONE.get(settings.strategy, KNOWN_OVERRIDES):
            raise _wrong(key, f"has no use with strategy {settings.strategy}")
    return wishes


def _strategy(settings: Combination, wishes: Mapping[str, Raw]) -> str:
    if "strategy" not in wishes:
        return settings.strategy
    wanted = _decode(wishes, "strategy", str, "a string")
    able = possible(settings)
    if wanted not in able:
        raise _wrong("strategy", f"must be one of {', '.join(able)} with {settings.name}")
    return str(wanted)


def possible(settings: Combination) -> list[str]:
    """The strategies that the combination's keys suffice for, its own first."""
    own = settings.strategy
    if own in ("direct", "steps"):
        return [own]
    able = ["all", "race", "fallback"]
    if settings.summary is not None:
        able += ["synthesize", "moa", "critique", "council"]
    if settings.summary is not None or settings.judge.model is not None:
        able.append("best_of")
    if settings.vote.type is not None:
        able.append("vote")
    if settings.cascade.accept != Accept():
        able.append("cascade")
    return [own, *(one for one in able if one != own)]


def writes(settings: Combination, strategy: str) -> bool:
    """May the summary model write the answer?"""
    return strategy in _WRITING or (strategy == "vote" and settings.vote.on_tie == "synthesize")


def _chosen(calls: tuple[PlannedCall, ...], wishes: Mapping[str, Raw]) -> tuple[PlannedCall, ...]:
    """The calls that the request wants, by the ids of members; an id covers all its samples."""
    if "members" not in wishes:
        return calls
    wanted: list[str] = _decode(wishes, "members", list[str], "a list of member ids")
    known = {call.id for call in calls} | {_member_id(call) for call in calls}
    for name in wanted:
        if name not in known:
            raise _wrong("members", f"names {name[:100]!r}; there is {', '.join(call.id for call in calls)}")
    chosen = [call for call in calls if call.id in wanted or _member_id(call) in wanted]
    if not chosen:
        raise _wrong("members", "must name at least one member")
    return tuple(msgspec.structs.replace(call, place=place) for place, call in enumerate(chosen))


def chosen_models(settings: Combination, chat: ChatRequest) -> list[str]:
    """The models and combinations that the request picks out by naming their members; unknown ids pass here.

    Raises ``InvalidRequest`` if ``antiphon.members`` is no list of ids.
    """
    wishes = chat.fields.antiphon or {}
    if "members" not in wishes:
        return []
    wanted: list[str] = _decode(wishes, "members", list[str], "a list of member ids")
    calls = (*expand(settings.members), *expand(settings.vision_members))
    return [call.model for call in calls if call.id in wanted or _member_id(call) in wanted]


def _member_id(call: PlannedCall) -> str:
    return call.id.removesuffix(f".{call.sample}") if call.member.samples > 1 else call.id


def _whole(wishes: Mapping[str, Raw], key: str, limit: int, *, least: int) -> int:
    if key not in wishes:
        return limit
    wanted: int = _decode(wishes, key, int, "an integer")
    if not least <= wanted <= limit:
        raise _wrong(key, f"must lie between {least} and {limit}")
    return wanted


def _seconds(wishes: Mapping[str, Raw], key: str, limit: float, *, above: bool = False) -> float:
    if key not in wishes:
        return limit
    wanted: float = _decode(wishes, key, float, "a number of seconds")
    if not 0 <= wanted <= limit or (above and not wanted):
        raise _wrong(key, f"must {'be above 0 and at most' if above else 'lie between 0 and'} {limit:g}")
    return wanted


def _decode(wishes: Mapping[str, Raw], key: str, kind: Any, words: str) -> Any:
    try:
        return msgspec.json.decode(wishes[key], type=kind)
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"antiphon.{key} must be {words}.", param=f"antiphon.{key}", code="invalid_type"
        ) from None


def _wrong(key: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"antiphon.{key[:100]} {what}.", param=f"antiphon.{key[:100]}")
