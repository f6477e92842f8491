"""A client's request, and what its answer comes down to."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import orjson

from server.doctor.faults import Seen

PATIENCE_S = 5.0
"""Seconds until a client that sees no end gives up."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a client saw. ``seen`` None: no end within ``PATIENCE_S``.

    ``tried``: attempts as the head tells them; None: it says nothing. ``wait_s``: its Retry-After. ``odd`` is
    what is wrong with the form of the answer, whatever was to be expected. ``raw``: head and body.
    """

    status: int = 0
    code: str | None = None
    seen: Seen | None = None
    text: str = ""
    seconds: float = 0.0
    tried: int | None = None
    wait_s: str | None = None
    odd: str = ""
    raw: bytes = b""


async def ask(base: str, model: str, *, stream: bool) -> Told:
    """One chat request, read to its end."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Is all well?"}]}
    loop = asyncio.get_running_loop()
    started = loop.time()
    data, broken = bytearray(), False
    try:
        async with (
            asyncio.timeout(PATIENCE_S),
            aiohttp.ClientSession(read_bufsize=2**20) as session,
            session.post(f"{base}/v1/chat/completions", json=body) as response,
        ):
            try:
                async for part in response.content.iter_any():
                    data += part
            except aiohttp.ClientError:
                broken = True
    except TimeoutError:
        return Told(seconds=loop.time() - started)
    except aiohttp.ClientError as error:
        return Told(seen="cut", odd=f"no HTTP answer: {type(error).__name__}", seconds=loop.time() - started)
    head = response.headers
    told = _read(response.status, head.get("content-type", ""), bytes(data), stream=stream)
    tried = head.get("x-antiphon-attempts")
    return msgspec.structs.replace(
        told,
        seconds=loop.time() - started,
        tried=None if tried is None else len(tried.split(",")),
        wait_s=head.get("retry-after"),
        odd=told.odd or ("the connection broke" if broken else ""),
        raw=b"\n".join(f"{name}: {value}".encode() for name, value in head.items()) + b"\n\n" + bytes(data),
    )


def _read(status: int, content_type: str, data: bytes, *, stream: bool) -> Told:
    if status != 200:
        code, odd = _error(data)
        return Told(status=status, code=code, seen="error", odd=odd)
    if not stream:
        return _completion(data)
    if not content_type.startswith("text/event-stream"):
        return Told(
            status=200, seen="cut", odd=f"a stream was asked for, and {content_type or 'nothing'} came"
        )
    return what_a_stream_says(data)


def what_a_stream_says(data: bytes) -> Told:
    """A stream that came with status 200: its words, how it ended, and whether it ended as one has to."""
    lines = [line.removeprefix(b"data:").strip() for line in data.split(b"\n") if line.startswith(b"data:")]
    text, finished, failed, odd = "", 0, None, ""
    for place, line in enumerate(lines):
        if line == b"[DONE]":
            odd = odd or ("" if place == len(lines) - 1 else "something follows [DONE]")
            continue
        chunk = _object(line)
        if "error" in chunk:
            failed, wrong = _error(line)
            odd = odd or wrong or ("" if place == len(lines) - 1 else "something follows the error")
            failed = failed or "?"
            continue
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            odd = odd or "a chunk is no JSON object with choices"
            continue
        for choice in choices:
            text += choice.get("delta", {}).get("content") or ""
            finished += choice.get("finish_reason") is not None
    done = lines[-1:] == [b"[DONE]"]
    if done and failed is None:
        odd = odd or ("" if finished == 1 else f"{finished} finish reasons")
        return Told(status=200, seen="whole", text=text, odd=odd)
    if failed is None:
        odd = odd or "the stream ended without [DONE] and without an error"
    elif done or finished:
        odd = odd or "a stream that was cut looks whole"
    return Told(status=200, code=failed, seen="cut", text=text, odd=odd)


def _completion(data: bytes) -> Told:
    answer = _object(data)
    try:
        choice = answer["choices"][0]
        text, finish = choice["message"]["content"] or "", choice["finish_reason"]
    except (KeyError, IndexError, TypeError):
        return Told(status=200, seen="cut", odd="the body with status 200 is no completion")
    odd = "" if finish is not None else "no finish reason"
    return Told(status=200, seen="whole", text=text, odd=odd)


def _error(data: bytes) -> tuple[str | None, str]:
    """The code of an error's body, and what is wrong with its form."""
    error = _object(data).get("error")
    if not isinstance(error, dict) or not {"message", "type", "param", "code"} <= error.keys():
        return None, "the error has not the form of OpenAI's"
    code = error["code"]
    return (code, "") if isinstance(code, str | None) else (None, "the error's code is no string")


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
