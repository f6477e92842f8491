"""Our errors in Anthropic's shape."""

from __future__ import annotations

from typing import Any

import msgspec

from server.errors import ServerError

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: ServerError, request_id: str) -> bytes:
    """``{"type": "error", "error": {type, message, …}, "request_id"}``; code, param and details are ours."""
    kind = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    told: dict[str, Any] = {"type": kind, "message": error.message, "code": error.code}
    if error.param is not None:
        told["param"] = error.param
    if error.details:
        told["details"] = dict(error.details)
    return msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})
