"""The service's errors → ours: by status, and by type where one comes inside a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from server.errors import MAX_WAIT_S, ServerError
from server.refusals import bad_credentials, by_status, no_quota, refused

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_QUOTA = ("credit balance is too low", "reached your specified api usage limits", "spend limit")


class Fault(msgspec.Struct):
    """The inner object of an error."""

    type: str = ""
    message: str = ""


class _Body(msgspec.Struct):
    error: Fault


_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_BODY = msgspec.json.Decoder(_Body)


def anthropic_error(status: int, body: bytes, *, wait_s: float | None = None) -> ServerError:
    """The error that an answer with ``status`` stands for; ``wait_s`` is its ``Retry-After``, in seconds."""
    try:
        fault = _BODY.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fault = Fault()  # a proxy's page: the status must do
    return fault_error(fault, status, wait_s=wait_s)


def limit_reset(headers: Mapping[str, str], *, now: Callable[[], float]) -> float | None:
    """Seconds until every limit that is used up has been reset; None where none is said to be used up.

    It stands in for a ``Retry-After`` that is missing. ``now`` gives the Unix time. Source: the vendor's page
    on rate limits (``anthropic-ratelimit-…-remaining`` and ``-reset``, the latter as RFC 3339).
    """
    waits_s = []
    for limit in _LIMITS:
        if headers.get(f"anthropic-ratelimit-{limit}-remaining") != "0":
            continue
        try:
            at = datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{limit}-reset", ""))
            waits_s.append(at.timestamp() - now())
        except (ValueError, OverflowError):
            continue  # it is no time
    return min(max(0.0, *waits_s), MAX_WAIT_S) if waits_s else None


def fault_error(fault: Fault, status: int | None = None, *, wait_s: float | None = None) -> ServerError:
    """The error that ``fault`` stands for. ``status`` None: it came inside an answer, its type tells all."""
    if status is None:
        status = _STATUS.get(fault.type, 500)
    error = _error(fault, status)
    error.upstream_status = status
    if wait_s is not None and error.status in (429, 503):
        error.retry_after_s = wait_s
    return error


def _error(fault: Fault, status: int) -> ServerError:
    said = fault.message.strip()
    words = said.lower()
    if status in (400, 403, 429) and any(phrase in words for phrase in _QUOTA):
        return no_quota()
    if fault.type == "authentication_error" and status < 500:
        return bad_credentials(status)
    if status in (400, 413, 422):
        return _refused(said, status)
    if status == 404 and "model" in words:
        return refused(404, said, "model_not_found")
    return by_status(status, said)


def _refused(said: str, status: int) -> ServerError:
    code = None
    if "prompt is too long" in said.lower():
        code = "context_length_exceeded"
    elif status == 413:
        code = "request_too_large"
    return refused(status, said, code)
