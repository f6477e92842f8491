"""The door of a simulated Spark: who may open a websocket, by the signature in its URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

import msgspec

CLOCK_TOLERANCE_S = 300.0
_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} "
    r"[0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|UTC)"
)
_FIELD = re.compile(r"""([A-Za-z_-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_NOT_VERIFIED = "HMAC signature cannot be verified"
_BAD_DATE = f"{_NOT_VERIFIED}, a valid date or x-date header is required for HMAC Authentication"


class SparkKey(msgspec.Struct, frozen=True):
    """What one application of the vendor's console has. ``password``: the bearer of the HTTP routes."""

    app_id: str = "simulate"
    key: str = "sim-key"
    secret: str = "sim-secret"  # noqa: S105
    password: str = "sim-password"  # noqa: S105

    def __repr__(self) -> str:
        return f"SparkKey({self.app_id!r})"


class Unverified(Exception):
    """A handshake that is refused: an HTTP status and a ``message``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def verify(method: str, target: str, keys: tuple[SparkKey, ...], now: float, *, observed: bool) -> SparkKey:
    """The application that signed a request; ``now`` in seconds since the epoch. Raises Unverified.

    What was signed is built anew from the query's ``host`` and ``date`` and the path as it came, so that
    any order, any blanks and either encoding of them will do. ``observed``: an unknown key is refused in
    the words that were seen, instead of the documented ones.
    """
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not query.get("authorization"):
        raise Unverified(401, "Unauthorized")
    fields = _authorization(query["authorization"])
    date, host = query.get("date", ""), query.get("host", "")
    _check_date(date, now)
    unknown = f"{_NOT_VERIFIED}: fail to retrieve credential" if observed else _NOT_VERIFIED
    named = fields.get("api_key", fields.get("username"))
    known = next((key for key in keys if key.key == named), None)
    if known is None or fields.get("algorithm", "").lower() != "hmac-sha256":
        raise Unverified(401, unknown)
    if "host" not in fields.get("headers", "").split() or not host:
        raise Unverified(401, f"{_NOT_VERIFIED}:enforced header 'host' not used for signature creation")
    origin = f"host: {host}\ndate: {date}\n{method} {parts.path} HTTP/1.1"
    digest = hmac.new(known.secret.encode(), origin.encode(), hashlib.sha256).digest()
    expected = base64.b64encode(digest)
    if not hmac.compare_digest(expected, fields.get("signature", "").encode()):
        raise Unverified(401, "HMAC signature does not match")
    return known


def _authorization(encoded: str) -> dict[str, str]:
    try:
        # A plus sign that was not percent-encoded has become a blank.
        origin = base64.b64decode(encoded.replace(" ", "+"), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise Unverified(401, _NOT_VERIFIED) from error
    fields = {found[1].lower(): found[2] or found[3] or "" for found in _FIELD.finditer(origin)}
    if not fields:
        raise Unverified(401, _NOT_VERIFIED)
    return fields


def _check_date(date: str, now: float) -> None:
    if not _DATE.fullmatch(date):
        raise Unverified(403, _BAD_DATE)
    try:
        signed = parsedate_to_datetime(date)
    except ValueError as error:  # such as the 31st of June
        raise Unverified(403, _BAD_DATE) from error
    if abs(signed.replace(tzinfo=UTC).timestamp() - now) > CLOCK_TOLERANCE_S:
        raise Unverified(403, _BAD_DATE)
