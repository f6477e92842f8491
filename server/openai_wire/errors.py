"""Errors on OpenAI's wire, both ways: ours as a body, an upstream's answer as one of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from server.errors import (
    MAX_WAIT_S,
    ContentFiltered,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamRefused,
)
from server.refusals import bad_credentials, by_status, no_quota

_SECRETS = re.compile(
    r"(?:https?|wss?)://\S+"  # URLs, signed ones too
    r"|\b(?:sk|pk|key|ak)-[A-Za-z0-9*_\-.]{6,}"  # keys, also shortened by the upstream
    r"|\bBearer\s+\S+"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"  # addresses
    r"|\[?(?:[0-9a-fA-F]{1,4}:){3,}[0-9a-fA-F:]*\]?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\s*[+-]?[0-9]+(?:\.[0-9]*)?\s*")
_MODERATION = ("content_filter", "content_policy_violation", "data_inspection_failed", "sensitive")
_QUOTA = ("insufficient_quota", "arrearage", "exceeded_current_quota_error", "1113", "1008")
# Codes and types that speak of the key that was sent, which is the channel's.
_BAD_KEY = frozenset(
    {"invalid_api_key", "missing_api_key", "expired_api_key", "disabled_api_key", "incorrect_api_key_error"}
    | {"authentication_error", "invalid_authentication_error", "invalidapikey", "unauthorized"}
)
_TOO_LONG = {
    "context_length_exceeded": "context_length_exceeded",
    "exceed_context_size_error": "context_length_exceeded",  # llama.cpp's type; its code is the number 400
    "string_above_max_length": "string_above_max_length",
}
# Servers at home tell it in words alone, with the status as its code: vLLM, SGLang, LM Studio, old llama.cpp.
_TOO_LONG_WORDS = re.compile(
    r"maximum context length (?:is|of) \d"
    r"|longer than the (?:model's context length|maximum model length of \d)"
    r"|context length is only \d"
    r"|exceeds? the available context size"
    r"|keep the first \d+ tokens .{0,80}context (?:the )?overflows",
    re.IGNORECASE,
)
MAX_MESSAGE = 2000


def error_body(error: ServerError) -> bytes:
    """The JSON body of an error: ``{"error": {message, type, param, code, details?}}``."""
    fields: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.details:
        fields["details"] = dict(error.details)
    return msgspec.json.encode({"error": fields})


def error_event(error: ServerError) -> bytes:
    """The SSE event that ends a stream which failed after its first delta; no ``[DONE]`` follows it."""
    return b"data: " + error_body(error) + b"\n\n"


def error_headers(error: ServerError) -> dict[str, str]:
    """Headers that go with an error's status: how long to wait, and whether to repeat at all."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        wait = max(0.0, error.retry_after_s)
        headers["Retry-After"] = str(int(-(-wait // 1)))
        headers["Retry-After-Ms"] = str(int(wait * 1000))
    elif error.should_retry is not None:
        headers["X-Should-Retry"] = "true" if error.should_retry else "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="antiphon"'
    return headers


def retry_after(headers: Mapping[str, str], *, now: Callable[[], float]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``Retry-After`` (seconds or a date); None if not said.

    ``now`` gives the Unix time against which a date is read; a time in the past is 0. At most ``MAX_WAIT_S``.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, MAX_WAIT_S)
    value = headers.get("retry-after")
    if value is None:
        return None  # or garbage stood there alone
    wait_s = _number(value)
    if wait_s is None:  # not seconds: perhaps a date
        try:
            wait_s = max(0.0, parsedate_to_datetime(value).timestamp() - now())
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(wait_s, MAX_WAIT_S)


def _number(text: str) -> float | None:
    """A number as headers may hold it, 0 for negative ones; None for what only Python takes for one (inf)."""
    return max(0.0, float(text)) if _NUMBER.fullmatch(text) else None


class _Fault(msgspec.Struct):
    """An upstream's error, whatever form it came in."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int | None = None


def upstream_error(
    status: int,
    body: bytes,
    *,
    wait_s: float | None = None,
    secrets: tuple[str, ...] = (),
    names: Mapping[str, str] | None = None,
) -> ServerError:
    """An upstream's error answer → one of ours, by the table in ``docs/behaviour.md``.

    ``wait_s`` is its ``Retry-After``. ``secrets`` are removed from what is passed on, and so are URLs, keys
    and addresses; ``names`` maps the upstream's model name to the public one.
    """
    fault = _read_fault(body)
    told = status if status >= 400 else fault.status if fault else None  # None: inside a 200, without its own
    status = told or _status_of(fault)
    kind = _classify(status, fault)
    error = kind(fault, status)
    if told is None and kind is _broken:
        error.message = "The upstream sent an error in place of its answer; try again later."
    error.upstream_status = status
    if fault is not None:
        error.upstream_code, error.upstream_type = fault.code, fault.type
        error.upstream_said = fault.message
    if wait_s is not None and error.status in (429, 503):
        error.retry_after_s = wait_s
    error.message = clean(error.message, secrets=secrets, names=names)
    return error


def is_error_object(value: object) -> bool:
    """Does this JSON object, received with a 200, tell of an error?"""
    if not isinstance(value, dict) or value.get("choices") is not None:
        return False
    if value.get("error"):
        return True
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return True
    return "code" in value and ("msg" in value or "message" in value) and value["code"] not in (0, "0", 200)


def clean(text: str, *, secrets: tuple[str, ...] = (), names: Mapping[str, str] | None = None) -> str:
    """A message without keys, URLs and addresses, in the public model names, of bounded length."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    text = _SECRETS.sub("***", text)
    for theirs, public in (names or {}).items():
        if theirs != public:
            pattern = rf"(?<![\w/.-]){re.escape(theirs)}(?![\w/-])"
            text = public.join(re.split(pattern, text))
    return text[:MAX_MESSAGE]


def clean_error(error: ServerError, *, secrets: tuple[str, ...], names: Mapping[str, str]) -> None:
    """Clean all that an upstream may have put into ``error``: message, type, code and param."""
    error.message = clean(error.message, secrets=secrets, names=names)
    if clean(error.code, secrets=secrets) != error.code:
        error.code = type(error).code
    if clean(error.type, secrets=secrets) != error.type:
        error.type = type(error).type
    if error.param is not None and clean(error.param, secrets=secrets) != error.param:
        error.param = None


def _read_fault(body: bytes) -> _Fault | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        return _Fault(message=value)
    if not isinstance(value, dict):
        return None
    inner = value.get("error")
    if isinstance(inner, str):
        return _Fault(message=inner, code=_text(value.get("code")))
    if isinstance(inner, dict):
        return _fault_of(inner)
    if isinstance(base := value.get("base_resp"), dict):
        return _Fault(message=_text(base.get("status_msg")), code=_text(base.get("status_code")))
    if isinstance(header := value.get("header"), dict):
        return _fault_of(header)
    return _fault_of(value)


def _fault_of(fields: dict[str, Any]) -> _Fault | None:
    if isinstance(inner := fields.get("message"), dict):
        fields = {**fields, **inner}
    if isinstance(faults := fields.get("detail"), list) and faults and isinstance(faults[0], dict):
        return _field_at_fault(faults[0])
    message = next(
        (
            fields[key]
            for key in ("message", "msg", "error_msg", "detail")
            if isinstance(fields.get(key), str)
        ),
        "",
    )
    code = fields.get("code", fields.get("error_code"))
    number = code if isinstance(code, int) and 400 <= code <= 599 else None
    param = fields.get("param")
    fault = _Fault(message, _text(fields.get("type")), _text(code), param if isinstance(param, str) else None)
    fault.status = number
    return fault if message or fault.code or fault.type else None


def _field_at_fault(detail: dict[str, Any]) -> _Fault:
    """The first fault of a request that was checked field by field, as FastAPI and pydantic tell it."""
    steps = detail.get("loc")
    place = [str(step) for step in steps if isinstance(step, str | int)] if isinstance(steps, list) else []
    param = ".".join(place[1:] if place[:1] == ["body"] else place)
    message = _text(detail.get("msg"))
    return _Fault(f"{param}: {message}" if param and message else message, param=param or None)


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _status_of(fault: _Fault | None) -> int:
    """A status for an error that came inside a 200."""
    if fault is None:
        return 502
    words = f"{fault.type} {fault.code}".lower()
    if "invalid_request" in words or any(code in words for code in (*_TOO_LONG, *_MODERATION)):
        return 400
    if any(code in words for code in _QUOTA):
        return 402
    if "auth" in words or "api_key" in words:
        return 401
    if "rate_limit" in words:
        return 429
    if "overloaded" in words or "unavailable" in words:
        return 503
    return 502


def _classify(status: int, fault: _Fault | None) -> Callable[[_Fault | None, int], ServerError]:
    words = f"{fault.type} {fault.code}".lower() if fault else ""
    if status in (400, 401, 402, 403) and any(code in words for code in _MODERATION):
        return _moderated
    if status == 402 or (status in (400, 403, 429) and any(code in words.split() for code in _QUOTA)):
        return _quota
    # A client that read of a bad key would throw its own good one away, whatever the status.
    if status in (401, 403, 407) or (status < 500 and not _BAD_KEY.isdisjoint(words.split())):
        return _auth
    if status == 429:
        return _rate_limited
    if status in (400, 413, 422) or (
        status == 404 and "model" in f"{words} {fault.message if fault else ''}".lower()
    ):
        return _refused
    if status in (503, 529, 498):
        return _overloaded
    if status in (408, 504):
        return _too_slow
    return _broken


def _moderated(fault: _Fault | None, status: int) -> ServerError:
    return ContentFiltered(
        _said(fault, "The upstream's moderation refused the request."), param=_param(fault)
    )


def _quota(fault: _Fault | None, status: int) -> ServerError:
    return no_quota()


def _auth(fault: _Fault | None, status: int) -> ServerError:
    return bad_credentials(status)


def _rate_limited(fault: _Fault | None, status: int) -> ServerError:
    code = fault.code if fault and fault.code and not fault.code.isdigit() else None
    return RateLimited(
        _said(fault, "The upstream asks for fewer requests; try again later."), code=code, param=_param(fault)
    )


def _refused(fault: _Fault | None, status: int) -> ServerError:
    words = f"{fault.type} {fault.code}".lower() if fault else ""
    code = next((code for word, code in _TOO_LONG.items() if word in words), fault.code if fault else "")
    if fault and (not code or code.isdigit()) and _TOO_LONG_WORDS.search(fault.message[:MAX_MESSAGE]):
        code = "context_length_exceeded"
    error = UpstreamRefused(
        _said(fault, f"The upstream refused the request with status {status}."),
        param=_param(fault),
        status=status,
        code=code or ("model_not_found" if status == 404 else None),
    )
    if fault and fault.type:
        error.type = fault.type
    return error


def _overloaded(fault: _Fault | None, status: int) -> ServerError:
    return Overloaded(f"The upstream is busy (status {status}); try again later.")


def _too_slow(fault: _Fault | None, status: int) -> ServerError:
    return by_status(status)


def _broken(fault: _Fault | None, status: int) -> ServerError:
    return by_status(status)


def _said(fault: _Fault | None, otherwise: str) -> str:
    return fault.message if fault and fault.message.strip() else otherwise


def _param(fault: _Fault | None) -> str | None:
    return fault.param if fault else None
