"""JSON in the texts of models: bare, in a fence, or after prose."""

from __future__ import annotations

import json
import re
from itertools import chain, islice
from typing import Any

from server.openai_wire.json_text import is_too_deep

_FENCED = re.compile(r"```[a-zA-Z]*[ \t\r]*\n(.*?)```", re.DOTALL)
# Prose may hold braces of its own; so many of them, and fences, are tried.
_TRIES = 20


class NoJson(ValueError):
    """There is no JSON value in the text."""


def find_json(text: str) -> Any:
    """The text's JSON: all of it, else that of a fence, else the first object or list within.

    Raises ``NoJson``, also for what nests absurdly: whoever reads it goes down into it step by step.
    """
    fenced = (match[1] for match in islice(_FENCED.finditer(text), _TRIES))
    for candidate in chain([text], fenced):
        try:
            return _decode(candidate.strip())
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder(parse_constant=_refuse)
    for match in islice(re.finditer(r"[\[{]", text), _TRIES):
        start = match.start()
        try:
            value, end = decoder.raw_decode(text, start)
            _refuse_depth(text[start:end])
            return value
        except (ValueError, RecursionError):
            continue
    raise NoJson("no JSON")


def find_object(text: str) -> dict[str, Any]:
    """The JSON object of a text. Raises ``NoJson`` if there is none."""
    found = find_json(text)
    if not isinstance(found, dict):
        raise NoJson("no JSON object")
    return found


def canonical(value: Any) -> str:
    """A JSON value in the one way of writing it that equal values share."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case _:
            return value


def _decode(text: str) -> Any:
    _refuse_depth(text)
    return json.loads(text, parse_constant=_refuse)


def _refuse_depth(text: str) -> None:
    if is_too_deep(text.encode("utf-8", "replace")):
        raise ValueError("too deep")


def _refuse(word: str) -> Any:
    raise ValueError(word)
