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


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"


def frame(text: bytes) -> bytes:
    """A server's text message."""
    size = len(text)
    length = (
        bytes([size])
        if size < 126
        else b"\x7e" + size.to_bytes(2)
        if size < 65_536
        else b"\x7f" + size.to_bytes(8)
    )
    return b"\x81" + length + text


def told(kind: str, **data: object) -> bytes:
    """A message that tells a watcher of an event."""
    return frame(json.dumps({"type": "next", "id": "1", "event": {"type": kind, "data": data}}).encode())


def right_telling(words: int = 3) -> list[bytes]:
    """What a watcher hears of a right run of ``words + 3`` events."""
    return [
        frame(b'{"type": "subscribed", "id": "1"}'),
        told("run.created"),
        told("model.delta", text=f"[{NONCE}] "),
        *(told("model.delta", text=f"w{number}@{1000 + number:016d} ") for number in range(words)),
        b"\x89\x00",  # a ping
        told("run.completed"),
    ]
