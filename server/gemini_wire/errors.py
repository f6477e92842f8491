"""The service's errors → ours: by status, by its name (google.rpc.Code), and by what the details tell."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from msgspec import Raw

from server.errors import MAX_WAIT_S, ServerError
from server.refusals import bad_credentials, by_status, no_quota, refused

_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_QUOTA = ("credits are depleted", "spending cap", "billing account")
_BAD_KEY = ("API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "ACCESS_TOKEN_EXPIRED")
_TOO_LONG = ("exceeds the maximum number of tokens", "input token count")
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


class Fault(msgspec.Struct):
    """The inner object of an error, a google.rpc.Status with the name of its code."""

    code: Any = None
    message: str = ""
    status: str = ""
    details: Raw = Raw()

    def told(self) -> list[dict[str, Any]]:
        """The details that can be read."""
        try:
            found = msgspec.json.decode(self.details)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class _Body(msgspec.Struct):
    error: Fault


_BODY = msgspec.json.Decoder(_Body | list[_Body])


def gemini_error(status: int, body: bytes, *, wait_s: float | None = None) -> ServerError:
    """The error that an answer with ``status`` stands for; ``wait_s`` is its ``Retry-After``, in seconds."""
    try:
        read = _BODY.decode(body)
        fault = (read[0] if isinstance(read, list) else read).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
        fault = Fault()  # a proxy's page: the status must do
    return fault_error(fault, status, wait_s=wait_s)


def fault_error(fault: Fault, status: int | None = None, *, wait_s: float | None = None) -> ServerError:
    """The error that ``fault`` stands for. ``status`` None: it came inside an answer and tells all itself."""
    if status is None:
        named = fault.code if type(fault.code) is int and 400 <= fault.code < 600 else 500
        status = _STATUS.get(fault.status, named)
    details = fault.told()
    error = _error(fault, status, details)
    error.upstream_status = status
    if error.status in (429, 503):
        error.retry_after_s = _retry_delay(details) if wait_s is None else wait_s
    return error


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """The time of a google.rpc.RetryInfo, in seconds; at most ``MAX_WAIT_S``."""
    for one in details:
        if str(one.get("@type", "")).endswith("google.rpc.RetryInfo"):
            spelled = _DELAY.fullmatch(str(one.get("retryDelay", "")))
            return min(math.ceil(float(spelled[1]) * 1000) / 1000, MAX_WAIT_S) if spelled else None
    return None


def _error(fault: Fault, status: int, details: list[dict[str, Any]]) -> ServerError:
    said = fault.message.strip()
    words = said.lower()
    bad_key = any(one.get("reason") in _BAD_KEY for one in details) or "api key not valid" in words
    bad_key |= fault.status == "UNAUTHENTICATED" and status < 500
    if status == 402 or (status in (400, 403, 429) and any(phrase in words for phrase in _QUOTA)):
        return no_quota()
    if bad_key or (status == 400 and fault.status == "FAILED_PRECONDITION"):
        return bad_credentials(status)
    if status in (400, 413, 422):
        return _refused(words, said, status)
    if status == 404 and "model" in words:
        return refused(404, said, "model_not_found")
    return by_status(status, said)


def _refused(words: str, said: str, status: int) -> ServerError:
    code = None
    if any(phrase in words for phrase in _TOO_LONG):
        code = "context_length_exceeded"
    elif status == 413 or "payload size exceeds the limit" in words:
        status, code = 413, "request_too_large"
    return refused(status, said, code)
