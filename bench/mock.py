"""The mock upstream: an OpenAI-compatible server that costs little and says what the check expects.

``python -m bench.mock`` prints the port it took, and serves until it is told to end. ``GET /cuts`` lists when
connections were lost amid an answer, in µs of the monotonic clock. An answer is
``[nonce]``, copied from the request's ``[ask nonce]``, and then its words in order. In a stream each word
carries the moment at which it was sent, in µs of the monotonic clock: ``w7@0000001234567890``.
"""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import sys
import time
from collections import deque
from functools import cache
from typing import cast

import msgspec
import uvloop

from bench.framing import HEAD_END, BadFraming, ChunkedBody, content_length, is_chunked
from bench.scenarios import MODELS, Pace

PROMPT_TOKENS = 250
CREATED = 1_760_000_000
_NONCE = re.compile(rb"\[ask (\d{1,20})\]")
_HEAD = (
    b"HTTP/1.1 %d %s\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: %s\r\nserver: rig\r\n"
    b"openai-version: 2020-10-01\r\nopenai-processing-ms: 12\r\nx-ratelimit-limit-requests: 10000\r\n"
    b"x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-reset-requests: 6ms\r\nx-request-id: req_%012d\r\n"
)
_STREAM_HEAD = b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class Request(msgspec.Struct, frozen=True):
    """What the mock reads of a chat request."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None


_REQUEST = msgspec.json.Decoder(Request)


def usage(words: int) -> bytes:
    """The usage of an answer, as JSON."""
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}'
    ) % (PROMPT_TOKENS, words, PROMPT_TOKENS + words)


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


class Script:
    """The bytes of a model's streams, made ready: what is filled in is of one width, so sizes are known."""

    def __init__(self, model: str, with_usage: bool) -> None:
        self.pace = MODELS[model]
        self._name = model.encode()
        self._null = b',"usage":null' if with_usage else b""
        self._with_usage = with_usage
        self._end = b'"},"logprobs":null,"finish_reason":null}]' + self._null + b"}\n\n\r\n"
        self._behind = b"x" * self.pace.pad + b" "
        room = len(self.start(0)) + len(b"0" * 16 + self._behind) + len(self._end) - len(b"\r\n")
        words = [b"w%d@" % number for number in range(self.pace.words)]
        self._words = [(b"%x\r\n" % (room + len(word)), word) for word in words]

    def _event(self, stream: int) -> bytes:
        return (
            b'data: {"id":"chatcmpl-rig%012d","object":"chat.completion.chunk","created":%d,"model":"%b",'
            b'"service_tier":"default","system_fingerprint":"fp_rig",'
        ) % (stream, CREATED, self._name)

    def start(self, stream: int) -> bytes:
        """What all word chunks of one stream begin with."""
        return self._event(stream) + b'"choices":[{"index":0,"delta":{"content":"'

    def opening(self, stream: int, nonce: bytes) -> bytes:
        """The head, and the chunk with the role and the nonce."""
        event = (
            self._event(stream)
            + b'"choices":[{"index":0,"delta":{"role":"assistant","content":"[%b] ' % nonce
        )
        tail = b'"},"logprobs":null,"finish_reason":null}]' + self._null + b"}\n\n"
        return (_HEAD % (200, b"OK", b"text/event-stream", stream)) + _STREAM_HEAD + _framed(event + tail)

    def word(self, number: int, start: bytes) -> bytes:
        """One framed chunk, stamped with this moment."""
        size, word = self._words[number]
        return b"".join(
            (size, start, word, b"%016d" % (time.monotonic_ns() // 1000), self._behind, self._end)
        )

    def closing(self, stream: int) -> bytes:
        """The finish reason, the usage if it was asked for, and the end."""
        event = self._event(stream)
        ending = (
            b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]'
            + self._null
            + b"}\n\n"
        )
        parts = [_framed(event + ending)]
        if self._with_usage:
            parts.append(_framed(event + b'"choices":[],"usage":' + usage(self.pace.words) + b"}\n\n"))
        return b"".join((*parts, _framed(b"data: [DONE]\n\n"), b"0\r\n\r\n"))


@cache
def script(model: str, with_usage: bool) -> Script:
    """The one script of a model. Raises KeyError for a model that the mock does not play."""
    return Script(model, with_usage)


@cache
def whole_text(words: int) -> bytes:
    """The words of a whole answer."""
    return b" ".join(b"w%d" % number for number in range(words))


def whole_answer(number: int, request: Request, nonce: bytes) -> bytes:
    """A whole answer with its head."""
    pace = MODELS[request.model]
    body = (
        b'{"id":"chatcmpl-rig%012d","object":"chat.completion","created":%d,"model":"%b","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"[%b] %b","refusal":null,"annotations":[]},"logprobs":null,'
        b'"finish_reason":"stop"}],"usage":%b,"service_tier":"default","system_fingerprint":"fp_rig"}'
    ) % (number, CREATED, request.model.encode(), nonce, whole_text(pace.words), usage(pace.words))
    head = _HEAD % (200, b"OK", b"application/json", number)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def _json(body: bytes) -> bytes:
    return b"%bcontent-length: %d\r\n\r\n%b" % (_HEAD % (200, b"OK", b"application/json", 0), len(body), body)


def refusal(status: int, message: str) -> bytes:
    """An error answer, after which the connection is closed."""
    body = msgspec.json.encode({"error": {"message": message, "type": "invalid_request_error", "code": None}})
    head = _HEAD % (status, b"Refused", b"application/json", 0)
    return b"%bconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)


class Talk:
    """One answer on its way: a step is a word, or all of it if it is whole."""

    def __init__(self, connection: Connection, number: int, request: Request, nonce: bytes) -> None:
        self.connection = connection
        self.pace: Pace = MODELS[request.model]
        self.due_ms = 0
        self._number = number
        self._said = 0
        self._whole = b"" if request.stream else whole_answer(number, request, nonce)
        options = request.stream_options
        self._script = script(request.model, options is not None and options.include_usage)
        self._start = self._script.start(number)
        self._opening = self._script.opening(number, nonce) if request.stream else b""

    @property
    def delay_ms(self) -> int:
        """Before the first byte."""
        return self.pace.first_ms + (self.pace.every_ms * (self.pace.words - 1) if self._whole else 0)

    def step(self) -> bool:
        """Say the next word; True: there are more. False at the end, and when nobody listens any more."""
        connection = self.connection
        if connection.talk is not self:
            return False
        if self._whole:
            connection.finish(self._whole)
            return False
        data = self._script.word(self._said, self._start)
        if self._opening:
            data, self._opening = self._opening + data, b""
        self._said += 1
        if self._said < self.pace.words:
            connection.say(data)
            return True
        connection.finish(data + self._script.closing(self._number))
        return False


class Pacer:
    """Lets every talk take its steps on time: slots of a millisecond, and one timer for all talks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, list[Talk]] = {}
        self._reached_ms = 0
        self._hasty: list[Talk] = []
        self._ticking = self._hurrying = False

    def begin(self, talk: Talk) -> None:
        """Take on a talk: its first step now, or after its delay."""
        now_ms = time.monotonic_ns() // 1_000_000
        talk.due_ms = now_ms + talk.delay_ms
        if talk.delay_ms:
            self._put(talk)
        else:
            self._step(talk)

    def _step(self, talk: Talk) -> None:
        if not talk.step():
            return
        if talk.pace.every_ms:
            talk.due_ms += talk.pace.every_ms
            self._put(talk)
            return
        self._hasty.append(talk)
        if not self._hurrying:
            self._hurrying = True
            self._loop.call_soon(self._hurry)

    def _hurry(self) -> None:
        """One word of each talk without pauses, then the loop has its turn, so that each word is a write."""
        talks, self._hasty = self._hasty, []
        self._hurrying = False
        for talk in talks:
            self._step(talk)

    def _put(self, talk: Talk) -> None:
        if not self._ticking:
            self._ticking = True
            self._reached_ms = time.monotonic_ns() // 1_000_000
            self._loop.call_later(0.001, self._tick)
        # A talk that is late goes with the next tick.
        self._slots.setdefault(max(talk.due_ms, self._reached_ms + 1), []).append(talk)

    def _tick(self) -> None:
        now_ms = time.monotonic_ns() // 1_000_000
        while self._reached_ms < now_ms:
            self._reached_ms += 1
            for talk in self._slots.pop(self._reached_ms, ()):
                self._step(talk)
        self._ticking = bool(self._slots)
        if self._ticking:
            self._loop.call_later(0.001, self._tick)


class Mock:
    """What all connections share."""

    def __init__(self) -> None:
        self.pacer = Pacer()
        self.asked = 0
        self.cuts: deque[int] = deque(maxlen=1000)  # when connections were lost amid an answer

    def connection(self) -> Connection:
        return Connection(self)


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request, its answer, the next."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock
        self._held = b""
        self._transport: asyncio.WriteTransport | None = None
        self.talk: Talk | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are of no class of asyncio's

    def connection_lost(self, _error: Exception | None) -> None:
        if self.talk is not None:
            self._mock.cuts.append(time.monotonic_ns() // 1000)
        self._transport = self.talk = None

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        if self.talk is None:
            self._answer()

    def say(self, data: bytes) -> None:
        """Write a part of an answer."""
        if self._transport is not None:
            self._transport.write(data)

    def finish(self, data: bytes) -> None:
        """Write an answer's last part; a request that waits is taken up."""
        self.say(data)
        self.talk = None
        if self._held:
            self._answer()

    def _refuse(self, status: int, message: str) -> None:
        self.say(refusal(status, message))
        if self._transport is not None:
            self._transport.close()

    def _answer(self) -> None:
        try:
            taken = self._take()
        except BadFraming as error:
            self._refuse(400, str(error))
            return
        if taken is None:
            return
        head, body = taken
        if head.startswith(b"GET /cuts "):
            self.say(_json(msgspec.json.encode(list(self._mock.cuts))))
            return
        target = head.split(b" ", 2)[1] if head.count(b" ") > 1 else b""
        if not (head.startswith(b"POST ") and target.partition(b"?")[0].endswith(b"/chat/completions")):
            self._refuse(404, "the mock serves POST …/chat/completions")
            return
        try:
            request = _REQUEST.decode(body)
        except msgspec.DecodeError as error:
            self._refuse(400, str(error))
            return
        nonce = _NONCE.search(body)
        if request.model not in MODELS or nonce is None:
            self._refuse(404, f"no model {request.model}" if nonce else "no [ask nonce] in the request")
            return
        self._mock.asked += 1
        self.talk = Talk(self, self._mock.asked, request, nonce[1])
        self._mock.pacer.begin(self.talk)

    def _take(self) -> tuple[bytes, bytes] | None:
        """The next request's head and body, if all of it is there. Raises BadFraming."""
        end = self._held.find(HEAD_END)
        if end < 0:
            return None
        end += len(HEAD_END)
        head, rest = self._held[:end], self._held[end:]
        if is_chunked(head):
            chunked = ChunkedBody()
            body = chunked.feed(rest)
            if not chunked.over:
                return None
            self._held = b""
            return head, body
        length = content_length(head) or 0
        if len(rest) < length:
            return None
        self._held = rest[length:]
        return head, rest[:length]


async def serve(port: int = 0) -> None:
    """Serve on a port of loopback until SIGTERM or SIGINT; prints the port."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    mock = Mock()
    server = await loop.create_server(mock.connection, "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    gc.set_threshold(100_000)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
