"""What of a request and of settings is kept in a recording: neither credentials nor the bytes of files.

Some clients and vendors take credentials within the request, and ``params`` of a member are whatever an
operator writes. No call of a replay needs them, nor what an image looks like: only that there is one.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from server.chat import ChatRequest

# Of a field's name in small letters, without what divides its words: its end, or all of it.
_ENDS = ("apikey", "apikeys", "secret", "secrets", "token", "password", "passwords", "authorization")
_NAMES = frozenset({"auth", "bearer", "cookie", "credentials", "key", "passwd", "privatekey", "setcookie"})
_DIVIDERS = str.maketrans("", "", "-_. ")
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[\w=;.+-]*,", re.ASCII | re.IGNORECASE)
# Numbers stay as they were written, and those that no float can hold are no reason to fail.
_DECODER = msgspec.json.Decoder(float_hook=lambda digits: msgspec.Raw(digits.encode()))
_BYTES = ("b64_json", "data", "file_data")
LONG = 256
"""Characters of base64 that are no word any more."""


def request_without_secrets(chat: ChatRequest) -> ChatRequest:
    """``chat`` as it may be kept. Top-level fields that hold nothing of the kind stay byte for byte."""
    changes: dict[str, bytes | None] = {}
    for name in chat.json:
        before = _DECODER.decode(chat.json.raw(name) or b"null")
        if _is_secret(name, before):
            changes[name] = None
        elif (kept := without_secrets(before)) != before:
            changes[name] = msgspec.json.encode(kept)
    return chat.edit(changes) if changes else chat


def without_secrets(value: Any) -> Any:
    """JSON without credentials by their fields' names, credentials in addresses, and the bytes of files."""
    if isinstance(value, dict):
        return {
            name: _file_left_out(name, without_secrets(one))
            for name, one in value.items()
            if not _is_secret(name, one)
        }
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return value


def _is_secret(name: str, value: Any) -> bool:
    """Of a schema, a property may have such a name; it is an object then, and stays."""
    if not isinstance(value, str | list):
        return False
    word = name.lower().translate(_DIVIDERS)
    return word in _NAMES or word.endswith(_ENDS)


def _file_left_out(name: str, value: Any) -> Any:
    """What stands for a file or an address of one in a message's part."""
    if not isinstance(value, str):
        return value
    if name == "url" or name in _BYTES:
        if (head := _DATA_URI.match(value)) is not None:
            return head[0]
        if value[:8].lower().startswith(("http://", "https://")):
            return _address(value)
    return "" if name in _BYTES and len(value) > LONG else value


def _address(url: str) -> str:
    """Without a user's name, and without what signs it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
