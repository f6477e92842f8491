"""What OpenAI answers beside chats: speech, transcriptions, images; and the rerank route of other vendors.

Every answer depends on its request alone. A script's ``text`` is what was heard, its ``chunks`` the number of
pieces that speech comes in.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import orjson

from server.simulators.asked import read_object
from server.simulators.errors import Fault, Refused
from server.simulators.forms import Field, read_form
from server.simulators.said import CREATED
from server.simulators.script import Script

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
SSE = "text/event-stream; charset=utf-8"
AUDIO = {
    "mp3": ("audio/mpeg", b"ID3\x04\x00\x00\x00\x00\x00\x00"),
    "opus": ("audio/opus", b"OggS"),
    "aac": ("audio/aac", b"\xff\xf1"),
    "flac": ("audio/flac", b"fLaC"),
    "wav": ("audio/wav", b""),
    "pcm": ("audio/pcm", b""),
}
BYTES_PER_WORD = 1000
SAMPLES_PER_S = 24_000


class Reply(NamedTuple):
    """A body in pieces; ``streamed``: they come one by one, and nobody knows how many there will be."""

    media: str
    pieces: list[bytes]
    streamed: bool = False


Made: TypeAlias = Callable[[Script], Reply]


def read_speech(body: bytes, content_type: str) -> tuple[str, Made]:
    """A request for speech: its model, and what makes the answer. Raises Refused; so do all of these."""
    asked = read_object(body)
    model = _text(asked, "model")
    words = _text(asked, "input").split() or [""]
    _text(asked, "voice")
    form = asked.get("response_format", "mp3")
    if form not in AUDIO:
        raise _wrong("response_format", f"expected one of {', '.join(AUDIO)}")
    as_events = asked.get("stream_format") == "sse"

    def made(script: Script) -> Reply:
        media, magic = AUDIO[form]
        sound = _noise(body, BYTES_PER_WORD * len(words))
        count = len(words) if script.chunks is None else max(1, script.chunks)
        pieces = _parts((_wav_head(len(sound)) if form == "wav" else magic) + sound, count)
        if not as_events:
            return Reply(media, pieces, streamed=True)
        told = [{"type": "speech.audio.delta", "audio": base64.b64encode(one).decode()} for one in pieces]
        return Reply(SSE, [*map(_event, told), _event(_done("speech.audio.done", len(words)))], streamed=True)

    return model, made


def read_transcription(body: bytes, content_type: str, *, task: str = "transcribe") -> tuple[str, Made]:
    """A request to write down, or translate, what is heard in a file."""
    fields = read_form(body, content_type)
    model = _field(fields, "model")
    if (file := fields.get("file")) is None or file.filename is None:
        raise _wrong("file", "expected a file")
    form = fields["response_format"].text if "response_format" in fields else "json"
    words = any(one.text == "word" for name, one in fields.items() if name.startswith("timestamp_gran"))
    stream = task == "transcribe" and "stream" in fields and fields["stream"].text == "true"
    heard = f"{file.filename}: {len(file.data)} bytes"

    def made(script: Script) -> Reply:
        text = heard if script.text is None else script.text
        if stream:
            deltas = [{"type": "transcript.text.delta", "delta": one} for one in _words(text)]
            done = {**_done("transcript.text.done", len(deltas)), "text": text}
            return Reply(SSE, [*map(_event, deltas), _event(done)], streamed=True)
        match form:
            case "text":
                return Reply(TEXT, [text.encode() + b"\n"])
            case "srt":
                return Reply(TEXT, [f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n".encode()])
            case "vtt":
                return Reply(TEXT, [f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n\n".encode()])
            case "verbose_json":
                return _json(_verbose(text, task, words=words))
            case _:
                return _json({"text": text, "usage": _usage(len(text.split()))})

    return model, made


def read_translation(body: bytes, content_type: str) -> tuple[str, Made]:
    """The same into English."""
    return read_transcription(body, content_type, task="translate")


def read_image_request(body: bytes, content_type: str) -> tuple[str, Made]:
    """A request to draw: JSON, or a form with the images to begin with."""
    asked: dict[str, Any]
    if content_type.startswith("multipart/"):
        fields = read_form(body, content_type)
        if not any(name.startswith("image") and one.filename is not None for name, one in fields.items()):
            raise _wrong("image", "expected a file")
        asked = {name: one.text for name, one in fields.items() if one.filename is None}
    else:
        asked = read_object(body)
        _text(asked, "prompt")
    model = str(asked.get("model") or "dall-e-2")
    n = int(asked.get("n") or 1)
    if not 1 <= n <= 10:
        raise _wrong("n", "expected a value from 1 to 10")
    as_b64 = model.startswith("gpt-image") or asked.get("response_format") == "b64_json"
    stream = asked.get("stream") in (True, "true")

    def made(script: Script) -> Reply:
        picture = base64.b64encode(_png()).decode()
        if stream:
            part = {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": picture}
            whole = {**_done("image_generation.completed", 1), "b64_json": picture}
            return Reply(SSE, [_event(part), _event(whole)], streamed=True)
        one = {"b64_json": picture} if as_b64 else {"url": "https://images.example/sim.png"}
        told: dict[str, Any] = {"created": CREATED, "data": [one] * n}
        if as_b64:
            told["usage"] = _usage(len(str(asked.get("prompt", "")).split()))
        return _json(told)

    return model, made


def read_rerank(body: bytes, content_type: str) -> tuple[str, Made]:
    """A request to put documents in order, as Cohere's and Jina's APIs have it."""
    asked = read_object(body)
    model, query = _text(asked, "model"), set(_text(asked, "query").lower().split())
    documents = asked.get("documents")
    if not isinstance(documents, list) or not documents:
        raise _wrong("documents", "expected a list")
    texts = [one if isinstance(one, str) else str(one.get("text", "")) for one in documents]
    top_n = asked.get("top_n") or len(texts)

    def made(script: Script) -> Reply:
        scored: list[dict[str, Any]] = [
            {"index": at, "relevance_score": len(query & set(text.lower().split())) / max(1, len(query))}
            for at, text in enumerate(texts)
        ]
        scored.sort(key=lambda one: -one["relevance_score"])
        if asked.get("return_documents"):
            scored = [{**one, "document": {"text": texts[one["index"]]}} for one in scored]
        tokens = sum(len(text.split()) for text in texts)
        return _json({"model": model, "results": scored[:top_n], "usage": {"total_tokens": tokens}})

    return model, made


READERS: dict[str, Callable[[bytes, str], tuple[str, Made]]] = {
    "audio/speech": read_speech,
    "audio/transcriptions": read_transcription,
    "audio/translations": read_translation,
    "images/generations": read_image_request,
    "images/edits": read_image_request,
    "images/variations": read_image_request,
    "rerank": read_rerank,
}
"""By the end of the path: what reads a request (body, Content-Type)."""


def _json(told: dict[str, Any]) -> Reply:
    return Reply(JSON, [orjson.dumps(told)])


def _event(told: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(told) + b"\n\n"


def _done(kind: str, tokens: int) -> dict[str, Any]:
    return {"type": kind, "usage": _usage(tokens)}


def _usage(tokens: int) -> dict[str, Any]:
    return {"type": "tokens", "input_tokens": 10, "output_tokens": tokens, "total_tokens": 10 + tokens}


def _verbose(text: str, task: str, *, words: bool) -> dict[str, Any]:
    segment = {"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": text, "tokens": [1], "temperature": 0.0,
               "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}  # fmt: skip
    told = {"task": task, "language": "english", "duration": 1.0, "text": text, "segments": [segment]}
    if words:
        told["words"] = [{"word": one.strip(), "start": 0.0, "end": 1.0} for one in _words(text)]
    return told


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {one}" for one in others)]


def _parts(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


def _noise(seed: bytes, size: int) -> bytes:
    return hashlib.shake_128(seed).digest(size)


def _wav_head(size: int) -> bytes:
    rate = SAMPLES_PER_S
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def _png() -> bytes:
    """A picture of one black point."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise _wrong(name, "expected a string")
    return value


def _field(fields: dict[str, Field], name: str) -> str:
    if name not in fields or not fields[name].text:
        raise Refused(Fault(400, f"you must provide a {name} parameter", param=name))
    return fields[name].text


def _wrong(name: str, why: str) -> Refused:
    return Refused(Fault(400, f"Invalid value for '{name}': {why}.", param=name))
