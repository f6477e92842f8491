"""Images in data URIs: what was sent inside the request, as bytes."""

from __future__ import annotations

import base64
import binascii
import re

from server.errors import InvalidRequest
from server.upstreams.image_head import image_type

_HEAD = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w.-]+=[^;,]*)*;base64\Z", re.IGNORECASE | re.ASCII)
_HEAD_LIMIT = 256  # characters; a media type with parameters is far shorter
_BLANKS = " \t\r\n"
_TO_STANDARD = str.maketrans("-_", "+/", _BLANKS)
# What some clients call them.
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp",
}


def decode_data_uri(uri: str, *, max_bytes: int, param: str) -> bytes:
    """The image's bytes; blanks, the URL-safe alphabet and missing padding are taken as they come.

    Raises InvalidRequest (``invalid_image_url``) that names ``param``: not base64, no image, a
    declared type that the first bytes deny, or more than ``max_bytes``, told before decoding.
    """
    comma = uri.find(",", 0, _HEAD_LIMIT)
    head = _HEAD.match(uri[:comma]) if comma >= 0 else None
    if head is None:
        raise _refused("must be given as data:image/png;base64,… or the like", param)
    # Counted before anything is copied; the padding counts for two bytes at most.
    length = len(uri) - comma - 1 - sum(uri.count(blank, comma) for blank in _BLANKS)
    if length * 3 // 4 > max_bytes + 2:
        raise _too_large(max_bytes, param)
    text = uri[comma + 1 :].translate(_TO_STANDARD).rstrip("=")
    if len(text) * 3 // 4 > max_bytes:
        raise _too_large(max_bytes, param)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused("is not valid base64; encode it anew", param) from error
    found = image_type(data)
    if found is None:
        raise _refused("is in no format that is known; send png or jpeg", param)
    declared = (head[1] or found).lower()
    if _ALIASES.get(declared, declared) != found:
        raise _refused(f"is {found} by its first bytes, not what its data URI declares", param)
    return data


def _too_large(max_bytes: int, param: str) -> InvalidRequest:
    return _refused(f"is larger than {max_bytes} bytes; send a smaller one", param)


def _refused(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"The image {what}.", param=param, code="invalid_image_url")
