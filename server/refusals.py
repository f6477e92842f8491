"""What a status means where an upstream's dialect says no more: our errors, in the same words for all."""

from __future__ import annotations

from server.errors import (
    InsufficientQuota,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)


def by_status(status: int, said: str = "") -> ServerError:
    """The error for a status that blames no request; ``said`` is what the upstream says of its limit."""
    if status == 402:
        return no_quota()
    if status in (401, 403, 407):
        return bad_credentials(status)
    if status == 429:
        return RateLimited(said or "The upstream asks for fewer requests; try again later.")
    if status in (503, 529):
        return Overloaded(f"The upstream is busy (status {status}); try again later.")
    if status in (408, 504):
        return gave_up(f"The upstream gave up waiting (status {status}); try again later.")
    if status == 404:
        return UpstreamError(
            "The upstream has nothing at the channel's address (status 404); the operator must mend it."
        )
    return UpstreamError(f"The upstream failed with status {status}; try again later.")


def no_quota() -> InsufficientQuota:
    """The operator's account is used up, with whatever status that is told."""
    return InsufficientQuota("The upstream account has no quota left; the operator must top it up.")


def bad_credentials(status: int) -> UpstreamAuth:
    """The channel's key is not taken, with whatever status that is told."""
    return UpstreamAuth(
        f"The upstream refused the channel's credentials (status {status}); the operator must mend them."
    )


def refused(status: int, said: str, code: str | None) -> UpstreamRefused:
    """The request cannot be carried out, which ``said`` explains; ``code`` None: as the status has it."""
    message = said or f"The upstream refused the request with status {status}."
    return UpstreamRefused(message, status=status, code=code)


def gave_up(message: str) -> UpstreamTimeout:
    """The upstream's own patience has ended, and none of our clocks: another try may do."""
    error = UpstreamTimeout("total", 0)
    error.message = message
    error.code = "upstream_timeout"
    error.retryable = True
    return error
