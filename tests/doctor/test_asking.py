"""What a client's answer comes down to."""

from __future__ import annotations

import pytest
from aiohttp import web

from server.doctor.asking import ask, what_a_stream_says
from server.serving import ServeOptions, served

ERROR = b'{"error": {"message": "m", "type": "t", "param": null, "code": "upstream_cut"}}'


def _chunk(text: str, finish: str = "null") -> bytes:
    return b'data: {"choices": [{"delta": {"content": "%s"}, "finish_reason": %s}]}\n\n' % (
        text.encode(),
        finish.encode(),
    )


SAID, FINISH, DONE = _chunk("hi"), _chunk("", '"stop"'), b"data: [DONE]\n\n"
FAILED = b"data: " + ERROR + b"\n\n"


@pytest.mark.parametrize(
    ("data", "seen", "code", "odd"),
    [
        (SAID + FINISH + DONE, "whole", None, ""),
        (b": hello\n\n" + SAID + FAILED, "cut", "upstream_cut", ""),
        (SAID, "cut", None, "without [DONE]"),
        (b"", "cut", None, "without [DONE]"),
        (SAID + DONE, "whole", None, "0 finish reasons"),
        (SAID + FINISH + FINISH + DONE, "whole", None, "2 finish reasons"),
        (SAID + FINISH + DONE + DONE, "whole", None, "follows [DONE]"),
        (SAID + FAILED + DONE, "cut", "upstream_cut", "follows the error"),
        (SAID + FINISH + FAILED, "cut", "upstream_cut", "looks whole"),
        (b"data: nonsense\n\n" + SAID + FINISH + DONE, "whole", None, "no JSON object"),
        (SAID + b'data: {"error": "text"}\n\n', "cut", "?", "form of OpenAI"),
    ],
)
def test_a_stream_is_told_by_its_bytes(data: bytes, seen: str, code: str | None, odd: str) -> None:
    told = what_a_stream_says(data)
    assert (told.seen, told.code) == (seen, code)
    assert (odd in told.odd) if odd else not told.odd


@pytest.mark.parametrize(
    ("status", "body", "seen", "odd"),
    [
        (502, ERROR, "error", ""),
        (502, b"<html>", "error", "form of OpenAI"),
        (200, b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}', "whole", ""),
        (
            200,
            b'{"choices": [{"message": {"content": "hi"}, "finish_reason": null}]}',
            "whole",
            "finish reason",
        ),
        (200, b'{"choices": []}', "cut", "no completion"),
        (200, ERROR, "cut", "no completion"),
    ],
)
async def test_a_plain_answer_is_told_by_status_and_body(
    status: int, body: bytes, seen: str, odd: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            status=status, body=body, headers={"x-antiphon-attempts": "a, ok", "retry-after": "3"}
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with served(app, ServeOptions(port=0)) as base:
        told = await ask(base, "m", stream=False)
    assert (told.status, told.seen, told.tried, told.wait_s) == (status, seen, 2, "3")
    assert (odd in told.odd) if odd else not told.odd
    assert body in told.raw
