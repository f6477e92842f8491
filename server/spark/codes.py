"""Spark's codes and refused handshakes → our errors.

The table follows the vendor's code lists and what was seen on the wire. Codes decide; a message's text only
where one code stands for several things, and then by its stable words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from server.errors import (
    AuthenticationError,
    ContentFiltered,
    InsufficientQuota,
    ModelNotFound,
    NotAllowed,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)

_DATE = re.compile(r"\bdate\b", re.IGNORECASE)  # "update" is not meant
OK = 0
WARNED = 10019
"""Sent after all results: what was said tends to a violation, but may be shown."""
MODERATED = frozenset({10013, 10014, 10021, 10022})
WAIT_S = 1.0
_CLOCK = re.compile(r"\(\d+:\d+:\d+(?:\.\d+)?\)")  # stands in most messages
_MAX_SAID = 500  # characters of an upstream's words that are passed on


class Kind(msgspec.Struct, frozen=True):
    """How a code is told. ``words`` are ours and say what to do; ``wait_s`` is the least pause."""

    error: type[ServerError]
    words: str
    code: str | None = None
    status: int | None = None
    type: str | None = None
    retryable: bool | None = None
    wait_s: float | None = None


_BROKEN = Kind(UpstreamError, "Spark failed; try again later.")
_BUSY = Kind(Overloaded, "Spark is busy; try again later.", retryable=True)
_CALM = Kind(RateLimited, "Spark asks for fewer requests at once; try again in a moment.", wait_s=WAIT_S)
_FILTERED = Kind(ContentFiltered, "Spark's moderation refused the content; change it.")
_INVALID = Kind(UpstreamRefused, "Spark refused the request; correct it.", "invalid_request")
_PARAMETER = Kind(UpstreamRefused, "Spark refused a parameter; correct it.", "invalid_parameter")
_NO_MODEL = Kind(ModelNotFound, "Spark does not know this model at this address; check url and domain.")
_IMAGE = Kind(UpstreamRefused, "Spark refused the image's size; send one within its bounds.", "invalid_image")
_TOO_LONG = Kind(
    UpstreamRefused,
    "The messages are too long for this Spark model; shorten them.",
    "context_length_exceeded",
)
_DENIED = Kind(NotAllowed, "Spark does not allow this application the model or feature.", "permission_denied")
_NOT_ENABLED = Kind(
    NotAllowed,
    "This application has no licence for the Spark model; enable it in the console.",
    "model_not_enabled",
)
_QUOTA = Kind(InsufficientQuota, "This application's Spark tokens are used up; top them up.")
_DAILY = Kind(
    InsufficientQuota,
    "This application's Spark limit for today is reached; try again tomorrow.",
    type="rate_limit_error",
)
_SLOW = Kind(UpstreamTimeout, "Spark gave up waiting; try again later.", "upstream_timeout", retryable=True)
_CREDENTIALS = Kind(UpstreamAuth, "Spark refused the credentials.")
_UNKNOWN = Kind(UpstreamError, "Spark failed in a way that is not known here.", retryable=False)
_UNKNOWN_ENGINE = Kind(UpstreamError, "Spark's engine failed; try again later.", retryable=True)

CODES: Mapping[int, Kind] = {
    10000: _BROKEN,
    10001: _BROKEN,
    10002: _BROKEN,
    10003: _INVALID,
    10004: _INVALID,
    10005: _PARAMETER,
    10006: _CALM,
    10007: _CALM,
    10008: _BUSY,
    10009: _BROKEN,
    10010: _BUSY,
    10011: _BROKEN,
    10012: Kind(UpstreamError, "Spark's engine failed; try again later.", status=500),
    10013: _FILTERED,
    10014: _FILTERED,
    10015: Kind(NotAllowed, "Spark has blocked this application; ask the vendor.", "account_blocked"),
    10016: _DENIED,
    10017: Kind(UpstreamError, "Spark could not clear its history; try again.", status=500),
    10018: _SLOW,
    10019: _FILTERED,
    10021: _FILTERED,
    10022: _FILTERED,
    10029: _IMAGE,
    10041: _IMAGE,
    10110: _BUSY,
    10163: _PARAMETER,
    10222: _BROKEN,
    10223: _BUSY,
    10300: _SLOW,
    10313: _CREDENTIALS,
    10404: _NO_MODEL,
    10907: _TOO_LONG,
    11200: _NOT_ENABLED,
    11201: _DAILY,
    11202: _CALM,
    11203: _CALM,
    11210: _CALM,
    11221: _DENIED,
}


def _engine(said: str) -> Kind:
    """10012 wraps whatever the engine behind said."""
    said = _CLOCK.sub("", said)
    if any(word in said for word in ("context_window", "context length", "token limit", "max token")):
        return _TOO_LONG
    if "busy" in said or re.search(r"\b1105\b", said):
        return _BUSY
    if re.search(r"\b403\b", said):
        return _DENIED
    if re.search(r"\b400\b", said) or "bad param" in said or "invalid param" in said:
        return _INVALID
    return CODES[10012]


def _domain(said: str, otherwise: Kind) -> Kind:
    return _NO_MODEL if "domain" in said else otherwise


# Codes that stand for several things; the text is in lower case.
_BY_TEXT: Mapping[int, Callable[[str], Kind]] = {
    10003: lambda said: _domain(said, _INVALID),
    10004: lambda said: _domain(said, _INVALID),
    10005: lambda said: _NO_MODEL if "param model" in said else _PARAMETER,
    10012: _engine,
    10016: lambda said: _CALM if "concurren" in said or "并发" in said else _DENIED,
    11200: lambda said: _QUOTA if "tokens" in said else _NOT_ENABLED,
}


def kind_of(code: int, said: str = "") -> Kind:
    """How ``code`` with this ``header.message`` is told; unknown codes by their range."""
    if code in _BY_TEXT:
        return _BY_TEXT[code](said.lower())
    if code in CODES:
        return CODES[code]
    return _UNKNOWN_ENGINE if 10200 <= code < 10300 else _UNKNOWN


def frame_error(code: int, said: str, sid: str, *, callers_own: bool = False) -> ServerError:
    """An error frame as one of our errors; ``details`` keeps ``upstream_code`` and ``sid``."""
    kind = kind_of(code, said)
    error: ServerError
    if kind is _CREDENTIALS:
        error = credentials_refused(callers_own=callers_own)
    elif kind.error is UpstreamTimeout:
        error = UpstreamTimeout("total", 0)
        error.message = kind.words
    else:
        error = kind.error(kind.words)
    theirs = f"code {code}: {said[:_MAX_SAID]}" if said else f"code {code}"
    error.message = f"{error.message} ({theirs})"
    error.args = (error.message,)
    error.code = kind.code or error.code
    error.status = kind.status or error.status
    error.type = kind.type or error.type
    if kind.retryable is not None:
        error.retryable = kind.retryable
    error.retry_after_s = kind.wait_s
    error.details = {"upstream_code": code} | ({"sid": sid} if sid else {})
    return error


def credentials_refused(*, callers_own: bool) -> ServerError:
    """Spark does not accept who asks: the caller's 401, or the operator's 502 ``upstream_auth``."""
    if callers_own:
        return AuthenticationError("Spark refused your credentials; check app id, API key and API secret.")
    return UpstreamAuth("Spark refused the channel's credentials; the operator must mend them.")


def handshake_error(
    status: int, body: bytes, *, callers_own: bool = False, wait_s: float | None = None
) -> ServerError:
    """A refused upgrade as one of our errors. The body's own text is not passed on.

    ``wait_s``: so long the refusal asked to wait (seconds), if it did.

    A clock that is wrong is ours, whoever brought the credentials.
    """
    error: ServerError
    if is_clock_refusal(status, body):
        error = UpstreamAuth("Spark refused our clock (more than 300 s off); the operator must set it right.")
    elif status in (401, 403):
        error = credentials_refused(callers_own=callers_own)
    elif status == 429:
        wait_s = WAIT_S if wait_s is None else wait_s
        error = RateLimited("Spark asks for fewer connections; try again in a moment.", retry_after_s=wait_s)
    elif status == 503:
        error = Overloaded("Spark is busy; try again later.", retry_after_s=wait_s)
    elif status == 404:
        error = UpstreamError("Spark has nothing at this address; the operator must mend the model's url.")
    else:
        error = UpstreamError(f"Spark refused the connection with status {status}; try again later.")
    error.upstream_status = status
    return error


def is_clock_refusal(status: int, body: bytes) -> bool:
    """Was the upgrade refused for its date? One more try with Spark's own time may then do.

    The body is JSON whatever its content type says, or else plain text.
    """
    if status != 403:
        return False
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
        text = str(fields.get("message", ""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode(errors="replace")
    return _DATE.search(text) is not None
