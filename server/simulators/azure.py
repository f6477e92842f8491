"""A faithful fake Azure OpenAI on loopback, which does with each request what a script says."""

from __future__ import annotations

import hmac
import re
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
import orjson

from server.simulators.answers import (
    JSON,
    SSE,
    embeddings_body,
    plain_answer,
    read_embedding_input,
    surface_answer,
)
from server.simulators.asked import Asked, read_chat, refuse
from server.simulators.connection import Connection
from server.simulators.errors import Fault, Refused, error_body, fault_of, retry_headers
from server.simulators.playing import Answer
from server.simulators.record import RecordedRequest
from server.simulators.said import Chunk, Said, chunks, completion, say
from server.simulators.script import Script
from server.simulators.simulator import Simulator
from server.simulators.steps import EventForm, Piece, Step, event_steps, plain_steps
from server.simulators.surfaces import READERS

HELP = """\
Any deployment answers "You said: …". Say otherwise, first come first served, by

  1. a queue:           curl -d '{"chunks": 5, "cut_after": 3}' URL/sim/script    (one, or an array of them;
                        ?model=DEPLOYMENT for one only, ?times=N for N requests; -X DELETE empties the queue)
  2. a header:          x-sim: {"status": 429, "retry_after": 2}
  3. a line in the last user message:   sim: {"text": "Good morning", "pace_ms": 50}

Of a script's own here:

  {"filter": "async"}                     the filter's judgements come behind the text, in chunks of their own
  {"filter": "annotations"}               as older versions call the first of them; "none": none at all
  {"filtered": "prompt"}                  400 content_filter, with its innererror
  {"filtered": "answer"}                  the answer ends with content_filter

Both doors: /openai/deployments/NAME/chat/completions?api-version=… and /openai/v1/chat/completions.
Both have embeddings, audio and images, too; ?for=embeddings queues a script for them.
See what came: URL/sim/stats, URL/sim/requests. The fields of a script: URL/sim/help
"""
_BESIDE = tuple(name for name in READERS if name not in ("images/variations", "rerank"))
_DOORS = re.compile(
    r"/openai/(?:v1|deployments/(?P<deployment>[^/]+))/"
    rf"(?P<what>{'|'.join(('chat/completions', 'embeddings', *_BESIDE))})"
)
_VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")
# Before it, stream_options are an unknown field.
_USAGE_SINCE = "2024-09-01"
_SAFE = {
    kind: {"filtered": False, "severity": "safe"} for kind in ("hate", "self_harm", "sexual", "violence")
}


class AzureScript(Script, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One answer of Azure: what ``Script`` says, and its content filter."""

    filter: Literal["sync", "async", "annotations", "none"] = "sync"
    filtered: Literal["prompt", "answer"] | None = None


class AzureSimulator(Simulator[AzureScript]):
    """An Azure OpenAI resource: ``async with AzureSimulator() as sim`` serves until the block is left.

    Its behaviour is chosen for each request, in this order: the queue (``script``, or POST /sim/script), the
    header ``x-sim``, a line ``sim: {…}`` in the last user message, ``default``.
    """

    scripts = AzureScript
    routes = ("chat/completions", "embeddings", *_BESIDE)
    help = HELP
    title = "An Azure OpenAI"
    default_port = 18905

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        api_key: str | None = None,
        token: str | None = None,
        deployments: tuple[str, ...] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        default: AzureScript | None = None,
    ) -> None:
        """``port`` 0 takes a free one. Without ``api_key`` and ``token`` (of Entra) any will do, but one must
        be there; ``deployments`` None: whatever name is asked for is there.
        """
        super().__init__(port, host, default, ssl_context)
        self._api_key = api_key
        self.token = token
        self._deployments = deployments

    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        door = _DOORS.fullmatch(path)
        deployment = door["deployment"] if door is not None else None
        version = parse_qs(urlsplit(record.path).query).get("api-version", [""])[-1]
        if door is None or (deployment is not None and not _VERSION.fullmatch(version)):
            raise Refused(Fault(404, "Resource not found", code="404"))
        if record.method != "POST":
            raise Refused(Fault(405, "Method not allowed", code="405"))
        self._authorize(record)
        if door["what"] != self.routes[0]:
            return self._beside(record, door["what"], deployment)
        asked = read_chat(_with_model(record.body, deployment))
        self._check_deployed(record, asked.model)
        if deployment is not None and version < _USAGE_SINCE and b'"stream_options"' in record.body:
            raise Refused(Fault(400, "Unrecognized request argument supplied: stream_options"))
        script = record.script = self._script_for(record, self.routes[0], asked.model, asked.last_user)
        refuse(script, asked)
        return self._answered(record, script, asked)

    def _answered(self, record: RecordedRequest, script: AzureScript, asked: Asked) -> Answer:
        now = datetime.now(UTC)
        if script.filtered == "prompt":
            return Answer(400, JSON, _HEADERS, lambda: plain_steps(script, orjson.dumps(_FILTERED)))
        if script.filtered == "answer":
            script = msgspec.structs.replace(script, finish="content_filter")
        streamed = script.answer_as == "sse" or (script.answer_as == "asked" and asked.stream)
        said = say(script, asked, record.number)
        if script.status >= 300 or script.body is not None or not streamed:
            body = orjson.loads(completion(script, said))
            return plain_answer(script, lambda: _judged(script, body), record.number, now, streamed=streamed)

        def steps() -> Iterator[Step]:
            form = EventForm(script)
            told = _with_judgements(script, said, chunks(script, asked, said))
            return event_steps(script, form, told, lambda: Piece(form.event(error_body(fault_of(script))[1])))

        return Answer(200, SSE, [*_HEADERS, ("cache-control", "no-cache")], steps, streamed=True)

    def _beside(self, record: RecordedRequest, what: str, deployment: str | None) -> Answer:
        """The answer to what is no chat. In the classic door's body the model counts for nothing."""
        now = datetime.now(UTC)
        if what == "embeddings":
            wanted, model = read_embedding_input(_with_model(record.body, deployment))
            self._check_deployed(record, model)
            script = record.script = self._script_for(record, what, model, "")
            return plain_answer(script, lambda: embeddings_body(wanted, model), record.number, now)
        kind = record.header("content-type") or ""
        named, made = READERS[what](record.body, kind)
        model = deployment or named
        self._check_deployed(record, model)
        script = record.script = self._script_for(record, what, model, "")
        return surface_answer(script, made, record.number, now)

    def _check_deployed(self, record: RecordedRequest, model: str) -> None:
        record.model = model
        if self._deployments is not None and model not in self._deployments:
            message = (
                "The API deployment for this resource does not exist. If you created the deployment within "
                "the last 5 minutes, please wait a moment and try again."
            )
            raise Refused(Fault(404, message, code="DeploymentNotFound"))

    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        script = record.script = AzureScript()
        error: dict[str, Any] = {"code": fault.code or str(fault.status), "message": fault.message}
        if fault.status == 400:
            error = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}
        body = orjson.dumps({"error": error})
        headers = [*_HEADERS, *retry_headers(script, datetime.now(UTC))]
        return Answer(fault.status, JSON, headers, lambda: plain_steps(script, body))

    def _authorize(self, record: RecordedRequest) -> None:
        key = record.header("api-key") or ""
        scheme, _, token = (record.header("authorization") or "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        anyone = self._api_key is None and self.token is None
        if anyone and (key or bearer):
            return
        for given, known in ((key, self._api_key), (bearer, self.token)):
            if known is not None and hmac.compare_digest(given.encode(), known.encode()):
                return
        message = (
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
            "valid key for an active subscription and use a correct regional API endpoint for your resource."
        )
        raise Refused(Fault(401, message, code="401"))


_HEADERS = [
    ("x-ms-region", "Simulated"),
    ("apim-request-id", "sim"),
    ("x-ratelimit-remaining-requests", "99"),
]
_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {
                **_SAFE,
                "hate": {"filtered": True, "severity": "high"},
                "jailbreak": {"filtered": False, "detected": False},
            },
        },
    }
}


def _with_model(body: bytes, deployment: str | None) -> bytes:
    """A request with its deployment as the model: in the classic door's body the model counts for nothing."""
    if deployment is None:
        return body
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    return orjson.dumps({**asked, "model": deployment}) if isinstance(asked, dict) else body


def _judged(script: AzureScript, whole: dict[str, Any]) -> bytes:
    if script.filter == "none":
        return orjson.dumps(whole)
    choices = [{**choice, "content_filter_results": _SAFE} for choice in whole["choices"]]
    prompt = [{"prompt_index": 0, "content_filter_results": _SAFE}]
    return orjson.dumps({**whole, "choices": choices, "prompt_filter_results": prompt})


def _with_judgements(script: AzureScript, said: Said, told: Iterable[Chunk]) -> Iterator[Chunk]:
    """The stream as the filter lets it through."""
    if script.filter == "none":
        yield from told
        return
    name = "prompt_annotations" if script.filter == "annotations" else "prompt_filter_results"
    judged = [{"prompt_index": 0, "content_filter_results": _SAFE}]
    yield Chunk({"id": "", "object": "", "created": 0, "model": "", "choices": [], name: judged}, False)
    behind = script.filter == "async"
    at = 0
    for data, counts in told:
        if not behind:
            judged_choices = [{**one, "content_filter_results": _SAFE} for one in data["choices"]]
            yield Chunk({**data, "choices": judged_choices}, counts)
            continue
        yield Chunk(data, counts)
        for choice in data["choices"]:
            text = choice["delta"].get("content") or ""
            if text or choice.get("finish_reason"):
                at += len(text)
                yield _late(said, choice["index"], at)


def _late(said: Said, index: int, at: int) -> Chunk:
    """What the asynchronous filter says of the text so far, without any of it."""
    offsets = {"check_offset": at, "start_offset": at, "end_offset": at}
    choice = {
        "index": index,
        "finish_reason": None,
        "content_filter_results": _SAFE,
        "content_filter_offsets": offsets,
    }
    return Chunk({"id": "", "object": "", "created": 0, "model": said.model, "choices": [choice]}, False)
