"""A faithful fake Spark on loopback: the signed websocket, the image endpoint and the HTTP routes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus

import orjson

from server.simulators.answers import JSON, refusal
from server.simulators.connection import Connection
from server.simulators.errors import Fault, Refused
from server.simulators.playing import Answer
from server.simulators.record import RecordedRequest
from server.simulators.script import BadScript, Script, script_in_message_as
from server.simulators.simulator import Simulator
from server.simulators.spark_asked import SparkAsked, SparkRules, read_frame
from server.simulators.spark_errors import SparkFault, error_frame, message_of
from server.simulators.spark_frames import Message, frame_steps, sid_of
from server.simulators.spark_http import http_answer, http_fault, read_http
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_models import HTTP_PATHS, Model, model_at
from server.simulators.spark_script import HELP, SparkScript
from server.simulators.spark_signature import SparkKey, Unverified, verify
from server.simulators.spark_talk import Reply, Talk
from server.simulators.steps import plain_steps

_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class SparkSimulator(Simulator[SparkScript]):
    """A Spark upstream: ``async with SparkSimulator() as sim`` serves until the block is left.

    A websocket is opened at the vendor's paths by the vendor's signature, and refused in its words. What is
    answered is chosen for each request, in this order: the queue (``script``, or POST /sim/script) and the
    header ``x-sim``, both at the handshake; a line ``sim: {…}`` in the last user message; ``default``. A
    request that Spark would refuse is refused before the script of a message is read.

    ``clock_offset_s`` makes the clock of the simulator wrong, ``idle_s`` and ``pings_only_s`` its patience
    with who asks nothing; all three, and ``limits``, may be set while it serves.
    """

    scripts = SparkScript
    routes = ("websocket", "http")
    help = HELP
    title = "A Spark upstream"
    default_port = 18902

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        keys: tuple[SparkKey, ...] = (SparkKey(),),
        rules: SparkRules | None = None,
        limits: SparkLimits | None = None,
        clock: Callable[[], float] = time.time,
        clock_offset_s: float = 0.0,
        observed: bool = False,
        default: SparkScript | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """``port`` 0 takes a free one. ``observed``: unknown keys are refused in the words that were seen."""
        super().__init__(port, host, default, ssl_context)
        self.keys = keys
        self.rules = SparkRules() if rules is None else rules
        self.limits = SparkLimits() if limits is None else limits
        self.clock_offset_s = clock_offset_s
        self.idle_s = 60.0
        self.pings_only_s = 300.0
        self._clock, self._observed = clock, observed

    @property
    def ws_url(self) -> str:
        """Such as ``ws://127.0.0.1:18902``; a model's path comes behind it."""
        return self.url.replace("http", "ws", 1)

    @property
    def where(self) -> str:
        """By websocket, and over HTTP."""
        return f"{self.ws_url}/v3.5/chat and {self.url}/v1"

    def now(self) -> datetime:
        """What the clock of the simulator shows."""
        return datetime.fromtimestamp(self._clock() + self.clock_offset_s, UTC)

    def _dressed(self, answer: Answer) -> Answer:
        return answer._replace(headers=[*answer.headers, ("date", _date(self.now()))])

    def _refusal(self, record: RecordedRequest, fault: Fault) -> Answer:
        return refusal(Script(), fault, record.number, self.now())

    async def _chosen(self, record: RecordedRequest, path: str, connection: Connection) -> Answer:
        if path in HTTP_PATHS:
            return self._http(record, path)
        try:
            key, model = self._admitted(record, path)
        except Unverified as refused:
            return _gateway_answer(refused.status, refused.message)
        script = self._script_at_door(record, "websocket", "")
        record.script = SparkScript() if script is None else script
        if script is None or not _refuses(script):
            await self._talk(connection, record, key, model, script)
        return _scripted_refusal(script or self.default)

    # ── websocket ──

    def _admitted(self, record: RecordedRequest, path: str) -> tuple[SparkKey, Model]:
        """Who opens a websocket, and to what. Raises Unverified."""
        model = model_at(path)
        if model is None:
            raise Unverified(404, "no Route matched with those values")
        now = self.now().timestamp()
        key = verify(record.method, record.path, self.keys, now, observed=self._observed)
        upgrade = (record.header("upgrade") or "").lower()
        if upgrade != "websocket" or not record.header("sec-websocket-key") or record.method != "GET":
            raise Unverified(400, "upgrade to websocket failed")
        return key, model

    async def _talk(
        self,
        connection: Connection,
        record: RecordedRequest,
        key: SparkKey,
        model: Model,
        chosen: SparkScript | None,
    ) -> None:
        """Answer the handshake and what follows. Does not return: the connection's end cancels it."""
        script = SparkScript() if chosen is None else chosen
        if script.silent:
            await connection.closed
        if script.delay_ms:
            await asyncio.sleep(script.delay_ms / 1000)
        digest = hashlib.sha1(f"{record.header('sec-websocket-key')}{_WEBSOCKET_GUID}".encode()).digest()  # noqa: S324
        head = (
            "HTTP/1.1 101 Switching Protocols\r\n"
            f"date: {_date(self.now())}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-accept: {base64.b64encode(digest).decode()}\r\n\r\n"
        ).encode()
        connection.write(head[: script.cut_head_at])
        if script.cut_head_at is not None:
            self._records.end(record, "cut", asyncio.get_running_loop().time())
            await connection.finish(reset=script.cut == "rst")

        def answer(message: Message) -> Reply:
            return self._reply(connection, record, key, model, message, chosen)

        def fault(code: int) -> bytes:
            said = message_of(code, None, self.now())
            return orjson.dumps(error_frame(code, said, sid_of(script, record.number)))

        await Talk(connection, record, self._records).hold(self, answer, fault)

    def _reply(
        self,
        connection: Connection,
        record: RecordedRequest,
        key: SparkKey,
        model: Model,
        message: Message,
        script: SparkScript | None,
    ) -> Reply:
        try:
            if message.binary:
                raise SparkFault(10003, "message is not text")
            asked = read_frame(message.data, model, key.app_id, self.rules)
            record.model = asked.name
            self._enter(record, asked, connection)
            if script is None:
                script = script_in_message_as(asked.last_user, SparkScript) or self.default
            record.script = script
        except SparkFault as refused:
            return self._refused(record, refused.code, refused.detail)
        except BadScript as error:
            return self._refused(record, 10003, str(error))
        steps = frame_steps(script, asked, record.number, self.now())
        return Reply(script, steps, asked.model.client_closes)

    def _refused(self, record: RecordedRequest, code: int, detail: str | None) -> Reply:
        said = message_of(code, detail, self.now())
        frame = error_frame(code, said, sid_of(SparkScript(), record.number))
        return Reply(SparkScript(), iter([Message(orjson.dumps(frame))]), False)

    # ── HTTP ──

    def _http(self, record: RecordedRequest, path: str) -> Answer:
        """Raises Refused and BadScript."""
        if record.method != "POST":
            raise Refused(Fault(405, f"{record.method} is not allowed on {path}"))
        now, script = self.now(), SparkScript()
        key = self._bearer(record)
        if key is None:
            body = {"error": {"message": "invalid user", "type": "api_error", "param": None, "code": None}}
            return _json_answer(401, body)
        try:
            asked = read_http(record.body, path, key.app_id, self.rules)
            record.model = asked.name
            self.limits.enter(asked.app_id, "", asyncio.get_running_loop().time(), lambda: _live(record))
        except SparkFault as refused:
            return http_fault(script, refused.code, refused.detail, record.number, now)
        found = self._script_for(record, "http", asked.name, asked.last_user)
        record.script = found
        if _refuses(found):
            return _scripted_refusal(found)
        return http_answer(found, asked, record.number, now)

    def _bearer(self, record: RecordedRequest) -> SparkKey | None:
        scheme, _, token = (record.header("authorization") or "").partition(" ")
        for key in self.keys:
            for known in (key.password, f"{key.key}:{key.secret}"):
                if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), known.encode()):
                    return key
        return None

    # ── both ──

    def _enter(self, record: RecordedRequest, asked: SparkAsked, connection: Connection) -> None:
        """Count a session until its answer or its connection ends. Raises SparkFault."""
        now = asyncio.get_running_loop().time()
        self.limits.enter(asked.app_id, asked.uid, now, lambda: _live(record) and not connection.gone)


def _live(record: RecordedRequest) -> bool:
    return record.outcome == "live"


def _refuses(script: SparkScript) -> bool:
    return script.status >= 300 or script.body is not None


def _scripted_refusal(script: SparkScript) -> Answer:
    """What a script says in place of an answer, over HTTP."""
    if script.body is None:
        return _gateway_answer(script.status, HTTPStatus(script.status).phrase, script)
    body = script.body.encode("utf-8", "surrogateescape")
    return Answer(script.status, JSON, [], lambda: plain_steps(script, body))


def _gateway_answer(status: int, message: str, script: Script | None = None) -> Answer:
    """The words of the gateway before Spark, its 403 under the media type that the vendor prints."""
    media = "text/plain; charset=utf-8" if status == 403 else JSON
    body = orjson.dumps({"message": message})
    return Answer(status, media, [], lambda: plain_steps(script or Script(), body))


def _json_answer(status: int, body: object) -> Answer:
    return Answer(status, JSON, [], lambda: plain_steps(Script(), orjson.dumps(body)))


def _date(now: datetime) -> str:
    return format_datetime(now, usegmt=True)
