"""A faithful fake Gemini on loopback, which does with each request what a script says."""

from __future__ import annotations

import hmac
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from server.simulators.answers import JSON, plain_answer
from server.simulators.asked import Asked, refuse
from server.simulators.connection import Connection
from server.simulators.errors import Fault, Refused, retry_headers
from server.simulators.gemini_asked import draws, read_generate
from server.simulators.gemini_embeddings import EMBED, EMBED_ALL, embedded
from server.simulators.gemini_said import (
    ArrayForm,
    GeminiScript,
    Wire,
    error_json,
    scripted_fault,
    spelled_models,
    told_in_all,
)
from server.simulators.playing import Answer
from server.simulators.record import RecordedRequest
from server.simulators.said import say
from server.simulators.simulator import Simulator
from server.simulators.steps import EventForm, Piece, Step, event_steps, plain_steps

SSE = "text/event-stream"
HELP = """\
Any model answers "You said: …". Say otherwise, first come first served, by

  1. a queue:           curl -d '{"chunks": 5, "cut_after": 3}' URL/sim/script    (one, or an array of them;
                        ?model=NAME for one model only, ?times=N for N requests; -X DELETE empties the queue)
  2. a header:          x-sim: {"status": 503}
  3. a line in the last user message:   sim: {"text": "Good morning", "pace_ms": 50}

Some of what a script can say:

  {"status": 429, "retry_delay": "34s"}               RESOURCE_EXHAUSTED with its RetryInfo
  {"chunks": 9, "error_after": 3}                     UNAVAILABLE in the midst of a stream
  {"chunks": 9, "cut_after": 3}                       cut, no finishReason; "cut": "rst" resets
  {"reasoning": ["hm"], "tools": [{}, {}]}            thoughts, two calls, the first with a signature
  {"block": "SAFETY"}                                 the prompt is blocked, with status 200
  {"finish_reason": "RECITATION", "cached": 100}      how it ends, and what it counts

Embeddings have vectors that their text alone decides; ?for=embed queues a script for them.
See what came: URL/sim/stats, URL/sim/requests. The fields of a script: URL/sim/help
"""
_ROUTE = re.compile(r".*/v1(?:beta|alpha)?/(?:models|tunedModels)/(?P<model>[^/:]+):(?P<method>[A-Za-z]+)")
_MODELS = re.compile(r".*/v1(?:beta|alpha)?/models")
_STREAM = "streamGenerateContent"
_METHODS = ("generateContent", _STREAM, EMBED, EMBED_ALL)
_NO_KEY = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or "
    "other form of API consumer identity to call this API."
)


class GeminiSimulator(Simulator[GeminiScript]):
    """A Gemini: ``async with GeminiSimulator() as sim`` serves until the block is left.

    Its behaviour is chosen for each request, in this order: the queue (``script``, or POST /sim/script), the
    header ``x-sim``, a line ``sim: {…}`` in the last user message, ``default``. A request that Google would
    refuse is refused before any of them. Whatever stands before ``/v1beta`` is served too.
    """

    scripts = GeminiScript
    routes = ("generate", "models", "embed")
    help = HELP
    title = "A Gemini"
    default_port = 18904

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        default: GeminiScript | None = None,
    ) -> None:
        """``port`` 0 takes a free one; ``api_key`` None takes any key, but one there must be."""
        super().__init__(port, host, default, ssl_context)
        self._api_key = api_key

    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        query = parse_qs(urlsplit(record.path).query)
        found = _ROUTE.fullmatch(path)
        listed = _MODELS.fullmatch(path) is not None
        if not listed and (found is None or found["method"] not in _METHODS):
            raise Refused(Fault(404, "Requested entity was not found."))
        if record.method != ("GET" if listed else "POST"):
            raise Refused(Fault(404, "Method not found."))
        self._authorize(record, query.get("key", [""])[-1])
        if found is None:
            body = spelled_models(("gemini-sim",))
            return Answer(200, JSON, _HEADERS, lambda: plain_steps(self.default, body))
        if found["method"] in (EMBED, EMBED_ALL):
            return self._embedded(record, found["model"], found["method"])
        stream = found["method"] == _STREAM
        asked = read_generate(record.body, found["model"], stream=stream)
        record.model = asked.model
        script = record.script = self._script_for(record, "generate", asked.model, asked.last_user)
        refuse(script, asked)
        drawn = script.draws and draws(record.body)
        array = stream and query.get("alt") != ["sse"]
        return _play(script, asked, record.number, array=array, drawn=drawn)

    def _embedded(self, record: RecordedRequest, model: str, method: str) -> Answer:
        record.model = model
        body = embedded(record.body, model, method)
        script = record.script = self._script_for(record, "embed", model, "")
        if script.status >= 400:
            return _error(script, scripted_fault(script, 500), array=False)
        if script.body is not None or script.redirect is not None:
            return plain_answer(script, lambda: b"", record.number, datetime.now(UTC))
        return Answer(script.status, JSON, _HEADERS, lambda: plain_steps(script, body))

    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        record.script = GeminiScript()
        return _error(record.script, fault, array=_STREAM in record.path and "alt=sse" not in record.path)

    def _authorize(self, record: RecordedRequest, in_query: str) -> None:
        key = record.header("x-goog-api-key") or in_query
        if not key:
            raise Refused(Fault(403, _NO_KEY))
        if self._api_key is not None and not hmac.compare_digest(key.encode(), self._api_key.encode()):
            words = "API key not valid. Please pass a valid API key."
            raise Refused(Fault(400, words, code="API_KEY_INVALID"))


_HEADERS = [
    ("server", "antiphon-simulator"),
    ("vary", "Origin, X-Origin, Referer"),
    ("x-content-type-options", "nosniff"),
]


def _play(script: GeminiScript, asked: Asked, number: int, *, array: bool, drawn: bool) -> Answer:
    if script.body is not None or script.redirect is not None:
        return plain_answer(script, lambda: b"", number, datetime.now(UTC), streamed=asked.stream)
    if script.status >= 400:
        return _error(script, scripted_fault(script, 500), array=array)
    wire = Wire(script, told_in_all(say(script, asked, number)), number, drawn=drawn)
    streamed = script.answer_as == "sse" or (script.answer_as == "asked" and asked.stream)
    if not streamed:
        if script.error_after is not None:
            return _error(script, scripted_fault(script, 503), array=array)
        return Answer(script.status, JSON, _HEADERS, lambda: plain_steps(script, wire.whole()))

    def steps() -> Iterator[Step]:
        form = ArrayForm(script) if array else EventForm(script)

        def error() -> Piece:
            return Piece(form.event(error_json(script, scripted_fault(script, 503))))

        yield from event_steps(script, form, wire.events(), error)
        if array:
            yield Piece(b"]")

    return Answer(script.status, JSON if array else SSE, _HEADERS, steps, streamed=True)


def _error(script: GeminiScript, fault: Fault, *, array: bool) -> Answer:
    """A stream that is no events has its error in an array."""
    body = error_json(script, fault)
    if array or script.error_form == "array":
        body = b"[" + body + b"\n]"
    headers = [*_HEADERS, *retry_headers(script, datetime.now(UTC))]
    return Answer(fault.status, JSON, headers, lambda: plain_steps(script, body))
