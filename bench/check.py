"""Whether an answer is the one that was asked for. Pure: bytes and times in, times out, or BadAnswer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from bench.framing import HEAD_END, BadFraming, ChunkedBody, content_length, is_chunked, status_of
from bench.websocket import TEXT, Frames

_WORD = re.compile(r"w(0|[1-9]\d*)@(\d{16})x*")


class BadAnswer(Exception):
    """An answer that is wrong; the text says how."""


class Expected(msgspec.Struct, frozen=True):
    """What the mock was to say, and whether usage was asked for."""

    nonce: int
    words: int
    usage: bool = True
    exact_usage: bool = True  # of this answer alone; a combination counts its members' tokens too


class Seen(msgspec.Struct, frozen=True):
    """When the words of a good answer arrived and when they were sent: µs of the monotonic clock.

    Whole answers have no words here: they come at once.
    """

    arrived_us: list[int] = []
    sent_us: list[int] = []


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_CHUNK = msgspec.json.Decoder(_Chunk)


def _decoded(data: bytes) -> _Chunk:
    try:
        chunk = _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"{error}: {data[:80]!r}") from error
    if bytes(chunk.error) not in (b"", b"null"):
        raise BadAnswer(f"error: {bytes(chunk.error)[:200]!r}")
    return chunk


def _check_usage(found: _Usage | None, expected: Expected) -> None:
    if found is None:
        if expected.usage:
            raise BadAnswer("no usage")
        return
    right = found.completion_tokens == expected.words if expected.exact_usage else found.completion_tokens > 0
    if not right:
        raise BadAnswer(f"usage says {found.completion_tokens} tokens, not {expected.words}")


class Words:
    """Follows the text of one answer, however it is cut: the nonce, then each word in its place."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._text = ""  # of a word that has not ended yet
        self._nonce_seen = False
        self._arrived: list[int] = []
        self._sent: list[int] = []

    def add(self, text: str, at_us: int) -> None:
        """Take the next piece. Raises BadAnswer."""
        *words, self._text = (self._text + text).split(" ")
        for word in words:
            self._word(word, at_us)

    def _word(self, word: str, at_us: int) -> None:
        if not self._nonce_seen:
            if word != f"[{self._expected.nonce}]":
                raise BadAnswer(f"the answer to another request: {word[:40]!r}, not [{self._expected.nonce}]")
            self._nonce_seen = True
            return
        found = _WORD.fullmatch(word)
        if not found or int(found[1]) != len(self._arrived):
            raise BadAnswer(f"{word[:40]!r} where w{len(self._arrived)} belongs")
        self._arrived.append(at_us)
        self._sent.append(int(found[2]))

    def end(self) -> Seen:
        """The times of all words. Raises BadAnswer if some are missing."""
        if self._text or len(self._arrived) != self._expected.words:
            raise BadAnswer(f"{len(self._arrived)} words of {self._expected.words}")
        return Seen(self._arrived, self._sent)


class StreamCheck:
    """Follows one stream, event by event."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._words = Words(expected)
        self._finished = self._done = False
        self._usage: _Usage | None = None

    def event(self, event: bytes, at_us: int) -> None:
        """Take one event without its blank line. Comments are passed over. Raises BadAnswer."""
        lines = [line for line in event.split(b"\n") if line and not line.startswith(b":")]
        if not lines:
            return
        if self._done:
            raise BadAnswer(f"an event after [DONE]: {event[:80]!r}")
        if len(lines) > 1 or not lines[0].startswith(b"data:"):
            raise BadAnswer(f"not one line of data: {event[:200]!r}")
        data = lines[0][5:].strip()
        if data == b"[DONE]":
            self._done = True
            return
        chunk = _decoded(data)
        for choice in chunk.choices:
            self._choice(choice, at_us)
        if chunk.usage is not None:
            if self._usage is not None:
                raise BadAnswer("usage twice")
            if not self._expected.usage:
                raise BadAnswer("usage that was not asked for")
            self._usage = chunk.usage

    def _choice(self, choice: _Choice, at_us: int) -> None:
        if choice.delta is not None and choice.delta.content:
            if self._finished:
                raise BadAnswer("text after the finish reason")
            self._words.add(choice.delta.content, at_us)
        if choice.finish_reason is not None:
            if self._finished:
                raise BadAnswer("two finish reasons")
            if choice.finish_reason != "stop":
                raise BadAnswer(f"finish reason {choice.finish_reason!r}")
            self._finished = True

    def end(self) -> Seen:
        """Judge the whole when the body has ended. Raises BadAnswer."""
        seen = self._words.end()
        if not self._finished:
            raise BadAnswer("no finish reason")
        _check_usage(self._usage, self._expected)
        if not self._done:
            raise BadAnswer("no [DONE]")
        return seen


def _bodies(reads: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The content of each read behind the head, at its time.

    Raises BadAnswer for a status other than 200 and for a body that is cut off.
    """
    held, head, chunked, length = b"", b"", ChunkedBody(), 0
    is_framed = False
    expected_length: int | None = None
    for at_us, data in reads:
        if not head:
            held += data
            end = held.find(HEAD_END)
            if end < 0:
                continue
            head, data = held[: end + len(HEAD_END)], held[end + len(HEAD_END) :]
            if status_of(head) != 200:
                raise BadAnswer(f"status {status_of(head)}: {data[:200]!r}")
            is_framed, expected_length = is_chunked(head), content_length(head)
        content = chunked.feed(data) if is_framed else data
        length += len(content)
        if content:
            yield at_us, content
    if not head:
        raise BadAnswer("no head")
    if (is_framed and not chunked.over) or (expected_length is not None and length != expected_length):
        raise BadAnswer("the body is cut off")


def _events(bodies: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Each server-sent event without its blank line, at the time of the read that completed it."""
    held = b""
    try:
        for at_us, content in bodies:
            # Nothing but line ends holds a bare CR: within JSON it is escaped.
            *events, held = (held + content.replace(b"\r", b"")).split(b"\n\n")
            for event in events:
                yield at_us, event
    except BadFraming as error:
        raise BadAnswer(str(error)) from error
    if held:
        raise BadAnswer(f"the last event is cut off: {held[:80]!r}")


def check_stream(reads: Iterable[tuple[int, bytes]], expected: Expected) -> Seen:
    """Judge a streamed answer by the reads it came in, head and all, each with its time. Raises BadAnswer."""
    check = StreamCheck(expected)
    for at_us, event in _events(_bodies(reads)):
        check.event(event, at_us)
    return check.end()


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


class _Message(msgspec.Struct):
    type: str
    event: _Event | None = None


class _Text(msgspec.Struct):
    text: str


_MESSAGE = msgspec.json.Decoder(_Message)
_TEXT = msgspec.json.Decoder(_Text)
RUN_ENDS = ("run.completed", "run.incomplete", "run.failed", "run.cancelled")


def check_watcher(reads: Iterable[tuple[int, bytes]], expected: Expected) -> tuple[Seen, int]:
    """Judge what a watcher heard of one run by websocket: all of its text, and its end once.

    Returns the times of the words, and how many events it was told. Raises BadAnswer.
    """
    words, frames, head, told, ends = Words(expected), Frames(), b"", 0, 0
    try:
        for at_us, data in reads:
            if not head.endswith(HEAD_END):
                head, found, data = (head + data).partition(HEAD_END)
                head += found
                if not found:
                    continue
                if status_of(head) != 101:
                    raise BadAnswer(f"status {status_of(head)} in place of a websocket")
            for opcode, content in frames.feed(data):
                message = _MESSAGE.decode(content) if opcode == TEXT else None
                if message is None or message.event is None:
                    continue  # a ping, an acknowledgement
                told += 1
                ends += message.event.type in RUN_ENDS
                if message.event.type == "model.delta":
                    words.add(_TEXT.decode(message.event.data).text, at_us)
    except (BadFraming, msgspec.DecodeError) as error:
        raise BadAnswer(str(error)) from error
    if ends != 1:
        raise BadAnswer(f"{ends} ends of the run")
    return words.end(), told


def check_whole(reads: Iterable[tuple[int, bytes]], expected: Expected) -> Seen:
    """Judge a whole answer by the reads it came in. Raises BadAnswer."""
    try:
        body = b"".join(content for _, content in _bodies(reads))
    except BadFraming as error:
        raise BadAnswer(str(error)) from error
    answer = _decoded(body)
    if len(answer.choices) != 1 or answer.choices[0].message is None:
        raise BadAnswer(f"not one choice with a message: {body[:80]!r}")
    choice = answer.choices[0]
    right = " ".join([f"[{expected.nonce}]", *(f"w{number}" for number in range(expected.words))])
    if choice.message is None or choice.message.content != right:
        raise BadAnswer(f"another text: {body[:200]!r}")
    if choice.finish_reason != "stop":
        raise BadAnswer(f"finish reason {choice.finish_reason!r}")
    _check_usage(answer.usage, expected)
    return Seen()
