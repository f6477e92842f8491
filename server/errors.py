"""One way to fail: every error that a client may see, with its status, type and stable code.

The table is that of ``docs/behaviour.md``. A foreign exception becomes one of these at the call that can
raise it; one middleware turns them into OpenAI's error body, and after the response has started the stream
writer sends the same body as an ``error`` event.

Messages are one English sentence that says what to do. They never hold a key, a URL, an address or a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_WAIT_S = 24 * 3600.0
"""Seconds: an upstream that asks for a longer wait is taken to ask for this."""


class ServerError(Exception):
    """Base of all errors of ours.

    ``status`` is the HTTP status while the response has not started, ``type`` OpenAI's family that clients
    branch on, ``code`` the stable name that logs, metrics and tests use. ``retry_after_s`` (seconds) goes out
    as ``retry-after``; ``details`` is added to the body as ``error.details``. ``upstream_status`` is what the
    upstream answered, if it answered at all. ``should_retry`` becomes ``x-should-retry`` when it is not None.
    """

    status = 500
    type = "server_error"
    code = "internal_error"
    # May another channel, or a later try, succeed where this one failed? Only before the first delta.
    retryable = False
    should_retry: bool | None = None
    # What an upstream that speaks OpenAI's dialect said, as it came: for who knows its own codes.
    upstream_code = ""
    upstream_type = ""
    upstream_said = ""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        upstream_status: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.upstream_status = upstream_status
        self.details = details
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class InvalidRequest(ServerError):
    """The client's request is at fault; nothing was sent upstream."""

    status, type, code = 400, "invalid_request_error", "invalid_value"


class AuthenticationError(ServerError):
    """No key, or not a good one: code says which (``missing_api_key``, ``invalid_api_key``, …)."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class NotAllowed(ServerError):
    """The key is good but may not do this."""

    status, type, code = 403, "permission_error", "model_not_allowed"


class ModelNotFound(ServerError):
    """No model or combination has this name."""

    status, type, code = 404, "invalid_request_error", "model_not_found"


class NotFound(ServerError):
    """No such path, run or other object."""

    status, type, code = 404, "invalid_request_error", "not_found"


class MethodNotAllowed(ServerError):
    """The path exists, the method does not; ``allow`` lists what does."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(ServerError):
    """The client was too slow to send its request."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class Conflict(ServerError):
    """The object is in a state that does not allow this."""

    status, type, code = 409, "invalid_request_error", "conflict"


class Gone(ServerError):
    """It existed, and is no longer to be had (an ended log, a cancelled run)."""

    status, type, code = 410, "invalid_request_error", "events_expired"


class RequestTooLarge(ServerError):
    """The body, counted inflated, is above the limit."""

    status, type, code = 413, "invalid_request_error", "request_too_large"


class UnsupportedMediaType(ServerError):
    """A form type, or a content encoding that is not read."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class RateLimited(ServerError):
    """Too many requests, by our own limit or by the upstream's."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"
    retryable = True


class InsufficientQuota(ServerError):
    """The budget of the key, or of the upstream's account, is spent. SDKs must not repeat it."""

    status, type, code = 429, "insufficient_quota", "insufficient_quota"
    retryable = True  # on another channel
    should_retry = False


class RunCancelled(ServerError):
    """Somebody who may has ended the run; 410, which SDKs do not repeat."""

    status, type, code = 410, "invalid_request_error", "run_cancelled"


class UpstreamError(ServerError):
    """The upstream failed; the client did nothing wrong."""

    status, code = 502, "upstream_error"
    retryable = True


class UpstreamAuth(UpstreamError):
    """The upstream refused the channel's credentials: the operator's trouble, never the client's 401."""

    code = "upstream_auth"
    should_retry = False


class UpstreamUnreachable(UpstreamError):
    """No connection: DNS, refusal, TLS, reset before an answer."""

    code = "upstream_unreachable"


class UpstreamCut(UpstreamError):
    """The answer ended before its finish reason."""

    code = "upstream_cut"


class UpstreamEmpty(UpstreamError):
    """A success without any content."""

    code = "upstream_empty"


class UpstreamInvalid(UpstreamError):
    """An answer that is not in the upstream's dialect."""

    code = "upstream_invalid"


class UpstreamRefused(ServerError):
    """The upstream judged the request at fault: its status, message, param and code go on."""

    status, type, code = 400, "invalid_request_error", "invalid_request_error"


class SurfaceNotOffered(ServerError):
    """The model has no channel that takes such requests, or the upstream does not know the path."""

    status, type, code = 400, "invalid_request_error", "surface_not_offered"
    retryable = True  # on another channel


class ContentFiltered(UpstreamRefused):
    """Moderation refused the request."""

    code = "content_filter"


class Overloaded(ServerError):
    """The upstream, or a queue of ours, is full."""

    status, code = 503, "overloaded"
    retryable = True


class ImagesBusy(ServerError):
    """Too many images are being fetched or made to fit. Ours is the queue: another channel is no help."""

    status, code = 503, "overloaded"


class NoChannel(ServerError):
    """Every channel of the model is cooling down, disabled or unable to serve."""

    status, code = 503, "no_channel"
    retryable = True


class ShuttingDown(ServerError):
    """The server drains; another one, or this one in a moment, will answer."""

    status, code = 503, "shutting_down"


class UpstreamTimeout(ServerError):
    """One of the four clocks of an upstream call ran out; ``clock`` is its name and ends the code."""

    status, code = 504, "upstream_timeout_total"
    retryable = True

    def __init__(self, clock: str, limit_s: float) -> None:
        words = {
            "connect": "could not be connected to within",
            "first_token": "said nothing for",
            "idle": "fell silent for",
            "total": "did not finish within",
        }[clock]
        super().__init__(
            f"The upstream {words} {limit_s:g} s; try again, or raise {clock}_s in the configuration.",
            code=f"upstream_timeout_{clock}",
        )
        self.clock = clock
        # The total clock covers retries too: when it is out there is no time left for another try.
        self.retryable = clock != "total"


class AllMembersFailed(ServerError):
    """A combination has no draft to answer from; ``details["members"]`` holds each member's code."""

    status, code = 502, "all_members_failed"
