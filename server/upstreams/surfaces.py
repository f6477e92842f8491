"""The surfaces beside chats: a request's bytes out, its answer's bytes back.

A vendor of another dialect has a subclass, which puts both into other words. JSON and plain text are read to
their end before anything of them goes on: so a cut answer, or an error that came with a 200, can still be a
real status or go to another channel. All else (audio, events) flows through.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TypeAlias

import msgspec
from msgspec import Raw
from yarl import URL

from server.chat import JsonObject
from server.deltas import Usage
from server.embeddings import EmbeddingsAsked, embeddings_answer, joined, parts_of, read_embeddings
from server.errors import InvalidRequest, ServerError, SurfaceNotOffered, UpstreamEmpty, UpstreamInvalid
from server.foreign import NativeRequest
from server.openai_wire import clean_error, is_error_object, upstream_error
from server.presets import base_url_of, preset_of
from server.settings import Channel
from server.surfaces import EMBEDDINGS, AnswerHead, JsonRequest, SurfaceRequest, Upload, media_type
from server.upstreams.base import Call, OwnTimeouts
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import Exchange, ReadRefusal, drain, rest, secrets_of
from server.upstreams.http import HttpAnswer, HttpClient, Target, Uploader
from server.upstreams.http_upstream import channel_target
from server.upstreams.openai import auth_headers
from server.upstreams.preset_rules import PresetRules

# What an upstream answers for a path that it does not have.
_NO_SUCH_PATH = (404, 405, 501)
BYTES = "application/octet-stream"
# An object with one of these may tell of an error though it came with a 200.
_TOLD = ("error", "base_resp", "code", "error_code")
# A larger answer is put into OpenAI's words in a thread: it would hold up everybody else's calls. (bytes)
LARGE_BYTES = 512 * 1024
InOurWords: TypeAlias = Callable[[bytes], bytes]
"""A whole answer of another dialect → OpenAI's. Raises ``UpstreamInvalid``."""


class SurfaceUpstream:
    """The surfaces of one channel. Both clients are shared and closed by their owner.

    ``uploader`` takes what is too large to be held in memory. This class is kind ``openai``; a subclass says
    where a request goes (``target``), what is sent and how the answer is read (``prepared``), and what its
    errors mean (``read_refusal``, ``explained``).
    """

    read_refusal: ReadRefusal = staticmethod(upstream_error)

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
        self._auth = auth_headers(channel, channel.api_key)
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
        exchange = Exchange(self._client, timeouts.connect_s, clocks, self.read_refusal, call.sent_again)
        try:
            sent, in_our_words = self.prepared(request, theirs, call)
            answer = await self._begin(exchange, request, theirs, sent)
            kind = _type_of(answer, request)
            if in_our_words is not None or _comes_whole(kind):
                said = await rest(answer, b"")
                if in_our_words is not None:
                    kind = "application/json"
                    large = len(said) > LARGE_BYTES
                    said = await asyncio.to_thread(in_our_words, said) if large else in_our_words(said)
                head, body = _whole(answer.status, kind, said, request.model or model)
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
            told = self._offered(request, self.explained(error))
            clean_error(told, secrets=self.secrets(), names={theirs: model})
            raise told from error.__cause__ if told is error else error
        finally:
            exchange.end()

    def target(self, request: SurfaceRequest, theirs: str) -> Target | Awaitable[Target]:
        """Where a request to the model ``theirs`` goes; to be awaited if that has to be found out."""
        if (known := self._targets.get(request.path)) is not None:
            return known
        target = self.made(request, URL(self._base + request.path), self._auth)
        if not request.surface.form:  # the type of a form names the boundary that its client has chosen
            self._targets[request.path] = target
        return target

    def made(self, request: SurfaceRequest, url: URL, auth: Mapping[str, str]) -> Target:
        """The target of a request at ``url``; ``auth`` is the header with the key."""
        headers = {**auth, "Accept": "*/*", "Content-Type": request.content_type}
        return channel_target(self._channel, url, headers)

    def prepared(
        self, request: SurfaceRequest, theirs: str, call: Call
    ) -> tuple[bytes | Upload, InOurWords | None]:
        """What is sent, and how the answer is put into OpenAI's words; None: it is in them already.

        What had to be adapted is noted in ``call``.
        """
        return request.body(theirs), None

    def explained(self, error: ServerError) -> ServerError:
        """The same error, or what it means in the mouth of this vendor."""
        return error if self._preset is None else self._preset.explained(error)

    def secrets(self) -> tuple[str, ...]:
        """What may stand in no error."""
        return self._secrets

    async def _begin(
        self, exchange: Exchange, request: SurfaceRequest, theirs: str, sent: bytes | Upload
    ) -> HttpAnswer:
        target = self.target(request, theirs)
        if not isinstance(target, Target):
            target = await target
        if isinstance(sent, bytes):
            return await exchange.begin(target, sent)
        return await exchange.begin_upload(self._uploader, target, sent)

    def _offered(self, request: SurfaceRequest, error: ServerError) -> ServerError:
        """An error, or that the upstream does not have what was asked for."""
        if error.upstream_status not in _NO_SUCH_PATH or error.code == "model_not_found":
            return error
        return SurfaceNotOffered(
            f"The upstream of channel {self._channel.name} has no {request.path} (status "
            f"{error.upstream_status}); the operator should leave {request.surface.name} out of "
            "the channel's surfaces.",
            upstream_status=error.upstream_status,
        )


class EmbeddingsUpstream(SurfaceUpstream, ABC):
    """The embeddings of a vendor of another dialect; a subclass puts them into it and reads its answer.

    ``most_texts`` is how many it takes in one request: more go in several, one after the other.
    """

    most_texts: int | None = None

    async def ask(
        self, request: SurfaceRequest, model: str, call: Call
    ) -> AsyncGenerator[AnswerHead | bytes, None]:
        """See ``SurfaceUpstream``; one answer, however many requests it takes."""
        parts = self._parts(request, model)
        if len(parts) < 2:
            async with aclosing(super().ask(request, model, call)) as answer:
                async for one in answer:
                    yield one
            return
        answers: list[bytes] = []
        usage = Usage()
        for part in parts:
            async with aclosing(super().ask(part, model, call)) as answer:
                async for one in answer:
                    if isinstance(one, bytes):
                        answers.append(one)
                    elif one.usage is not None:
                        usage += one.usage
        body = await asyncio.to_thread(joined, answers, usage)
        yield AnswerHead(200, "application/json", len(body), usage)
        yield body

    def _parts(self, request: SurfaceRequest, model: str) -> list[JsonRequest]:
        if self.most_texts is None or request.surface != EMBEDDINGS:
            return []
        body = request.body(model)
        assert isinstance(body, bytes)  # embeddings are asked for by a JSON object
        name = request.model or model
        return [JsonRequest(EMBEDDINGS, name, json) for json in parts_of(JsonObject(body), self.most_texts)]

    @abstractmethod
    def in_dialect(self, asked: EmbeddingsAsked, theirs: str) -> NativeRequest:
        """The request to the model ``theirs``. Raises ``InvalidRequest``."""

    @abstractmethod
    def read_vectors(self, body: bytes) -> tuple[list[bytes], int | None]:
        """The vectors of a whole answer as they came, and how many tokens were counted, if they were."""

    def prepared(
        self, request: SurfaceRequest, theirs: str, call: Call
    ) -> tuple[bytes | Upload, InOurWords | None]:
        """See ``SurfaceUpstream``."""
        body = request.body(theirs)
        assert isinstance(body, bytes)  # embeddings are asked for by a JSON object
        asked = read_embeddings(JsonObject(body))
        native = self.in_dialect(asked, theirs)
        self.tell_adapted(call, native)

        def in_our_words(said: bytes) -> bytes:
            vectors, count = self.read_vectors(said)
            return embeddings_answer(asked, vectors, theirs, count)

        return native.body, in_our_words

    def tell_adapted(self, call: Call, native: NativeRequest) -> None:
        """What had to be adapted in a request, in names of fields alone."""
        if native.warnings:
            call.adapted(self._channel.name, native.warnings)


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
    estimated = bytes(fields.get("estimated", b"")) == b"true"  # by us, where a vendor counts nothing
    return Usage(prompt or 0, completion or 0, sum_ if total is None else total, estimated, raw=raw)
