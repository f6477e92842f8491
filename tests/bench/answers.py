"""Right answers, for tests to spoil."""

from __future__ import annotations

import json

NONCE = 100000000007
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    """One event with a choice."""
    delta = {} if content is None else {"content": content}
    chunk = {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def usage(tokens: int) -> bytes:
    """The event that tells the usage."""
    return b"data: " + json.dumps({"choices": [], "usage": {"completion_tokens": tokens}}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def right_stream(words: int = 3) -> list[bytes]:
    """The events of a right stream; word n was sent at 1000 + n."""
    return [
        event(f"[{NONCE}] "),
        *(event(f"w{number}@{1000 + number:016d} ") for number in range(words)),
        event(finish="stop"),
        usage(words),
        DONE,
    ]


def streamed(events: list[bytes]) -> bytes:
    """A whole streamed answer, a chunk for each event."""
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in [*events, b""])


def whole(text: str, *, finish: str | None = "stop", tokens: int | None = 3) -> bytes:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = None if tokens is None else {"completion_tokens": tokens}
    body = json.dumps({"choices": [choice], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
