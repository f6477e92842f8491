"""Our errors in Anthropic's shape."""

from __future__ import annotations

import json

import pytest

from server.errors import ServerError
from server.messages_wire import error_body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_each_status_has_its_type(status: int, kind: str) -> None:
    error = ServerError("Words.", status=status, code="c", param="p", details={"a": 1})
    assert json.loads(error_body(error, "req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "Words.", "code": "c", "param": "p", "details": {"a": 1}},
        "request_id": "req_1",
    }
