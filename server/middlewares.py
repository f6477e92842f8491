"""What happens around every handler: its record, the limits, who asks, and errors as JSON.

``attend`` is the one middleware: each further layer would be one more coroutine to pass on every await. What
it does has a function each: the record (request id, accounts), ``_let_in`` (draining, host and origin, key,
size), ``_explained`` (every failure becomes one JSON body), and the headers common to all answers. A handler
whose answer's head leaves within it sends that by ``send_head``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from server import messages_wire
from server.accounting import Record
from server.app_keys import ACCOUNTS, CREDENTIALS, CURRENT, METRICS, PRINCIPAL, RECORD, SNAPSHOT, Snapshot
from server.auth import Principal, key_from_headers
from server.errors import (
    AuthenticationError,
    InvalidRequest,
    MethodNotAllowed,
    NotAllowed,
    NotFound,
    RequestTooLarge,
    ServerError,
    ShuttingDown,
    UnsupportedMediaType,
)
from server.ids import RandomIds
from server.openai_wire import error_body, error_headers
from server.spark.callers import caller_name, credentials_from_bearer, credentials_from_headers

log = logging.getLogger("antiphon.http")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Callable[..., object])

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_random_id = RandomIds(12)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
_JSON = ("", "application/json")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}  # which no origin tells
_NOT_OFFERED = {
    "conversations": "Conversations are",
    "assistants": "Assistants are",
    "threads": "Threads are",
    "files": "Files are",
    "batches": "Batches are",
    "realtime": "Realtime sessions are",
}  # what clients ask for by default or by habit, by the first part of the path
REQUEST_ID_THERE = "Request-Id"
"""Where Anthropic's clients look for the request's id."""
_EXPOSED = ", ".join(
    (
        "x-request-id, request-id, x-run-id, retry-after, retry-after-ms, x-should-retry",
        "x-antiphon-overhead-ms",
        "x-antiphon-level, x-antiphon-attempts, x-antiphon-warnings, x-antiphon-cache, "
        "x-ratelimit-limit-requests, x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    )
)
_ALLOWED_HEADERS = ("authorization", "content-type", "x-api-key", "x-request-id", "x-run-id")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")


def needs_no_key(handler: H) -> H:
    """Mark a handler that anybody may call (health)."""
    handler.access = "open"  # type: ignore[attr-defined]
    return handler


def authenticates_later(handler: H) -> H:
    """Mark a handler that looks for a key itself when the headers bring none (the websocket)."""
    handler.access = "late"  # type: ignore[attr-defined]
    return handler


def takes_forms(handler: H) -> H:
    """Mark a handler that takes forms with files, which may be larger than other bodies."""
    handler.forms = True  # type: ignore[attr-defined]
    return handler


def _takes_forms(request: web.Request) -> bool:
    return getattr(request.match_info.handler, "forms", False)


@web.middleware
async def attend(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request in, have it carried out or tell what failed, and hand its record to the accounts."""
    app = request.app
    current, metrics = app[CURRENT], app[METRICS]
    snapshot = request[SNAPSHOT] = current.snapshot
    route = request.match_info.route.resource
    given = request.headers.get("x-request-id")
    record = request[RECORD] = Record(
        wall=time.time(),
        started=time.monotonic(),  # the loop's own clock ticks in milliseconds under uvloop
        method=request.method if request.method in _METHODS else "OTHER",
        route=route.canonical if route is not None else await _nearest_route(request),
        status=499,
        request_id=given if given and _REQUEST_ID.fullmatch(given) else f"req_{_random_id()}",
        total_s=0,
    )
    metrics.in_flight += 1
    try:
        try:
            if request.method == "OPTIONS":
                response: web.StreamResponse = _preflight(request)
            else:
                _let_in(request, snapshot, record, draining=current.draining)
                response = await handler(request)
        except Exception as error:  # noqa: BLE001 - the one edge, where a bug is logged
            response = _explained(request, error)
        record.status = response.status
        if not response.prepared:
            _add_headers(request, response, snapshot, record)
        return response
    except asyncio.CancelledError:
        record.gone = record.status == 499  # a watcher that was let in may leave as it likes
        raise
    finally:
        metrics.in_flight -= 1
        record.total_s = time.monotonic() - record.started
        app[ACCOUNTS].add(record)


async def send_head(request: web.Request, response: web.StreamResponse) -> None:
    """Send the head of an answer that begins within its handler, with the headers that every answer has."""
    _add_headers(request, response, request[SNAPSHOT], request[RECORD])
    await response.prepare(request)


async def _nearest_route(request: web.Request) -> str:
    """The route whose path was asked for by another method; ``unmatched`` if there is none."""
    if isinstance(request.match_info.http_exception, web.HTTPMethodNotAllowed):
        for resource in request.app.router.resources():
            if (await resource.resolve(request))[1]:
                return resource.canonical
    return "unmatched"


def _explained(request: web.Request, error: Exception) -> web.Response:
    """Whatever a handler raised as OpenAI's error body; nothing of ours leaks."""
    if isinstance(error, ServerError):
        return error_response(request, error)
    if isinstance(error, web.HTTPException):
        return error_response(request, _from_aiohttp(request, error))
    if isinstance(error, ConnectionResetError):
        raise asyncio.CancelledError from None  # the client left while we wrote: nobody is there to tell
    # A bug is logged with its traceback and told without it.
    log.error("request %s failed", request[RECORD].request_id, exc_info=error)
    return error_response(
        request, ServerError("The server failed; the operator finds the cause under the request id.")
    )


def error_response(request: web.Request, error: ServerError) -> web.Response:
    """The answer that tells of an error, in the dialect of its route, and its place in the record."""
    record = request[RECORD]
    record.code = error.code
    if _first_part(request.path) == "messages":
        record.id_header = REQUEST_ID_THERE
        body = messages_wire.error_body(error, record.request_id)
    else:
        body = error_body(error)
    response = web.Response(
        status=error.status,
        body=body,
        headers=error_headers(error),
        content_type="application/json",
    )
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = error.allow
    if error.status in (408, 413):
        response.force_close()
    return response


def _first_part(path: str) -> str:
    """The first part of a path behind ``/v1``."""
    return path.removeprefix("/v1").strip("/").partition("/")[0]


def _let_in(request: web.Request, snapshot: Snapshot, record: Record, *, draining: bool) -> None:
    """Let in whoever may come in, before anything of the body is read. Raises ``ServerError`` for others."""
    match = request.match_info
    access = getattr(match.handler, "access", None)
    if draining and access != "open":
        raise ShuttingDown("The server is shutting down; try again in a moment.", retry_after_s=2)
    if snapshot.keyring.open:
        _check_local(request, snapshot, watching=access == "late")
    if access != "open":
        principal = _authenticate(request, snapshot, late=access == "late")
        if principal is not None:
            request[PRINCIPAL] = principal
            record.key = principal.name
    if match.http_exception is not None:
        raise match.http_exception
    _check_body_head(request, snapshot)


def _add_headers(
    request: web.Request, response: web.StreamResponse, snapshot: Snapshot, record: Record
) -> None:
    """Put on the headers that every answer has."""
    headers = response.headers
    headers["Server"] = "antiphon"
    headers["X-Request-Id"] = record.request_id
    if record.id_header:
        headers[record.id_header] = record.request_id
    if record.run_id:
        headers["X-Run-Id"] = record.run_id
    if record.tried:
        headers["X-Antiphon-Attempts"] = record.tried
    if record.cache:
        # Whoever shares a call has none of its own, as little as one who is given a kept answer.
        headers["X-Antiphon-Cache"] = "hit" if record.cache == "shared" else record.cache
    if record.warnings:
        headers["X-Antiphon-Warnings"] = record.warnings
    asked = request.headers.get("Origin")
    origin = _cors_origin(asked, snapshot)
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        if asked is not None:  # for pages alone; other clients are spared the long line
            headers["Access-Control-Expose-Headers"] = _EXPOSED
        if origin != "*":
            headers["Vary"] = "Origin"


def client_address(request: web.Request, snapshot: Snapshot) -> str | None:
    """The peer's address, or the one that a trusted proxy tells of."""
    peer = request.remote
    if peer is None or not snapshot.trusted_proxies:
        return peer
    hops = [hop.strip() for hop in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
    for hop in reversed([hop for hop in hops if hop]):
        if not _trusted(peer, snapshot):
            break
        peer = hop
    return peer


def own_origin(request: web.Request, snapshot: Snapshot) -> str:
    """The origin of this server's pages as their browser knows it: a trusted proxy tells what it took."""
    scheme, host = request.scheme, request.host
    if request.remote is not None and _trusted(request.remote, snapshot):
        scheme = _first_told(request, "X-Forwarded-Proto") or scheme
        host = _first_told(request, "X-Forwarded-Host") or host
    scheme = {"wss": "https", "ws": "http"}.get(scheme.lower(), scheme.lower())  # some tell a websocket's
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


def _first_told(request: web.Request, name: str) -> str:
    """What the outermost of several proxies has told."""
    return request.headers.get(name, "").partition(",")[0].strip()


def _trusted(address: str, snapshot: Snapshot) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in snapshot.trusted_proxies)


def _authenticate(request: web.Request, snapshot: Snapshot, *, late: bool) -> Principal | None:
    key = key_from_headers(request.headers)
    own = credentials_from_headers(request.headers) if snapshot.lends else None
    keyring = snapshot.keyring
    try:
        address = client_address(request, snapshot) if keyring.looks_at_addresses else None
        principal = keyring.authenticate(key, address)
    except AuthenticationError as error:
        # A key that was given out and is good no more is told so, whatever it looks like.
        if snapshot.lends and own is None and keyring.byok and error.code == "invalid_api_key":
            own = credentials_from_bearer(key)
        if own is None or not keyring.byok:
            if late and key is None:
                return None
            raise
        principal = Principal(caller_name(own), models=snapshot.router.lent, background=False)
    else:
        if snapshot.lends and own is None and keyring.open:
            own = credentials_from_bearer(key)
    if own is not None:
        request[CREDENTIALS] = own
    return principal


def _check_local(request: web.Request, snapshot: Snapshot, *, watching: bool) -> None:
    """Without keys: only for loopback names, and not for the scripts of foreign pages (B8).

    ``watching``: the status channel is asked for, to which ``events.origins`` may come, too.
    """
    settings = snapshot.settings.server
    allowed = {settings.host, *settings.allowed_hosts}
    host = _host_name(request.headers.get("Host", ""))
    if not (host in allowed or _is_loopback(host)):
        raise NotAllowed(
            "This server is open to this machine only; address it by a loopback name, or configure keys.",
            code="address_not_allowed",
        )
    origin = request.headers.get("Origin")
    also = snapshot.settings.events.origins if watching else ()
    if origin is None or origin in snapshot.settings.cors.origins or origin in also:
        return
    name = _host_name(urlsplit(origin).netloc)
    if not (name in allowed or _is_loopback(name)):
        raise NotAllowed("This origin may not call a server without keys.", code="origin_not_allowed")


def _host_name(host: str) -> str:
    """The name in ``name:port`` or ``[address]:port``, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_body_head(request: web.Request, snapshot: Snapshot) -> None:
    """Refuse by the head alone what would be refused by the body."""
    if not request.can_read_body:
        return
    limit = snapshot.settings.server.body_bytes
    length = request.content_length
    if length is not None and length > limit and _takes_forms(request):
        limit = snapshot.settings.uploads.max_bytes
    if length is not None and length > limit:
        raise RequestTooLarge(f"The request body has {length} bytes; the limit is {limit}.")
    coding = request.headers.get("Content-Encoding")
    if coding is not None and coding.lower() not in _ENCODINGS:
        raise UnsupportedMediaType("Send the body as it is, or with Content-Encoding gzip or deflate.")
    kind = request.headers.get("Content-Type", "")
    if kind not in _JSON and kind.partition(";")[0].strip().lower() in _FORMS and not _takes_forms(request):
        raise UnsupportedMediaType("Send JSON, with Content-Type: application/json.")


def _cors_origin(origin: str | None, snapshot: Snapshot) -> str | None:
    """Whom to allow, if a page of ``origin`` asks."""
    origins = snapshot.settings.cors.origins
    if origins:
        return origin if origin in origins else None
    if not snapshot.keyring.open:
        return "*"
    # Open mode: guard has refused foreign origins; their refusal is still told to the page's console.
    return origin


def _preflight(request: web.Request) -> web.Response:
    asked = request.headers.get("Access-Control-Request-Headers", "")
    names = [name.strip().lower() for name in asked.split(",")]
    wanted = [name for name in names[:100] if _HEADER_NAME.fullmatch(name)]
    return web.Response(
        status=HTTPStatus.NO_CONTENT,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": ", ".join(dict.fromkeys((*_ALLOWED_HEADERS, *wanted))),
            "Access-Control-Max-Age": "86400",
        },
    )


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> ServerError:
    """aiohttp's own refusals, in our words."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods | {"OPTIONS"}))
        return MethodNotAllowed(f"This path does not take {error.method}; it takes {allow}.", allow=allow)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return RequestTooLarge("The request body is too large.")
    if isinstance(error, web.HTTPNotFound):
        if request.path.startswith("/v1/v1"):
            return NotFound("There is /v1 twice in this path; end the base URL with one /v1.")
        if absent := _NOT_OFFERED.get(_first_part(request.path)):
            return NotFound(f"{absent} not offered here; models are asked by POST /v1/chat/completions.")
        return NotFound("There is no such path; see docs/behaviour.md for what there is.")
    if error.status < 500:
        return InvalidRequest("The request cannot be understood.", status=error.status)
    return ServerError("The server failed; try again later.", status=error.status)
