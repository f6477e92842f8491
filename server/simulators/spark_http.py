"""The HTTP flavours of a simulated Spark: OpenAI's shape with the vendor's quirks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import orjson

from server.simulators.answers import JSON, SSE
from server.simulators.playing import Answer
from server.simulators.said import CREATED, Chunk, Said
from server.simulators.script import ToolCall
from server.simulators.spark_asked import (
    SparkAsked,
    SparkRules,
    check_ranges,
    count_tokens,
    last_user,
    read_json,
    thinks,
    web_search,
)
from server.simulators.spark_errors import SparkFault, http_error, http_status_of, message_of
from server.simulators.spark_frames import SOFT_CODE, say_spark, sid_of, sources_of, usage_of
from server.simulators.spark_models import HTTP_PATHS, Model
from server.simulators.spark_script import SparkScript
from server.simulators.steps import EventForm, Piece, event_steps, plain_steps

_ROLES = ("system", "user", "assistant", "tool")


def read_http(body: bytes, path: str, app_id: str, rules: SparkRules) -> SparkAsked:
    """What an HTTP request asks for. Raises SparkFault."""
    chat = read_json(body)
    name = chat.get("model")
    model = _model(name, path)
    limits = model if model.reasons else msgspec.structs.replace(model, max_temperature=2.0)
    ranged = {key: value for key, value in chat.items() if key != "temperature" or value != 0}
    check_ranges(chat if model.reasons else ranged, limits, rules, "$")
    messages = _messages(chat)
    tokens = [count_tokens(message["content"] or "") for message in messages]
    if sum(tokens) > model.input_tokens:
        raise SparkFault(10907)
    search = web_search(chat.get("tools"))
    kinds = {tool["type"] for tool in chat.get("tools") or ()}
    if model.reasons and len(kinds) > 1:
        raise SparkFault(10163, "'$.tools' web_search cannot be used together with functions")
    return SparkAsked(
        model=model,
        name=str(name),
        app_id=app_id,
        uid=str(chat.get("user") or ""),
        last_user=last_user(messages),
        prompt_tokens=sum(tokens),
        question_tokens=tokens[-1],
        thinks=thinks(chat, model),
        shows_sources=model.shows_sources and search is not None and search.get("show_ref_label") is True,
        stream=chat.get("stream") is True,
        calls_as_list=chat.get("tool_calls_switch") is True,
        keep_alive=chat.get("keep_alive") is True,
    )


def http_fault(
    script: SparkScript, code: int, detail: str | None, number: int, now: datetime, *, stream: bool = False
) -> Answer:
    """An error in the shape that the script asks for."""
    message = message_of(code, detail, now) if script.error_message is None else script.error_message
    sid = sid_of(script, number, http=True)
    shapes: dict[str, dict[str, Any]] = {
        "status": http_error(code, message, sid),
        "top": {"code": code, "message": message, "sid": sid},
        "event": {"error": {"message": message, "type": "api_error", "param": None, "code": code}},
        "maas": {"code": code, "msg": message, "Sid": sid, "timeStamp": CREATED},
    }
    body = orjson.dumps(shapes[script.http_error])
    if script.http_error == "status":
        status = script.http_status or http_status_of(code)
        return Answer(status, JSON, [], lambda: plain_steps(script, body))
    if stream:
        event = EventForm(script).event(body)
        return Answer(200, SSE, [], lambda: plain_steps(script, event), streamed=True)
    return Answer(200, JSON, [], lambda: plain_steps(script, body))


def http_answer(script: SparkScript, asked: SparkAsked, number: int, now: datetime) -> Answer:
    """The answer to a chat over HTTP."""
    code = script.error_code
    if code is not None and code != SOFT_CODE and script.error_after in (None, 0):
        return http_fault(script, int(code), None, number, now, stream=asked.stream)
    said = say_spark(script, asked, number)
    wire = _Wire(script, asked, said, number, now)
    if not asked.stream:
        blank = "\n\n" if asked.keep_alive else ""
        plain = msgspec.structs.replace(script, leading=blank + script.leading)
        return Answer(200, JSON, [], lambda: plain_steps(plain, orjson.dumps(wire.completion())))

    def error() -> Piece:
        kind = script.http_error if script.http_error != "status" else "event"
        inside = msgspec.structs.replace(
            script, http_error=kind, first_ms=0, stall_after=None, cut_after=None
        )
        fault = http_fault(inside, int(code or 10012), None, number, now, stream=True)
        return Piece(b"".join(step.data for step in fault.steps() if isinstance(step, Piece)))

    def steps() -> Iterator[Any]:
        return event_steps(script, EventForm(script), wire.chunks(), error)

    return Answer(200, SSE, [("cache-control", "no-cache")], steps, streamed=True)


class _Wire:
    """One answer, whole or in chunks."""

    def __init__(
        self, script: SparkScript, asked: SparkAsked, said: Said, number: int, now: datetime
    ) -> None:
        self._script, self._asked, self._said = script, asked, said
        soft = script.error_code == SOFT_CODE
        self._ending = {
            "code": SOFT_CODE if soft else 0,
            "message": message_of(SOFT_CODE, script.error_message, now) if soft else script.header_message,
        }
        self._sid = sid_of(script, number, http=True)

    def completion(self) -> dict[str, Any]:
        said, script = self._said, self._script
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.text)}
        if said.reasoning:
            message["reasoning_content"] = "".join(said.reasoning)
        if said.tools:
            message["tool_calls"] = self._calls()
        choice = {"message": message, "index": 0}
        whole = {
            **self._ending,
            "sid": self._sid,
            "choices": [self._finished(choice), *self._sources("message")],
        }
        return whole if script.usage == "never" else {**whole, "usage": self._usage()}

    def chunks(self) -> Iterator[Chunk]:
        said, script = self._said, self._script
        if sources := self._sources("delta"):
            yield self._chunk({"content": ""}, counts=False, more=sources)
        for thought in said.reasoning:
            yield self._chunk({"content": "", "reasoning_content": thought})
        for piece in said.text:
            yield self._chunk({"content": piece})
        if said.tools:
            yield self._chunk({"content": "", "tool_calls": self._calls()})
        last = self._chunk({"content": ""}, counts=False, last=True).data
        yield Chunk(last if script.usage == "never" else {**last, "usage": self._usage()}, False)

    def _chunk(
        self, delta: dict[str, Any], *, counts: bool = True, last: bool = False, more: list[Any] | None = None
    ) -> Chunk:
        choice: dict[str, Any] = {"delta": {"role": "assistant", **delta}, "index": 0}
        head = self._ending if last else {"code": 0, "message": self._script.header_message}
        event = {
            **head,
            "sid": self._sid,
            "id": self._sid,
            "created": CREATED,
            "choices": [self._finished(choice) if last else choice, *(more or ())],
        }
        return Chunk(event, counts)

    def _finished(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**choice, "finish_reason": self._said.finish} if self._script.choice_finish else choice

    def _calls(self) -> Any:
        calls = [self._call(call) for call in self._said.tools]
        return calls if self._asked.calls_as_list else calls[0]

    def _call(self, call: ToolCall) -> dict[str, Any]:
        function = {"name": call.name, "arguments": call.arguments}
        named = {"id": call.id} if self._script.call_ids else {}
        return {**named, "type": "function", "function": function}

    def _sources(self, place: str) -> list[dict[str, Any]]:
        pages = [
            {"index": at, "url": one.url, "title": one.title}
            for at, one in enumerate(sources_of(self._script, self._asked), 1)
        ]
        if not pages:
            return []
        call = {"type": "web_search", "web_search": {"outputs": pages}}
        return [{place: {"role": "tool", "tool_calls": [call]}, "index": 1}]

    def _usage(self) -> dict[str, int]:
        usage = usage_of(self._script, self._asked, self._said)
        del usage["question_tokens"]
        return usage


def _model(name: object, path: str) -> Model:
    for model in HTTP_PATHS[path]:
        if name in model.domains:
            return model
    raise SparkFault(10005, f"invalid param model:{name}")


def _messages(chat: dict[str, Any]) -> list[dict[str, Any]]:
    messages = chat.get("messages")
    if not isinstance(messages, list) or not messages:
        raise SparkFault(10003)
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise SparkFault(10003)
        content = message.get("content")
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise SparkFault(10003)
    return messages
