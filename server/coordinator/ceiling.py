"""What a run can cost at most, before it starts: who is asked within ``max_cost``, and who is not.

A call costs at most its prompt and the whole limit of its answer, which is the request's own or what the
model's context leaves. Where a price or a limit is unknown so is the ceiling, and nothing is invented.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from server.chat import ChatRequest
from server.coordinator.plan import Plan, tools_field
from server.coordinator.requests import draft_request
from server.errors import InvalidRequest, ModelNotFound
from server.prices import Units, money, units_of
from server.token_estimates import TOKENS_PER_TURN, tokens_of, tokens_of_bytes, tokens_of_turns
from server.upstreams.base import Upstream, prices_of

# The rules of a stage, and the tags around one draft.
_RULES_TOKENS = 400
_TAG_TOKENS = 40
# Of these the members' calls and the summary's are all that there are.
_PLAIN = frozenset({"direct", "synthesize", "vote", "race", "fallback", "all"})
# One member after the other: mostly the first is the only one that costs anything.
_IN_TURN = frozenset({"fallback", "cascade"})
# A lone draft is the answer, so that no summary is paid.
_LONE_IS_ANSWER = frozenset({"synthesize", "moa", "council"})

Models = Callable[[str], Upstream]


def too_dear() -> InvalidRequest:
    """What a client is told whose request cannot be answered within the limit."""
    return InvalidRequest(
        "This request may cost more than the limit that is set for it (max_cost); ask for fewer tokens "
        "(max_tokens) or send a shorter prompt.",
        code="cost_limit_exceeded",
    )


def most_of(models: Models, model: str, chat: ChatRequest, *, more_tokens: int | None = 0) -> Units | None:
    """What a call of ``model`` with this request costs at most; None if that is not known.

    ``more_tokens`` are those of the prompt that the request does not hold yet; None: nobody knows.
    """
    try:
        upstream = models(model)
    except ModelNotFound:
        return 0  # the call will fail without a word
    own: float | None = getattr(upstream, "max_cost", None)
    if own is not None:  # a combination, which keeps to a limit of its own
        return units_of(own)
    prices = prices_of(upstream)
    if prices is None or more_tokens is None:
        return None
    prompt = tokens_of_turns(chat.messages) + more_tokens
    if (field := tools_field(chat)) is not None:
        prompt += tokens_of_bytes(len(chat.json.raw(field) or b""))
    answer = _answer_tokens(upstream, chat, prompt)
    return None if answer is None else prices.most(prompt, answer * chat.choices)


def within(plan: Plan, chat: ChatRequest, models: Models, *, limit: Units | None) -> Plan:
    """The plan with its ceiling, and with as many members as fit within ``limit`` (None: all).

    Raises ``InvalidRequest`` (``cost_limit_exceeded``) if too few do, or if none may be left out.
    """
    if plan.model is not None:
        ceiling = most_of(models, plan.model, chat)
        if limit is not None and ceiling is not None and ceiling > limit:
            raise too_dear()
        return msgspec.structs.replace(plan, ceiling=_told(plan, ceiling, limit))
    requests = [draft_request(chat, plan, one, blind=False) for one in plan.calls]
    calls = [most_of(models, one.model, asked) for one, asked in zip(plan.calls, requests, strict=True)]
    limits = [_limit_of(models, one.model, asked) for one, asked in zip(plan.calls, requests, strict=True)]
    summaries = [_summary(plan, chat, models, limits[:count]) for count in range(len(calls) + 1)]

    def total(count: int) -> Units:
        return sum(one or 0 for one in calls[:count]) + (summaries[count] or 0)

    keep = len(calls)
    if limit is not None and total(keep) > limit:
        least = max(1, plan.min_success)
        if plan.settings.over_budget == "refuse" or not calls:
            raise too_dear()
        if plan.strategy in _IN_TURN:
            if all(one is not None and one > limit for one in calls):
                raise too_dear()
        else:
            keep = next((n for n in range(keep, least - 1, -1) if total(n) <= limit), 0)
            if not keep:
                raise too_dear()
    known = None not in calls and summaries[keep] is not None
    ceiling = total(len(calls) if plan.strategy in _IN_TURN else keep) if known else None
    return msgspec.structs.replace(
        plan,
        keep=keep,
        # Of fewer members, fewer are enough.
        quorum=plan.quorum if keep == len(calls) else _quorum(plan, keep),
        ceiling=_told(plan, ceiling, limit),
        max_cost=limit,
        summary_most=summaries[keep],
    )


def is_priced(plan: Plan, models: Models) -> bool:
    """Has any model of the plan a price? If not there is nothing to reckon."""
    names = {plan.model, plan.summary.model if plan.summary else None, *(one.model for one in plan.calls)}
    return any(_price_known(models, name) for name in names if name is not None)


def _quorum(plan: Plan, asked: int) -> int:
    return max(plan.min_success, min(plan.quorum, -(-2 * asked // 3)))


def _price_known(models: Models, model: str) -> bool:
    try:
        upstream = models(model)
    except ModelNotFound:
        return False
    return prices_of(upstream) is not None or getattr(upstream, "max_cost", None) is not None


def _summary(plan: Plan, chat: ChatRequest, models: Models, limits: Sequence[int | None]) -> Units | None:
    """What the summary of drafts of at most these lengths (tokens) costs at most; 0 if there is none."""
    if plan.summary is None:
        return 0
    if len(limits) == 1 and plan.strategy in _LONE_IS_ANSWER and plan.settings.tools != "summary":
        return 0
    tokens: int | None = _RULES_TOKENS + TOKENS_PER_TURN + tokens_of(plan.summary.prompt or "")
    for limit in limits:
        known = [one for one in (plan.summary.draft_tokens, limit) if one is not None]
        tokens = None if tokens is None or not known else tokens + _TAG_TOKENS + min(known)
    return most_of(models, plan.summary.model, chat, more_tokens=tokens)


def _limit_of(models: Models, model: str, chat: ChatRequest) -> int | None:
    """The most tokens that a draft may have; None if nobody says."""
    try:
        upstream = models(model)
    except ModelNotFound:
        return 0
    return _answer_tokens(upstream, chat, tokens_of_turns(chat.messages))


def _answer_tokens(upstream: Upstream, chat: ChatRequest, prompt: int) -> int | None:
    """The most tokens that an answer may have; None if nobody says."""
    context: int | None = getattr(upstream, "context_length", None)
    limits = [chat.max_tokens, None if context is None else max(0, context - prompt)]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _told(plan: Plan, ceiling: Units | None, limit: Units | None) -> float | None:
    """What ``run.created`` says."""
    summary = plan.summary
    plain = plan.strategy in _PLAIN and (summary is None or summary.mode == "direct" or not plan.calls)
    if ceiling is None or (not plain and limit is None):
        return None
    if limit is None:
        return money(ceiling)
    return money(min(ceiling, limit) if plain else limit)
