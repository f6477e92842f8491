"""A faithful fake Ollama on loopback, which does with each request what a script says."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from server.simulators.answers import JSON, plain_answer
from server.simulators.asked import Asked, refuse
from server.simulators.connection import Connection
from server.simulators.errors import Fault, Refused, fault_of, retry_headers
from server.simulators.ollama_asked import bad, read_embed, read_pull, read_request
from server.simulators.ollama_said import LineForm, OllamaScript, Wire, embedded, loaded, pulling, tags
from server.simulators.playing import Answer
from server.simulators.record import RecordedRequest
from server.simulators.said import say
from server.simulators.simulator import Simulator
from server.simulators.steps import Piece, Step, event_steps, part_steps, plain_steps

LINES = "application/x-ndjson"
DIMENSIONS = 8
HELP = """\
Any model answers "You said: …". Say otherwise, first come first served, by

  1. a queue:           curl -d '{"chunks": 5, "cut_after": 3}' URL/sim/script    (one, or an array of them;
                        ?model=NAME for one model only, ?times=N for N requests; -X DELETE empties the queue)
  2. a header:          x-sim: {"status": 503}
  3. a line in the last user message:   sim: {"text": "Good morning", "pace_ms": 50}

Some of what a script can say:

  {"chunks": 9, "error_after": 3}                     an error as a line, in the midst of a stream
  {"chunks": 9, "cut_after": 3}                       cut, no line with done; "cut": "rst" resets
  {"reasoning": ["hm"], "tools": [{}, {}]}            thinking, two calls
  {"done_reason": "length", "cached": true}           how it ends, and what it counts
  {"cannot": ["tools", "thinking"]}                   a model that refuses them

Embeddings have vectors that their text alone decides; ?for=embed queues a script for them.
See what came: URL/sim/stats, URL/sim/requests. The fields of a script: URL/sim/help
"""


class OllamaSimulator(Simulator[OllamaScript]):
    """An Ollama: ``async with OllamaSimulator() as sim`` serves until the block is left.

    Its behaviour is chosen for each request, in this order: the queue (``script``, or POST /sim/script), the
    header ``x-sim``, a line ``sim: {…}`` in the last user message, ``default``. A request that Ollama would
    refuse is refused before any of them.
    """

    scripts = OllamaScript
    routes = ("chat", "tags", "embed", "pull")
    help = HELP
    title = "An Ollama"
    default_port = 18906

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        models: tuple[str, ...] | None = None,
        pullable: tuple[str, ...] = (),
        ssl_context: ssl.SSLContext | None = None,
        default: OllamaScript | None = None,
    ) -> None:
        """``port`` 0 takes a free one. ``models``: those that are pulled; None: whichever is asked for.

        ``pullable``: those that can be.
        """
        super().__init__(port, host, default, ssl_context)
        self.models = models
        self.pullable = pullable

    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        if path == "/api/tags" and record.method == "GET":
            listed = ("sim:latest",) if self.models is None else self.models
            return Answer(200, JSON, [], lambda: plain_steps(self.default, tags(listed)))
        if path not in ("/api/chat", "/api/embed", "/api/pull"):
            raise Refused(Fault(404, "404 page not found"))
        if record.method != "POST":
            raise Refused(Fault(405, "405 method not allowed"))
        if path == "/api/embed":
            return self._embedded(record)
        if path == "/api/pull":
            return self._pulled(record)
        asked, fields = read_request(record.body)
        record.model = asked.model
        self._check_pulled(asked.model)
        script = record.script = self._script_for(record, "chat", asked.model, asked.last_user)
        refuse(script, asked)
        _check_abilities(script, asked, fields)
        if not fields.get("messages"):
            return Answer(200, JSON, [], lambda: plain_steps(script, loaded(asked.model)))
        return _play(script, asked, record.number)

    def _pulled(self, record: RecordedRequest) -> Answer:
        """A pull: it is told in lines, and the model is there when the last of them is on its way."""
        model, stream = read_pull(record.body)
        record.model = model
        script = record.script = self._script_for(record, "pull", model, "")
        if script.status >= 400:
            return _error(script, fault_of(script))
        if script.body is not None or script.redirect is not None:
            return plain_answer(script, lambda: b"", record.number, datetime.now(UTC))
        if model not in self.pullable:
            told = [_line(Fault(500, "pull model manifest: file does not exist"))]
            return Answer(200, LINES, [], lambda: part_steps(script, [line + b"\n" for line in told]))

        def steps() -> Iterator[Step]:
            told = pulling() if stream else pulling()[-1:]
            for step in part_steps(script, [line + b"\n" for line in told]):
                if isinstance(step, Piece) and b'"success"' in step.data and self.models is not None:
                    self.models = (*self.models, model if ":" in model else f"{model}:latest")
                yield step

        return Answer(200, LINES, [], steps, streamed=True)

    def _embedded(self, record: RecordedRequest) -> Answer:
        model, texts, fields = read_embed(record.body)
        record.model = model
        self._check_pulled(model)
        script = record.script = self._script_for(record, "embed", model, "")
        if script.status >= 400:
            return _error(script, fault_of(script))
        if script.body is not None or script.redirect is not None:
            return plain_answer(script, lambda: b"", record.number, datetime.now(UTC))
        if fields.get("truncate") is False and any(len(text.split()) > script.context for text in texts):
            raise bad("the input length exceeds the context length")
        size = fields.get("dimensions") or DIMENSIONS
        return Answer(200, JSON, [], lambda: plain_steps(script, embedded(model, texts, size)))

    def _check_pulled(self, model: str) -> None:
        if self.models is not None and not {model, f"{model}:latest"} & set(self.models):
            raise Refused(Fault(404, f"model '{model}' not found"))

    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        record.script = OllamaScript()
        return _error(record.script, fault)


def _check_abilities(script: OllamaScript, asked: Asked, fields: dict[str, Any]) -> None:
    if fields.get("tools") and "tools" in script.cannot:
        raise bad(f"registry.ollama.ai/library/{asked.model} does not support tools")
    think = fields.get("think")
    if think and "thinking" in script.cannot:
        raise bad(f'"{asked.model}" does not support thinking')
    if isinstance(think, str) and "levels" in script.cannot:
        raise bad(f'think value "{think}" is not supported for this model')


def _play(script: OllamaScript, asked: Asked, number: int) -> Answer:
    if script.body is not None or script.redirect is not None:
        return plain_answer(script, lambda: b"", number, datetime.now(UTC), streamed=asked.stream)
    if script.status >= 400:
        return _error(script, fault_of(script))
    wire = Wire(script, say(script, asked, number))
    streamed = script.answer_as == "sse" or (script.answer_as == "asked" and asked.stream)
    if not streamed:
        if script.error_after is not None:
            return _error(script, fault_of(script))
        return Answer(script.status, JSON, [], lambda: plain_steps(script, wire.whole()))

    def steps() -> Iterator[Step]:
        form = LineForm(script)
        return event_steps(script, form, wire.lines(), lambda: Piece(_line(fault_of(script)) + b"\n"))

    return Answer(script.status, LINES, [], steps, streamed=True)


def _line(fault: Fault) -> bytes:
    return orjson.dumps({"error": fault.message})


def _error(script: OllamaScript, fault: Fault) -> Answer:
    headers = retry_headers(script, datetime.now(UTC))
    return Answer(fault.status, JSON, headers, lambda: plain_steps(script, _line(fault)))
