"""How much of drafts and history fits into the context of the model that writes the answer.

The drafts give way first, in their middles; then old turns; the system text and the request never. All
figures are estimates in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from server.chat import ChatRequest
from server.coordinator.outcomes import Draft
from server.coordinator.prompts import RULES, history_of, limit_of
from server.coordinator.turns import SYSTEM_ROLES, turns_of
from server.settings import Summary
from server.token_estimates import tokens_of, tokens_of_turns

# A draft shorter than this says too little to be weighed against another.
LEAST_DRAFT = 128
# What the tags of one draft cost, and the words around all of them.
TAGS = 90
WORDS = 60
# Estimates may be wrong by a tenth before a context overflows.
MARGIN = 0.9


class Fit(msgspec.Struct, frozen=True):
    """``drafts`` to show, each of at most ``draft_tokens``, after ``history`` turns; None: all of it."""

    drafts: tuple[Draft, ...]
    draft_tokens: int | None = None
    history: int | None = None


def fit(chat: ChatRequest, drafts: Sequence[Draft], summary: Summary, context: int | None) -> Fit | None:
    """What to show where the model has ``context`` tokens (None: not known, all is shown).

    None if there is no room for two of several drafts.
    """
    limit = summary.draft_tokens
    if context is None:
        return Fit(tuple(drafts), limit)
    turns = turns_of(chat.raw_messages(), chat.messages)
    asked = turns.pop() if turns and turns[-1].view.role == "user" else None
    kept = history_of(turns, limit_of(summary, None))
    old = [turn for turn in kept if turn.view.role not in SYSTEM_ROLES]
    fixed = [turn.view for turn in kept if turn.view.role in SYSTEM_ROLES]
    fixed += [asked.view] if asked else []
    answer = min(chat.max_tokens or summary.params.get("max_tokens") or context // 4, context // 2)
    room = int(context * MARGIN) - answer - WORDS
    room -= tokens_of_turns(fixed) + tokens_of(summary.prompt or RULES) + TAGS * len(drafts)
    sizes = [min(tokens_of(draft.text), limit or context) for draft in drafts]
    before = tokens_of_turns(turn.view for turn in old)
    for history in range(len(old), -1, -1):
        left = room - before
        if history:
            before -= tokens_of_turns([old[-history].view])
        turns_kept = None if history == len(old) else history
        if sum(sizes) <= left:
            return Fit(tuple(drafts), limit, turns_kept)
        share = left // len(drafts)
        if share >= LEAST_DRAFT:
            return Fit(tuple(drafts), min(share, limit or share), turns_kept)
    count = max((room + TAGS * len(drafts)) // (LEAST_DRAFT + TAGS), 0)
    if len(drafts) > 1 and count < 2:
        return None
    strongest = sorted(drafts, key=lambda draft: (-draft.complete, -draft.call.member.weight))
    return Fit(tuple(strongest[: max(count, 1)]), min(LEAST_DRAFT, limit or LEAST_DRAFT), 0)
