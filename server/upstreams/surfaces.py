"""The surfaces beside chats, at an OpenAI-compatible server: a request's bytes out, its answer's bytes back.

JSON and plain text are read to their end before anything of them goes on: so a cut answer, or an error that
came with a 200, can still be a real status or go to another channel. All else (audio, events) flows through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from msgspec import Raw
from yarl import URL

from server.chat import JsonObject
from server.deltas import Usage
from server.errors import InvalidRequest, ServerError, SurfaceNotOffered, UpstreamEmpty, UpstreamInvalid
from server.openai_wire import clean_error, is_error_object, upstream_error
from server.presets import base_url_of, preset_of
from server.settings import Channel
from server.surfaces import AnswerHead, SurfaceRequest, media_type
from server.upstreams.base import Call, OwnTimeouts
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import Exchange, drain, rest, secrets_of
from server.upstreams.http import HttpAnswer, HttpClient, Target, Uploader
from server.upstreams.http_upstream import channel_target
from server.upstreams.openai import auth_headers
from server.upstreams.preset_rules import PresetRules

# What an upstream answers for a path that it does not have.
_NO_SUCH_PATH = (404, 405, 501)
BYTES = "application/octet-stream"
# An object with one of these may tell of an error though it came with a 200.
_TOLD = ("error", "base_resp", "code", "error_code")


class SurfaceUpstream:
    """The surfaces of one channel of kind ``openai``. Both clients are shared and closed by their owner.

    ``uploader`` takes what is too large to be held in memory.
    """

    def __init__(self, channel: Channel, client: HttpClient, uploader: Uploader) -> None:
        self._channel = channel
        self._client = client
        self._uploader = uploader
        self._base = base_url_of(channel).removesuffix("/chat/completions").rstrip("/")
        preset = preset_of(channel)
        self._preset = PresetRules(preset) if channel.preset is not None else None
        self._timeouts = OwnTimeouts(channel)
        self._names = {name: model.model or name for name, model in channel.served().items()}
        self._secrets = secrets_of(channel)
        self._targets: dict[str, Target] = {}  # of JSON requests, by path

    async def ask(
        self, request: SurfaceRequest, model: str, call: Call
    ) -> AsyncGenerator[AnswerHead | bytes, None]:
        """Yield the answer's head, then its bytes as they come; ``model`` is the public name.

        Once the head is out the upstream has answered with a success. A JSON answer's ``model`` is the name
        that the client asked for. Raises a ``ServerError`` when it fails, before the head or after. Closing
        it closes the connection.
        """
        theirs = self._names.get(model, model)
        timeouts = self._timeouts.of(call)
        clocks = Clocks(
            self._client.patrol,
            timeouts,
            plain=True,
            deadline=call.deadline,
            head_in_time=self._channel.head_in_time,
        )
        exchange = Exchange(self._client, timeouts.connect_s, clocks, upstream_error)
        try:
            answer = await self._begin(exchange, request, theirs)
            kind = _type_of(answer, request)
            if _comes_whole(kind):
                head, body = _whole(answer.status, kind, await rest(answer, b""), request.model or model)
                exchange.clocks.stop()
                yield head
                yield body
                return
            exchange.clocks.stop()
            clocks = exchange.clocks = Clocks(
                self._client.patrol, timeouts, plain=False, deadline=call.deadline
            )
            clocks.spoken()  # from here on silence is counted
            clocks.heard()
            clocks.watch(answer.fail)
            data = await answer.read()
            if not data:
                raise UpstreamEmpty("The upstream answered without any content; try again later.")
            yield _streamed(answer, kind)
            while data:
                clocks.pause()
                yield data
                clocks.heard()
                data = await answer.read()
            clocks.stop()
            await drain(answer)
        except ServerError as error:
            told = error if self._preset is None else self._preset.explained(error)
            clean_error(told, secrets=self._secrets, names={theirs: model})
            raise told from error.__cause__ if told is error else error
        finally:
            exchange.end()

    async def _begin(self, exchange: Exchange, request: SurfaceRequest, theirs: str) -> HttpAnswer:
        body = request.body(theirs)
        try:
            if isinstance(body, bytes):
                return await exchange.begin(self._target(request), body)
            return await exchange.begin_upload(self._uploader, self._target(request), body)
        except ServerError as error:
            if error.upstream_status in _NO_SUCH_PATH and error.code != "model_not_found":
                raise SurfaceNotOffered(
                    f"The upstream of channel {self._channel.name} has no {request.path} (status "
                    f"{error.upstream_status}); the operator should leave {request.surface.name} out of "
                    "the channel's surfaces.",
                    upstream_status=error.upstream_status,
                ) from error
            raise

    def _target(self, request: SurfaceRequest) -> Target:
        if (known := self._targets.get(request.path)) is not None:
            return known
        headers = auth_headers(self._channel, self._channel.api_key)
        headers |= {"Accept": "*/*", "Content-Type": request.content_type}
        target = channel_target(self._channel, URL(self._base + request.path), headers)
        if not request.surface.form:  # the type of a form names the boundary that its client has chosen
            self._targets[request.path] = target
        return target


def _type_of(answer: HttpAnswer, request: SurfaceRequest) -> str:
    """The Content-Type that goes on: the upstream's, if it can stand in a head."""
    said = answer.headers.get("content-type", "")
    if not said:
        return BYTES if request.surface.name == "speech" else "application/json"
    return said if said.isascii() and said.isprintable() else BYTES


def _comes_whole(content_type: str) -> bool:
    kind = media_type(content_type)
    return kind.endswith("json") or (kind.startswith("text/") and kind != "text/event-stream")


def _streamed(answer: HttpAnswer, content_type: str) -> AnswerHead:
    length = answer.headers.get("content-length", "")
    if answer.headers.get("content-encoding", "").lower() not in ("", "identity"):
        length = ""  # it is inflated on its way
    return AnswerHead(
        answer.status, content_type, int(length) if length.isascii() and length.isdigit() else None
    )


def _whole(status: int, content_type: str, body: bytes, name: str) -> tuple[AnswerHead, bytes]:
    """A whole answer, under the model's name ``name``. Raises what its content means."""
    if not body.strip():
        raise UpstreamEmpty("The upstream answered without any content; try again later.")
    usage = None
    if media_type(content_type) == "text/html":
        raise UpstreamInvalid("The upstream answered with a web page; check the channel's base_url.")
    if media_type(content_type).endswith("json"):
        body, usage = _read_json(body, name)
    return AnswerHead(status, content_type, len(body), usage), body


def _read_json(body: bytes, name: str) -> tuple[bytes, Usage | None]:
    try:
        json = JsonObject(body)
    except msgspec.ValidationError:  # JSON, but no object: some list their results right away
        return body, None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest) as error:
        raise UpstreamInvalid("The upstream's answer is not JSON; try again later.") from error
    if any(key in json for key in _TOLD) and is_error_object(msgspec.json.decode(body)):
        raise upstream_error(200, body)
    usage = _usage(json.raw("usage"))
    said = json.raw("model")
    if said is not None and said.startswith(b'"') and said != (told := msgspec.json.encode(name)):
        body = json.edit({"model": told})
    return body, usage


def _usage(raw: bytes | None) -> Usage | None:
    """What an answer tells of its tokens, by whichever names; None if it counts nothing of the kind."""
    if raw is None or not raw.startswith(b"{"):
        return None
    fields = msgspec.json.decode(raw, type=dict[str, Raw])

    def figure(*names: str) -> int | None:
        for name in names:
            if (value := bytes(fields.get(name, b""))).isdigit():
                return int(value)
        return None

    prompt = figure("prompt_tokens", "input_tokens")
    completion = figure("completion_tokens", "output_tokens")
    total = figure("total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    if prompt is None and completion is None:
        prompt = total
    sum_ = (prompt or 0) + (completion or 0)
    return Usage(prompt or 0, completion or 0, sum_ if total is None else total, raw=raw)
