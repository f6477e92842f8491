"""Terminals and files without UTF-8: what of our signs they show instead."""

from __future__ import annotations

import codecs
import sys

_INSTEAD = str.maketrans(
    {
        "·": "-",
        "–": "-",
        "…": ">",
        "▸": ">",
        "✓": "+",
        "✗": "x",
        "↻": "r",
        "★": "*",
        **dict(zip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\||/-\\|", strict=True)),
    }
)


def make_do() -> None:
    """Have stdout and stderr show signs of one column for those of ours that they lack, ``?`` for others."""
    codecs.register_error("antiphon", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="antiphon")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end].translate(_INSTEAD)
    return "".join(sign if sign.isascii() else "?" for sign in lost), error.end
