"""What each strategy wants of a combination's keys, and what it has no use for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from server.config_checks import Findings
from server.config_yaml import Path
from server.settings import Combination
from server.strategy_settings import Accept

ONE_MODEL = frozenset({"direct", "steps"})
"""Strategies that ask one model, and so have no members."""
NO_QUORUM = frozenset({"race", "fallback", "cascade"})
"""Strategies that take the first good answer and wait for no quorum."""

_NEEDS_SUMMARY = frozenset({"synthesize", "moa", "critique", "council"})
_DRAFTING = (
    "quorum",
    "grace_s",
    "min_success",
    "partial_drafts",
    "partial_min_chars",
    "max_members",
    "order",
    "draft_max_tokens",
)
_PANEL = ("members", "vision_members", "summary", "vision_summary")
_WRITER = ("summary", "vision_summary")
# Keys that a strategy has no use for: those that show a misunderstanding, and those that do no harm.
_REFUSED: Mapping[str, tuple[str, ...]] = {"direct": _PANEL, "steps": _PANEL}
_IDLE: Mapping[str, tuple[str, ...]] = {
    "direct": _DRAFTING,
    "steps": _DRAFTING,
    "all": (*_WRITER, "order"),
    "race": (*_WRITER, "order", "quorum", "grace_s"),
    "fallback": (*_WRITER, "order", "quorum", "grace_s"),
    "cascade": ("quorum", "grace_s"),
}
_OWN_KEYS = ("vote", "best_of", "race", "fallback", "cascade", "moa", "critique", "council", "steps")
# What the server itself calls the calls that are no member's.
_OUR_IDS = re.compile(r"(?:summary|judge|critic|revision|step)(?:\..*)?|.*\.(?:r\d+|rank)")


def check_keys(found: Findings, one: Combination) -> None:
    """No key is set that the strategy does not use."""
    path = found.path(one)
    for key in _REFUSED.get(one.strategy, ("model", "vision_model")):
        if found.given((*path, key)):
            other = "direct" if one.strategy not in ONE_MODEL else "synthesize"
            found.wrong((*path, key), f"strategy {one.strategy} does not use it; strategy {other} does")
    for key in _IDLE.get(one.strategy, ()):
        if found.given((*path, key)):
            found.doubt((*path, key), f"strategy {one.strategy} does not use it")
    chosen_later = one.strategy not in ONE_MODEL and "strategy" in one.overridable
    for key in _OWN_KEYS:
        if key != one.strategy and not chosen_later and found.given((*path, key)):
            found.doubt((*path, key), f"strategy {one.strategy} does not use it")


def check_strategy(found: Findings, one: Combination) -> None:
    """The strategy has what it needs."""
    path, strategy = found.path(one), one.strategy
    if strategy in _NEEDS_SUMMARY and one.summary is None and not found.excused(path, "summary"):
        found.wrong((*path, "summary"), f"is missing: strategy {strategy} wants a summary with its model")
    judged = one.summary is not None or one.judge.model is not None
    if strategy == "best_of" and not judged and not found.excused(path, "judge"):
        found.wrong((*path, "judge"), "is missing: strategy best_of wants a judge with its model")
    if strategy == "vote" and one.vote.type is None and not found.broken((*path, "vote")):
        found.wrong(
            (*path, "vote", "type"),
            "is missing: strategy vote wants to know what is counted: number, choice, date, string or json",
        )
    _check_vote(found, one)
    _check_accept(found, one)


def check_id(found: Findings, path: Path, id: str) -> None:
    """A member does not bear the name of one of the server's own calls."""
    if _OUR_IDS.fullmatch(id):
        found.wrong(path, f"is a name of the server's own calls; give the member another id than {id}")


def references(one: Combination) -> Iterator[tuple[Path, str]]:
    """Where (below the combination) a strategy's own keys name which model."""
    for steps, name in (
        (("judge", "model"), one.judge.model),
        (("critique", "critic"), one.critique.critic),
        (("council", "chair"), one.council.chair),
    ):
        if name is not None:
            yield steps, name


def _check_vote(found: Findings, one: Combination) -> None:
    path, vote = (*found.path(one), "vote"), one.vote
    if not vote.extract.startswith("$") and vote.extract != "last_line":
        _check_pattern(found, (*path, "extract"), vote.extract)
    elif vote.extract.startswith("$") and not re.fullmatch(r"\$(?:\.[^.\[\]]+|\[-?\d+\])*", vote.extract):
        found.wrong((*path, "extract"), "is no JSON path of the kind $.answer or $.a[0].b")
    if vote.on_tie == "synthesize" and one.summary is None and not found.broken((*path[:-1], "summary")):
        found.wrong((*path, "on_tie"), "wants a summary that decides")
    unequal = len({member.weight for member in one.members}) > 1
    if one.strategy == "vote" and vote.weights == "equal" and unequal:
        found.doubt(
            (*path, "weights"), "an equal vote over members of unequal weight can lose to the best of them"
        )


def _check_accept(found: Findings, one: Combination) -> None:
    path, accept = (*found.path(one), "cascade", "accept"), one.cascade.accept
    if one.strategy == "cascade" and accept == Accept() and not found.broken(path[:-1]):
        found.wrong(path, "is missing: strategy cascade wants a test: regex, json_schema, agree or score")
    if accept.regex is not None:
        _check_pattern(found, (*path, "regex"), accept.regex)
    calls = sum(member.samples for member in one.members)
    if accept.agree is not None and calls and accept.agree > calls:
        found.wrong((*path, "agree"), f"is above the number of calls, {calls}: it could never be reached")
    judged = one.judge.model is not None or one.summary is not None
    if accept.score is not None and not judged:
        found.wrong((*path, "score"), "wants a judge with its model")


def _check_pattern(found: Findings, path: Path, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        found.wrong(path, f"is no regular expression: {error}")
