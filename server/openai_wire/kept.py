"""What of a chunk or completion clients of other dialects want, though no delta has a word for it.

Some must come back with the next request: signed thoughts (``thinking_blocks``), and what a vendor puts
beside a call (``extra_content``, in which Gemini has its thought signature). Clients of OpenAI's dialect see
it where it stands; encoders of other dialects find a place of their own for it, and for the sources of a text
(``annotations``).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

SEALED = "antiphon:"
"""Begins what ``sealed`` makes; base64 of JSON follows."""

_MARKS = (b'"thinking_blocks"', b'"extra_content"', b'"annotations"')


class _Call(msgspec.Struct):
    index: int | None = None
    extra_content: Any = None


class _Said(msgspec.Struct):
    thinking_blocks: list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    annotations: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    message: _Said | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_LIST = msgspec.json.Decoder(list[dict[str, Any]])


class Kept(msgspec.Struct, frozen=True):
    """Of the first choice: ``blocks`` of thoughts as they came, ``extras`` by the position of their call.

    ``sources`` are its annotations, in the form of chats.
    """

    blocks: list[dict[str, Any]]
    extras: dict[int, Any]
    sources: list[dict[str, Any]]


def kept_in(data: bytes) -> Kept | None:
    """What is to be kept of a chunk's or completion's JSON; None if there is nothing."""
    if _MARKS[0] not in data and _MARKS[1] not in data and _MARKS[2] not in data:
        return None
    try:
        choices = _CHUNK.decode(data).choices
    except msgspec.DecodeError:
        return None  # it only looked so: the words stand elsewhere, or in a form that is nobody's
    if not choices or (said := choices[0].delta or choices[0].message) is None:
        return None
    blocks = [
        {key: value for key, value in block.items() if key != "index"}  # which is ours, for clients that join
        for block in said.thinking_blocks or ()
    ]
    extras = {
        at if call.index is None else call.index: call.extra_content
        for at, call in enumerate(said.tool_calls or ())
        if call.extra_content
    }
    sources = said.annotations or []
    return Kept(blocks, extras, sources) if blocks or extras or sources else None


def sealed(things: list[dict[str, Any]]) -> str:
    """Things for nobody but us to read, as a text that a client gives back."""
    return SEALED + base64.b64encode(msgspec.json.encode(things)).decode()


def unsealed(text: str) -> list[dict[str, Any]] | None:
    """What ``sealed`` has made a text of; None for a text that it did not make. Raises ``ValueError``."""
    if not text.startswith(SEALED):
        return None
    try:
        return _LIST.decode(base64.b64decode(text[len(SEALED) :], validate=True))
    except (binascii.Error, msgspec.DecodeError):
        raise ValueError("it is not as it was given") from None
