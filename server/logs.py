"""How the server logs: one line an event to standard error, as text or JSON, without secrets."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

from server.settings import Logging

# What ends a value: blanks, quotes and what separates fields. Within quotes only their end does.
_VALUE = r"[^\s\"'`,;&<>)\]}\\]"
_QUOTED = rf"(?:(?<=\")(?:[^\"\\\r\n]|\\.)+|(?<=')(?:[^'\\\r\n]|\\.)+|{_VALUE}+)"
_IS = r"[\"']?\s{0,3}[:=]\s{0,3}(?:b(?=[\"']))?[\"']?"
_SCHEME = r"(?:bearer|basic|digest|token|apikey)\s"
_SECRETS = re.compile(
    # A URL: who logs in by it, and its query (a signed one can be replayed for minutes).
    r"(?P<scheme>\b[a-z][a-z0-9+.\-]{1,20}://)(?P<user>[^\s\"'/?#]*@)?(?P<place>[^\s\"'`?<>]*)"
    r"(?P<query>\?[^\s\"'`<>]*)?"
    # A field that is named after a secret: a header, a keyword, JSON or a repr. Prose about it is no value.
    r"|(?P<name>(?:authorization|api[-_ ]?key|app[-_]?key|secret|passw(?:or)?d|credentials?)"
    rf"(?!: (?!{_SCHEME})(?-i:[a-z]+ [a-z])){_IS})(?:{_SCHEME}\s*)?{_QUOTED}"
    rf"|(?P<cookie>cookie{_IS})[^\"'\r\n]+"
    # The same of names that prose knows too: there a value is long, and more than a word.
    rf"|(?P<word>(?:token|signature|(?<=[?&])key|(?<=[?&])sig){_IS})(?![a-z]+(?!{_VALUE})){_VALUE}{{8,}}"
    rf"|(?P<bearer>\bBearer\s+){_VALUE}{{4,}}"
    # Keys by their looks.
    r"|\b(?:sk|pk|rk|ak|gsk|xai|hf|ghp|tvly|pplx|r8)[-_](?=[\w\-]{0,40}\d)[\w\-]{8,}"
    r"|\bAIza[\w\-]{20,}|\beyJ[\w\-]{8,}\.[\w\-]+\.[\w\-]*",
    re.IGNORECASE,
)
# What would begin a new line, or steer a terminal: an upstream's words must not forge a line of ours.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """``text`` without keys, and with URLs without their user and query.

    It knows secrets by the names and shapes that they have; a bare value of no known shape is not one to it.
    """
    return _SECRETS.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    if match["scheme"]:
        user, query = "***@" if match["user"] else "", "?***" if match["query"] else ""
        return f"{match['scheme']}{user}{match['place']}{query}"
    return f"{match['name'] or match['cookie'] or match['word'] or match['bearer'] or ''}***"


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
        return msgspec.json.encode(fields).decode()


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
    message = _UNPRINTABLE.sub(_escaped, record.getMessage())
    if record.exc_info:
        trace = formatter.formatException(record.exc_info)
        message += "\n" + trace.encode(errors="backslashreplace").decode()
    return message


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
