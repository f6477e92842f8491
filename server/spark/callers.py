"""A caller's own Spark credentials: how its request's headers bring them, and what it is called.

``X_APP_ID``, ``X_API_KEY`` and ``X_API_SECRET``, with underscores as older gateways took them or with
hyphens, which proxies let through; or one ``Bearer APPID:KEY:SECRET``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from server.errors import AuthenticationError
from server.spark.signing import Credentials

CALLER = "spark-caller-"
"""What the names of such callers begin with."""
MAX_APP_ID = 8
"""Characters that the vendor gives an app id at most."""
_PARTS = ("app id", "API key", "API secret")
_HEADERS = ("X-APP-ID", "X-API-KEY", "X-API-SECRET")
# They stand within quotes in what is signed.
_VALUE = re.compile(r"[!#-~]{1,256}")


def credentials_from_headers(headers: Mapping[str, str]) -> Credentials | None:
    """The credentials in ``headers`` (whose names are read in any case); None if there are none.

    ``X-API-KEY`` alone is not among them: so an access key is sent. Raises ``AuthenticationError`` that names
    what is missing from a set, or is no credential.
    """
    given = app_id, key, secret = tuple(_header(headers, name) for name in _HEADERS)
    if not (app_id or secret or headers.get("X_API_KEY")):
        return None
    if missing := [name for name, value in zip(_HEADERS, given, strict=True) if not value]:
        raise AuthenticationError(
            f"Your Spark credentials lack {' and '.join(missing)}; send {', '.join(_HEADERS)} together.",
            code="missing_api_key",
        )
    for name, value in zip(_HEADERS, given, strict=True):
        if not _VALUE.fullmatch(value):
            raise AuthenticationError(f"{name} is no credential of Spark's; check it.")
    return Credentials(app_id, key, secret, callers_own=True)


def credentials_from_bearer(token: str | None) -> Credentials | None:
    """The credentials in ``APPID:KEY:SECRET``; None if it is something else.

    Raises ``AuthenticationError`` that names what is missing where a part of the three lacks or is empty.
    """
    parts = token.split(":") if token else []
    if not (2 <= len(parts) <= 3 and any(parts) and all(_VALUE.fullmatch(part) for part in parts if part)):
        return None
    if len(parts) == 2:
        # An app id is short, a key is long: KEY:SECRET is how Spark's HTTP routes are spoken to.
        parts = ["", *parts] if len(parts[0]) > MAX_APP_ID else [*parts, ""]
    if missing := [name for name, part in zip(_PARTS, parts, strict=True) if not part]:
        lacking = " and ".join(missing)
        raise AuthenticationError(
            f"Your Spark credentials lack the {lacking}; send APPID:KEY:SECRET, or an access key.",
            code="missing_api_key",
        )
    app_id, key, secret = parts
    return Credentials(app_id, key, secret, callers_own=True)


def caller_name(credentials: Credentials) -> str:
    """What stands for such a caller in logs and runs: the same for the same three, and nobody else's.

    Made with the secret as a key, so that it can neither be guessed nor be traced back.
    """
    said = f"antiphon\n{credentials.app_id}\n{credentials.api_key}".encode()
    return CALLER + hmac.new(credentials.api_secret.encode(), said, hashlib.sha256).hexdigest()[:24]


def _header(headers: Mapping[str, str], name: str) -> str:
    return (headers.get(name.replace("-", "_")) or headers.get(name) or "").strip()
