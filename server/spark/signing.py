"""The signed URL that opens a Spark websocket, and what a refusal says of our clock."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import quote, urlencode, urlsplit

import msgspec

_HEADERS = "host date request-line"


class Credentials(msgspec.Struct, frozen=True):
    """What Spark knows an application by; opaque text, all of it secret.

    ``callers_own``: they came with the client's request, so a refusal of them is the client's own 401; else
    they are the channel's and a refusal is the operator's trouble.
    """

    app_id: str
    api_key: str
    api_secret: str
    callers_own: bool = False

    def __repr__(self) -> str:
        return f"Credentials(callers_own={self.callers_own})"


def signed_url(endpoint: str, credentials: Credentials, at: datetime) -> str:
    """The URL to dial now: ``endpoint`` (ws or wss) with ``authorization``, ``date`` and ``host``.

    ``at`` is aware. Spark takes a URL for 300 seconds around ``at``, so each dial signs its own. The host is
    signed as it stands in ``endpoint``, a port included. Raises ``ValueError`` for a naive time.
    """
    if at.tzinfo is None:
        raise ValueError("the time of a signature needs a time zone")
    parts = urlsplit(endpoint)
    host = parts.netloc.rpartition("@")[2]
    path = quote(parts.path or "/", safe="/%:@!$&()*+,;=~")
    date = format_datetime(at.astimezone(UTC), usegmt=True)  # in English, whatever the locale
    signed = signature(credentials.api_secret, host=host, date=date, request_line=f"GET {path} HTTP/1.1")
    authorization = (
        f'api_key="{credentials.api_key}", algorithm="hmac-sha256", headers="{_HEADERS}", '
        f'signature="{signed}"'
    )
    query = urlencode(
        {"authorization": base64.b64encode(authorization.encode()).decode(), "date": date, "host": host}
    )
    return f"{parts.scheme}://{host}{path}?{query}"


def signature(secret: str, *, host: str, date: str, request_line: str) -> str:
    """Base64 of the HMAC-SHA256 of the three lines; the secret is taken as printed."""
    origin = f"host: {host}\ndate: {date}\n{request_line}"
    return base64.b64encode(hmac.new(secret.encode(), origin.encode(), hashlib.sha256).digest()).decode()


def clock_offset(date: str | None, at: datetime) -> timedelta | None:
    """How far Spark's clock is ahead of ours, by the ``Date`` header of an answer that came at ``at``.

    None if there is no date, or none that can be read.
    """
    try:
        theirs = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)) - at
