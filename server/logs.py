"""How the server logs: one line an event to standard error, as text or JSON, without secrets."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

from server.settings import Logging

_SECRETS = re.compile(
    r"(?i)(?P<keep>\b(?:authorization|api[-_]?key|x-api-key|bearer|token|secret|signature)\b[\"']?\s*[:=]?\s*[\"']?)"
    r"(?:Bearer\s+)?[A-Za-z0-9+/=_.\-]{8,}"
    r"|(?P<url>\b(?:https?|wss?)://[^\s?\"']*)\?[^\s\"']*"
)


def redact(text: str) -> str:
    """``text`` without keys, and with URLs cut at their query (a signed URL can be replayed for minutes)."""
    return _SECRETS.sub(lambda match: f"{match['keep'] or match['url'] or ''}***", text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(f"{_time(record)} {record.levelname.lower()} {record.name}: {_message(self, record)}")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_message(self, record)),
        }
        return msgspec.json.encode(fields).decode(errors="replace")


def set_up_logging(settings: Logging) -> None:
    """Send all logging of the process to standard error. Libraries speak from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("antiphon", "server"):
        logging.getLogger(name).setLevel(settings.level.upper())


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.exc_info:
        message += "\n" + formatter.formatException(record.exc_info)
    return message
