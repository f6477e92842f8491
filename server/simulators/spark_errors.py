"""The error codes of Spark and the words that go with them, in frames and over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any

CODES: dict[int, tuple[str, str]] = {
    10000: ("UpgradeError", "upgrade to websocket failed"),
    10001: ("ReadMsgError", "read message from client failed"),
    10002: ("SendMsgError", "send message to client failed"),
    10003: ("ClientMsgError", "invalid message format"),
    10004: ("SchemaCheckError", "'$.header.app_id' is required; "),
    10005: ("RequestParamsError", "invalid param value"),
    10006: ("UserConnError", "user connection already exists"),
    10007: ("UserBusyError", "user is busy, the previous question is still running"),
    10008: ("CapacityError", "service capacity is not enough"),
    10009: ("ConnectEngineError", "cannot connect to the engine"),
    10010: ("RecvFromEngineError", "Engine Busy"),
    10011: ("SendToEngineError", "send to engine failed"),
    10012: ("EngineInternalError", "engine internal error"),
    10013: ("InputAuditError", "The input may violate the rules; please change it and ask again"),
    10014: ("OutputAuditError", "The answer may violate the rules and is withheld"),
    10015: ("AppIdBlackListError", "app_id is in the blacklist"),
    10016: ("AppIdAuthError", "app_id is not authorised"),
    10017: ("ClearHistoryError", "clearing the history failed"),
    10018: ("PingTimeoutError", "only pings for 5 minutes"),
    10019: ("AuditWarning", "The conversation tends to violate the rules"),
    10021: ("InputAuditError", "The input may violate the rules"),
    10022: ("ImageAuditError", "The picture may violate the rules"),
    10029: ("ImageSizeError", "image width or height exceeds 12800"),
    10041: ("ImageResolutionError", "image resolution must be between 50*50 and 6000*6000"),
    10110: ("ServiceIsBusyError", "Engine Busy"),
    10163: ("RequestParamsError", "'$.parameter.cbm' value is invalid"),
    10222: ("AbnormalNetworkError", "engine network abnormal"),
    10223: ("LoadBalanceError", "no engine node found"),
    10300: ("MomExpiredError", "mom expired"),
    10404: ("ModelNotFoundError", "model not found"),
    10907: ("TokensOverFlowError", "the tokens of history and question exceed the limit"),
    11200: ("AppIdNoAuthError", "tokens.total"),
    11201: ("AppIdDailyOverFlowError", "daily limit reached"),
    11202: ("AppIdQpsOverFlowError", "requests per second exceed the limit"),
    11203: ("AppIdConcOverFlowError", "concurrency exceeds the limit"),
    11210: ("NotEnoughCvError", "tokens per minute exceed the limit"),
    11221: ("ModelNoAuthError", "model not authorised"),
}

_WITHOUT_CLOCK = frozenset({10010, 10110})
_STATUS_400 = frozenset({10003, 10004, 10005, 10013, 10021, 10163, 10907})


class SparkFault(Exception):
    """A request that Spark refuses, by a code; ``detail`` is what stands behind the name of the error."""

    def __init__(self, code: int, detail: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def message_of(code: int, detail: str | None, now: datetime) -> str:
    """``Name:(HH:MM:SS.mmm) detail``, as Spark words it."""
    name, usual = CODES.get(code, ("UnknownError", "something went wrong"))
    said = usual if detail is None else detail
    if code in _WITHOUT_CLOCK and detail is None:
        return f"{name}:{said}"
    return f"{name}:({now:%H:%M:%S}.{now.microsecond // 1000:03}) {said}"


def error_frame(code: int, message: str, sid: str) -> dict[str, Any]:
    """The frame of an error: no payload."""
    return {"header": {"code": code, "message": message, "sid": sid, "status": 2}}


def http_status_of(code: int) -> int:
    """The HTTP status that a code was seen with; 500 for most."""
    return 400 if code in _STATUS_400 else 500


def http_error(code: int, message: str, sid: str) -> dict[str, Any]:
    """The body of an HTTP error."""
    if code == 10003:
        message = "invalid data"
    kind = "invalid_request_error" if http_status_of(code) == 400 else "api_error"
    return {"error": {"message": f"{message} (sid: {sid})", "type": kind, "param": None, "code": str(code)}}
