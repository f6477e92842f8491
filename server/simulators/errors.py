"""Error answers in the shapes that upstreams were seen using, and the headers that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
import orjson

from server.simulators.script import Script

_WORDS: dict[int, tuple[str, str, str | None]] = {
    400: ("The request is not valid.", "invalid_request_error", "invalid_value"),
    401: ("Incorrect API key provided: sim-****.", "invalid_request_error", "invalid_api_key"),
    402: ("Insufficient Balance", "unknown_error", "invalid_request_error"),
    403: ("You are not allowed to use this model.", "permission_error", "model_not_allowed"),
    404: (
        "The model does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    408: ("The request timed out.", "timeout_error", "request_timeout"),
    409: ("The resource is being changed by another request.", "conflict_error", None),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    422: ("The request cannot be processed.", "invalid_request_error", None),
    429: ("Rate limit reached for requests per minute.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    502: ("Bad gateway.", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", "overloaded"),
    504: ("The upstream timed out.", "server_error", None),
    529: ("Overloaded", "overloaded_error", None),
}


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, before it takes a shape."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | int | None = None


class Refused(Exception):
    """A request that OpenAI would refuse; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def fault_of(script: Script) -> Fault:
    """The fault that a script tells. One inside a 200 speaks like a 500 unless it has words of its own."""
    status = script.status if script.status >= 400 else 500
    message, kind, code = _WORDS.get(status, _WORDS[500 if status >= 500 else 400])
    return Fault(
        status=status,
        message=message if script.error_message is None else script.error_message,
        type=kind if script.error_type is None else script.error_type,
        param=script.error_param,
        code=code if script.error_code is None else script.error_code,
    )


def named_fault(
    script: Script, default: int, words: Mapping[int, str], types: Mapping[int, str], *, otherwise: str
) -> Fault:
    """The fault that a script tells, with the words and the type that a dialect has for its status.

    Within a 200 it is one of status ``default``; ``otherwise`` is the type of a status without one.
    """
    status = script.status if script.status >= 400 else default
    message = words.get(status, "The simulator was told to fail.")
    return Fault(
        status,
        message if script.error_message is None else script.error_message,
        type=script.error_type or types.get(status, otherwise),
    )


def error_body(fault: Fault, script: Script | None = None) -> tuple[str, bytes]:
    """Media type and body of ``fault`` in the form that the script asks for; OpenAI's without one."""
    form = "openai" if script is None else script.error_form
    if form == "html":
        title = f"<head><title>{fault.status}</title></head>"
        return "text/html", f"<html>\n{title}\n<body><h1>{fault.message}</h1></body></html>\n".encode()
    if form == "empty":
        return "text/plain", b""
    extras = {"x_error": {"nested": [1, None]}} if script is not None and script.extras else {}
    return "application/json", orjson.dumps(_shape(form, fault, extras))


def _shape(form: str, fault: Fault, extras: dict[str, Any]) -> Any:
    number = fault.code if isinstance(fault.code, int) else fault.status
    error = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code, **extras}
    shapes: dict[str, Any] = {
        "openai": {"error": error},
        "integer": {"error": {**error, "code": number}},
        "text": {"error": fault.message},
        "flat": {"code": number, "message": fault.message, "data": None},
        "msg": {"code": number, "msg": fault.message},
        "codes": {"error_code": number, "error_msg": fault.message},
        "vllm": {"object": "error", **error, "code": number},
        "header": {"header": {"code": number, "message": fault.message, "sid": "sim0001"}},
        "base_resp": {"base_resp": {"status_code": number, "status_msg": fault.message}, "choices": None},
        "detail": {"detail": [{"loc": ["body", fault.param], "msg": fault.message, "type": fault.type}]},
        "array": [{"error": {"code": number, "message": fault.message, "status": "UNAVAILABLE", **extras}}],
        "string": fault.message,
        "chunk": {
            "id": "chatcmpl-sim",
            "object": "chat.completion.chunk",
            "error": {"code": number, "message": fault.message, **extras},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        },
    }
    return shapes[form]


def retry_headers(script: Script, now: datetime) -> list[tuple[str, str]]:
    """The headers that tell when to come again; a date is rounded down to its second."""
    seconds = script.retry_after
    if seconds is None:
        return []
    date = format_datetime(datetime.fromtimestamp(int(now.timestamp() + seconds), UTC), usegmt=True)
    forms = {
        "seconds": [("retry-after", f"{seconds:g}")],
        "date": [("retry-after", date)],
        "ms": [("retry-after-ms", f"{seconds * 1000:.0f}")],
        "both": [("retry-after", f"{seconds:g}"), ("retry-after-ms", f"{seconds * 1000:.0f}")],
    }
    return forms[script.retry_after_form]
