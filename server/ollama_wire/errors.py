"""The server's errors → ours: by status, and by its words where a status says too little."""

from __future__ import annotations

import msgspec

from server.errors import Overloaded, ServerError
from server.refusals import by_status, refused

NOT_PULLED = "model_not_pulled"
"""The ``upstream_code`` of an error that tells of a model which is not there."""
_CANNOT = ("does not support tools", "does not support thinking", "does not support", "is not supported")
_TOO_LONG = ("exceeds the context", "exceeds maximum context", "context length")


class _Body(msgspec.Struct):
    error: str = ""


def ollama_error(status: int, body: bytes, *, wait_s: float | None = None) -> ServerError:
    """A refusal, or an error in place of an answer (``status`` 200), as one of our errors."""
    said = _said(body)
    error = _error(status, said)
    error.upstream_status, error.upstream_said = status, said
    if wait_s is not None and error.status in (429, 503):
        error.retry_after_s = wait_s
    return error


def _said(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _error(status: int, said: str) -> ServerError:
    if ("model" in said and (status == 404 or "not found" in said)) or "pull model manifest" in said:
        missing = refused(
            404, "The upstream has not pulled this model; the operator must pull it.", "model_not_found"
        )
        missing.retryable = True  # on another channel
        missing.upstream_code = NOT_PULLED
        return missing
    if "server busy" in said:
        return Overloaded("The upstream is busy; try again later.")
    if status in (400, 413, 422):
        code = "context_length_exceeded" if any(word in said for word in _TOO_LONG) else None
        if any(word in said for word in _CANNOT):
            code = "unsupported_parameter"
        return refused(status, said, code)
    return by_status(status, said)
