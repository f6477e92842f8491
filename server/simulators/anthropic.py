"""A faithful fake Anthropic on loopback, which does with each request what a script says."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson

from server.simulators.answers import JSON, SSE, plain_answer
from server.simulators.anthropic_asked import bad, read_messages
from server.simulators.anthropic_said import (
    AnthropicScript,
    NamedEvents,
    Wire,
    error_json,
    say_anthropic,
    scripted_fault,
)
from server.simulators.asked import Asked, refuse
from server.simulators.connection import Connection
from server.simulators.errors import Fault, Refused, retry_headers
from server.simulators.playing import Answer
from server.simulators.record import RecordedRequest
from server.simulators.simulator import Simulator
from server.simulators.steps import Piece, Step, event_steps, plain_steps

HELP = """\
Any model answers "You said: …". Say otherwise, first come first served, by

  1. a queue:           curl -d '{"chunks": 5, "cut_after": 3}' URL/sim/script    (one, or an array of them;
                        ?model=NAME for one model only, ?times=N for N requests; -X DELETE empties the queue)
  2. a header:          x-sim: {"status": 529}
  3. a line in the last user message:   sim: {"text": "Good morning", "pace_ms": 50}

Some of what a script can say:

  {"status": 429, "retry_after": 2}                   rate_limit_error; 529 is overloaded_error
  {"chunks": 9, "error_after": 3}                     an overloaded_error in the midst of a stream
  {"chunks": 9, "cut_after": 3}                       cut, no message_stop; "cut": "rst" resets
  {"reasoning": ["hm"], "tools": [{}, {}]}            thinking with its signature, two tool calls
  {"stop_reason": "max_tokens", "cache_read": 100}    how it ends, and what it counts

See what came: URL/sim/stats, URL/sim/requests. The fields of a script: URL/sim/help
"""


class AnthropicSimulator(Simulator[AnthropicScript]):
    """An Anthropic: ``async with AnthropicSimulator() as sim`` serves until the block is left.

    Its behaviour is chosen for each request, in this order: the queue (``script``, or POST /sim/script), the
    header ``x-sim``, a line ``sim: {…}`` in the last user message, ``default``. A request that Anthropic
    would refuse is refused before any of them. Whatever stands before ``/v1/messages`` is served too.
    """

    scripts = AnthropicScript
    routes = ("messages", "models")
    help = HELP
    title = "An Anthropic"
    default_port = 18903

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        default: AnthropicScript | None = None,
    ) -> None:
        """``port`` 0 takes a free one; ``api_key`` None takes any key, but one there must be."""
        super().__init__(port, host, default, ssl_context)
        self._api_key = api_key

    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        record.script = AnthropicScript()
        return _error(record.script, fault, record.number)

    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        route = next((route for route in self.routes if path.endswith(f"/v1/{route}")), None)
        if route is None:
            raise Refused(Fault(404, "Not Found"))
        if record.method != ("GET" if route == "models" else "POST"):
            raise Refused(Fault(405, "Method Not Allowed"))
        self._authorize(record)
        if not record.header("anthropic-version"):
            raise bad("anthropic-version: header is required")
        if route == "models":
            return Answer(200, JSON, _headers(record.number), lambda: plain_steps(self.default, _MODELS))
        asked = read_messages(record.body)
        record.model = asked.model
        script = record.script = self._script_for(record, route, asked.model, asked.last_user)
        refuse(script, asked)
        return _play(script, asked, record.number)

    def _authorize(self, record: RecordedRequest) -> None:
        scheme, _, bearer = (record.header("authorization") or "").partition(" ")
        key = record.header("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise Refused(Fault(401, "x-api-key header is required"))
        if self._api_key is not None and not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise Refused(Fault(401, "invalid x-api-key"))


_MODELS = orjson.dumps(
    {
        "data": [
            {
                "type": "model",
                "id": "claude-sim",
                "display_name": "Simulated Claude",
                "created_at": "2023-11-14T22:13:20Z",
            }
        ],
        "has_more": False,
        "first_id": "claude-sim",
        "last_id": "claude-sim",
    }
)


def _play(script: AnthropicScript, asked: Asked, number: int) -> Answer:
    if script.body is not None or script.redirect is not None:
        return plain_answer(script, lambda: b"", number, datetime.now(UTC), streamed=asked.stream)
    if script.status >= 400:
        return _error(script, scripted_fault(script, 500), number)
    wire = Wire(script, say_anthropic(script, asked, number), number)
    headers = _headers(number)
    streamed = script.answer_as == "sse" or (script.answer_as == "asked" and asked.stream)
    if not streamed:
        if script.error_after is not None:
            return _error(script, scripted_fault(script, 529), number)
        return Answer(script.status, JSON, headers, lambda: plain_steps(script, wire.message()))
    form = NamedEvents(script)

    def error() -> Piece:
        return Piece(form.event(error_json(scripted_fault(script, 529), number), "error"))

    def steps() -> Iterator[Step]:
        return event_steps(script, form, wire.events(), error)

    return Answer(script.status, SSE, [*headers, ("cache-control", "no-cache")], steps, streamed=True)


def _error(script: AnthropicScript, fault: Fault, number: int) -> Answer:
    headers = _headers(number) + retry_headers(script, datetime.now(UTC))
    return Answer(fault.status, JSON, headers, lambda: plain_steps(script, error_json(fault, number)))


def _headers(number: int) -> list[tuple[str, str]]:
    return [
        ("server", "antiphon-simulator"),
        ("request-id", f"req_sim{number}"),
        ("anthropic-organization-id", "sim-org"),
        ("anthropic-ratelimit-requests-limit", "10000"),
        ("anthropic-ratelimit-requests-remaining", "9999"),
    ]
