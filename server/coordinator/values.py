"""The answer inside a draft, taken out and written in one way, so that answers can be counted.

Two drafts agree if their values are the same text: digits, units, case, Unicode forms, dates and the order of
JSON keys make no difference. A draft without such a value has none (None).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from server.coordinator.loose_json import NoJson, canonical, find_json
from server.strategy_settings import Vote

MAX_TEXT = 100_000
MAX_VALUE = 2000

_NUMBER = re.compile(r"[-−+]?\d[\d,'’_  ]*(?:\.\d+)?(?:[eE][-+]?\d+)?|[-−+]?\.\d+")
_CHOICE = re.compile(r"(?<![A-Za-z0-9])\(?([A-Za-z])\)?(?![A-Za-z0-9'’])")
_LABEL = re.compile(
    r"^(?:the\s+)?(?:final\s+)?(?:answer|result|solution|答案|结果|最终答案)\s*(?:is|是|为)?\s*[:=]?\s*",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[*_`#$]|\\boxed|\\text|[{}\\]")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DATES = (
    (re.compile(r"(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})"), (0, 1, 2)),
    (re.compile(r"(\d{1,2})\.\s*(\d{1,2})\.\s*(\d{4})"), (2, 1, 0)),
    (re.compile(r"(\d{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?([A-Za-z]{3,9})\.?,?\s+(\d{4})"), (2, 1, 0)),
    (re.compile(r"([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})"), (2, 0, 1)),
)


def value_of(text: str, vote: Vote) -> str | None:
    """The draft's answer as ``vote`` extracts it, normalised; None if there is none to be found."""
    text = text[-MAX_TEXT:]
    kind = vote.type or "string"
    found = _extract(text, vote.extract, kind)
    if found is None:
        return None
    if not isinstance(found, str):
        found = found if kind == "json" else canonical(found).strip('"')
    value = _NORMALISE[kind](found)
    return value[:MAX_VALUE] if value else None


def _extract(text: str, how: str, kind: str) -> Any:
    if how == "last_line":
        if kind == "json":
            return text
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else None
    if how.startswith("$"):
        try:
            return _walk(find_json(text), how)
        except (NoJson, LookupError, TypeError):
            return None
    found = list(re.finditer(how, text, re.MULTILINE))
    if not found:
        return None
    return found[-1][1] if found[-1].re.groups else found[-1][0]


def _walk(value: Any, path: str) -> Any:
    """The value at ``$.a.b[0]``. Raises LookupError or TypeError where there is none."""
    for name, place in re.findall(r"\.([^.\[\]]+)|\[(-?\d+)\]", path):
        value = value[name] if name else value[int(place)]
    return value


def _plain(text: str) -> str:
    """One line in one Unicode form, without the marks of Markdown and LaTeX and without "Answer:"."""
    text = unicodedata.normalize("NFKC", text)
    text = " ".join(_MARKS.sub(" ", text).split())
    return _LABEL.sub("", text).strip(" .。:;,，!?\"'")


def _number(text: str) -> str | None:
    found = _NUMBER.findall(_plain(text))
    if not found:
        return None
    digits = re.sub(r"[,'’_\s]", "", found[-1]).replace("−", "-")
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return None
    if number and abs(number.adjusted()) > 100:
        return _scientific(number)
    plain = f"{number:f}" if number else "0"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain.removeprefix("+")


def _scientific(number: Decimal) -> str:
    """All of its digits but zeros at their end. Arithmetic would round them, and refuse large exponents."""
    sign, digits, exponent = number.as_tuple()
    whole = "".join(map(str, digits))
    kept = whole.rstrip("0")
    return f"{'-' if sign else ''}{kept}E{int(exponent) + len(whole) - len(kept)}"


def _choice(text: str) -> str | None:
    plain = _plain(text)
    if not plain:
        return None
    # "a" and "I" are words as well as choices: capitals and brackets go first.
    found = [match for match in _CHOICE.finditer(plain) if match[1].isupper() or match[0].startswith("(")]
    found = found or (list(_CHOICE.finditer(plain)) if len(plain) <= 3 else [])
    if found:
        return found[-1][1].upper()
    return plain.casefold() if len(plain) <= 100 else None


def _date(text: str) -> str | None:
    plain = unicodedata.normalize("NFKC", text)
    for pattern, order in _DATES:
        for match in reversed(list(pattern.finditer(plain))):
            year, month, day = (match.groups()[place] for place in order)
            if not month.isdigit():
                if month[:3].lower() not in _MONTHS:
                    continue
                month = str(_MONTHS.index(month[:3].lower()) + 1)
            try:
                return date(int(year), int(month), int(day)).isoformat()
            except ValueError:
                continue
    return None


def _string(text: str) -> str | None:
    return _plain(text).casefold() or None


def _json(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            value = find_json(value)
        except NoJson:
            return None
    return canonical(value)


_NORMALISE: Mapping[str, Callable[[Any], str | None]] = {
    "number": _number,
    "choice": _choice,
    "date": _date,
    "string": _string,
    "json": _json,
}
