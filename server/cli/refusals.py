"""Why there is nothing to watch, in words for people; and which failures are worth another try."""

from __future__ import annotations

import json
import re
import socket
import ssl
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, WebSocketException

_PASSING = frozenset({429, 502, 503, 504})
_NEEDS_KEY = "needs a key: give --key, or better set ANTIPHON_KEY"
_CLOSED = {
    1002: "spoke against the websocket protocol",
    1007: "sent what is not UTF-8",
    1009: "found a message too large",
    4400: "did not understand this client",
    4406: "does not speak antiphon.events.v1",
    4409: "found the subscription twice",
}
"""Close codes after which coming back would change nothing. All that are not here are worth another try."""

_CODE = re.compile(r"[a-z0-9_]{1,64}")


class CannotWatch(Exception):
    """There is nothing to watch, and trying again would not help. The text tells people why.

    ``status`` is the exit status: 2 if the command was given wrongly.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def events_url(url: str) -> str:
    """The status channel's address on the server at ``url``, with or without ``/v1``.

    Raises ``CannotWatch`` for what is no address.
    """
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        _ = parts.port  # raises for what is no number
    except ValueError:
        raise CannotWatch(f"{url!r} is not an address such as http://127.0.0.1:18888", 2) from None
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise CannotWatch(f"{url!r} is not an address such as http://127.0.0.1:18888", 2)
    if "@" in parts.netloc:
        raise CannotWatch("A key does not belong into the address; set ANTIPHON_KEY.", 2)
    path = parts.path.rstrip("/").removesuffix("/events").removesuffix("/v1")
    return f"{scheme}://{parts.netloc}{path}/v1/events"


def headers_for(key: str | None) -> dict[str, str]:
    """The header that carries the key. Raises ``CannotWatch`` for what cannot be one."""
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise CannotWatch("The key has characters that no key has, such as a space at its end.", 2)
    return {"Authorization": f"Bearer {key}"}


def why_closed(server: str, closed: ConnectionClosed) -> str:
    """Why the connection ended, if it is worth coming back. Raises ``CannotWatch`` if not."""
    code = closed.rcvd.code if closed.rcvd is not None else 1006
    reason = f" ({closed.rcvd.reason})" if closed.rcvd is not None and closed.rcvd.reason else ""
    if code == 4401:
        raise CannotWatch(f"The server at {server} {_NEEDS_KEY}{reason}.")
    if code == 4403:
        raise CannotWatch(f"The server at {server} does not allow this{reason}.")
    if code in _CLOSED:
        raise CannotWatch(f"The server at {server} {_CLOSED[code]}{reason}.")
    if code == 1006:
        return "the connection was lost"
    return f"the server closed the connection with {code}{reason}"


def why_not_open(server: str, error: Exception, *, met: bool) -> str:
    """Why no connection came about, if another try may help. Raises ``CannotWatch`` if not."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in _PASSING:
            return f"the server answers {status}"
        if status == 401:
            raise CannotWatch(f"The server at {server} {_NEEDS_KEY}{_code_in(error)}.")
        if status == 403:
            raise CannotWatch(f"The server at {server} does not allow this{_code_in(error)}.")
        raise CannotWatch(f"{server} answers {status}: is it an Antiphon server, and the address right?")
    if isinstance(error, ssl.SSLCertVerificationError):
        raise CannotWatch(f"The certificate of {server} is not trusted: {error.verify_message}.")
    if isinstance(error, WebSocketException) and not isinstance(error, InvalidMessage | ConnectionClosed):
        raise CannotWatch(f"{server} cannot be watched: {error}")
    if met:
        return "the server does not answer" if isinstance(error, TimeoutError) else "the server is not there"
    if isinstance(error, TimeoutError):
        raise CannotWatch(f"{server} does not answer.")
    if isinstance(error, socket.gaierror):
        raise CannotWatch(f"No host is called {urlsplit(server).hostname}.")
    if isinstance(error, InvalidMessage):
        raise CannotWatch(f"What is at {server} does not speak HTTP.")
    raise CannotWatch(f"No server at {server}; start one with 'make run' or 'antiphon serve'.")


def _code_in(error: InvalidStatus) -> str:
    """The code in the body of a refusal, in brackets; nothing if there is none."""
    try:
        code = json.loads(error.response.body or b"")["error"]["code"]
    except (ValueError, LookupError, TypeError):
        return ""
    return f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""
