"""How long a model is to think, in the words of OpenAI or of Anthropic → the vendor's ``thinkingConfig``."""

from __future__ import annotations

from typing import Any

import msgspec

from server.chat import ChatRequest
from server.foreign import decoded, plain_key, wrong
from server.gemini_wire.models import GeminiModel

_LEVELS = {
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
# Tokens to think with, as the vendor's own OpenAI mode has them.
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
# What a budget of at most so many tokens is where only levels are known.
_LEVEL_OF = ((1024, "minimal"), (4096, "low"), (16384, "medium"))
# The field that brings the wish, by the words for it.
FIELDS = ("reasoning_effort", "thinking", "output_config")


class _Wish(msgspec.Struct, frozen=True):
    """``effort``: ``none``, one of the levels, or None for as long as the model likes; or a ``budget``."""

    field: str
    effort: str | None = None
    budget: int | None = None


def thinking_config(chat: ChatRequest, model: GeminiModel, warnings: list[str]) -> dict[str, Any] | None:
    """``thinkingConfig``, or None where nothing is to be said. What cannot be had is told in ``warnings``.

    Raises ``InvalidRequest`` for a wish that nobody can read.
    """
    wish = _wish(chat, warnings)
    if wish is None:
        return None
    if model.thinking == "no":
        if wish.effort != "none":
            warnings.append(f"{wish.field} was left out: the model is not known to think")
        return None
    if wish.effort == "none":
        if model.can_rest and model.thinking == "budget":
            return {"thinkingBudget": 0}
        warnings.append(f"{wish.field} was raised to the least: this model always thinks")
    config: dict[str, Any] = {"includeThoughts": wish.effort != "none"}
    if wish.budget is not None and model.thinking == "budget":
        config["thinkingBudget"] = wish.budget
        return config
    level = _level(wish, model)
    if wish.budget is not None:
        warnings.append("thinking.budget_tokens was changed to a level: this model takes no number")
    elif level is not None and wish.effort not in ("none", level):
        warnings.append(f"{wish.field} was changed to {level}")
    if level is not None and model.thinking == "level":
        config["thinkingLevel"] = level
    elif level is not None:
        config["thinkingBudget"] = _BUDGETS[level]
    return config


def _level(wish: _Wish, model: GeminiModel) -> str | None:
    if wish.budget is not None:
        level = next((level for most, level in _LEVEL_OF if wish.budget <= most), "high")
    elif wish.effort is None:
        return None
    else:
        level = _LEVELS.get(wish.effort, "minimal")
    return model.least_level if level == "minimal" else level


def _wish(chat: ChatRequest, warnings: list[str]) -> _Wish | None:
    """What the client wants; OpenAI's word goes before Anthropic's."""
    effort = decoded(chat, "reasoning_effort")
    if effort is not None:
        warnings += [f"{key} was left out: reasoning_effort is there" for key in FIELDS[1:] if chat.has(key)]
        return _Wish("reasoning_effort", _effort(effort, "reasoning_effort"))
    thinking = decoded(chat, "thinking")
    config = decoded(chat, "output_config")
    config = config if isinstance(config, dict) else {}
    asked = config.get("effort")
    warnings += [f"output_config.{plain_key(key)} was left out" for key in config if key != "effort"]
    if isinstance(thinking, dict):
        others = (key for key in thinking if key not in ("type", "budget_tokens"))
        warnings += [f"thinking.{plain_key(key)} was left out" for key in others]
    if thinking is None:
        return None if asked is None else _Wish("output_config", _effort(asked, "output_config.effort"))
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind == "disabled":
        return _Wish("thinking", "none")
    if kind == "adaptive":
        return _Wish("thinking", None if asked is None else _effort(asked, "output_config.effort"))
    budget = thinking.get("budget_tokens") if kind == "enabled" else None
    if type(budget) is not int or budget < 1:
        raise wrong(
            "thinking", "must be enabled with budget_tokens, or adaptive, or disabled", "invalid_value"
        )
    return _Wish("thinking", budget=budget)


def _effort(effort: object, param: str) -> str:
    if effort != "none" and (not isinstance(effort, str) or effort not in _LEVELS):
        raise wrong(param, "must be none, minimal, low, medium, high, xhigh or max", "invalid_value")
    return str(effort)
