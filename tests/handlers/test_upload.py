"""A form comes in within its limits of time and framing."""

from __future__ import annotations

import asyncio

from server.app_keys import METRICS, UPLOADS
from server.settings import Server, Settings, Uploads
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import asked, both, chat_request, error_of, until
from tests.behaviour.running import QUIET, channel

PATH = "/v1/audio/transcriptions"
TYPE = "multipart/form-data; boundary=x"
PARTS = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
)
FORM = PARTS + b"abc\r\n--x--\r\n"


def settings(sim: OpenAISimulator) -> Settings:
    server = Server(body_idle_s=0.2)
    return Settings(server=server, uploads=Uploads(total_s=0.5), channels=(channel(sim),), logging=QUIET)


def head(*headers: str, length: int | None = len(FORM)) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    made = chat_request(b"", *headers, path=PATH, content_type=TYPE)
    return made.replace(b"Content-Length: 0", framing.encode())


async def test_a_form_that_stalls_is_408() -> None:
    async with both(settings) as (server, sim), asked(server, head() + PARTS) as raw:
        assert error_of(await raw.answer(), 408)["code"] == "request_timeout"
        assert not sim.requests


async def test_a_form_that_drips_for_too_long_is_408() -> None:
    async def drip(raw_write: object) -> None:
        while True:
            raw_write(b"1\r\na\r\n")  # type: ignore[operator]
            await asyncio.sleep(0.02)

    async with both(settings) as (server, _), asked(server, head(length=None)) as raw:
        raw.writer.write(b"%x\r\n%b\r\n" % (len(PARTS), PARTS))
        dripping = asyncio.create_task(drip(raw.writer.write))
        try:
            assert error_of(await raw.answer(), 408)["code"] == "request_timeout"
        finally:
            dripping.cancel()
            await asyncio.wait({dripping})


async def test_who_waits_for_an_invitation_gets_one_when_the_form_is_wanted() -> None:
    async with both(settings) as (server, _), asked(server, head("Expect: 100-continue")) as raw:
        assert (await raw.head()).status == 100
        await raw.send(FORM)
        assert (await raw.answer()).json()["text"] == "a: 3 bytes"


async def test_who_waits_for_an_invitation_in_vain_is_refused_by_the_head_alone() -> None:
    async with both(settings) as (server, _):
        bad = head("Expect: 100-continue").replace(b"multipart/form-data", b"application/json")
        async with asked(server, bad) as raw:
            assert error_of(await raw.answer(), 415)


async def test_a_chunked_form_goes_on_with_its_length() -> None:
    async with both(settings) as (server, sim), asked(server, head(length=None)) as raw:
        await raw.send(b"".join(b"1\r\n%c\r\n" % byte for byte in FORM) + b"0\r\n\r\n")
        assert (await raw.answer()).status == 200
        assert sim.requests[-1].body == FORM
        assert sim.requests[-1].header("content-length") == str(len(FORM))


async def test_a_broken_framing_is_400() -> None:
    async with both(settings) as (server, sim), asked(server, head(length=None)) as raw:
        await raw.send(b"%x\r\n%b\r\nzz\r\n" % (len(PARTS), PARTS))
        assert (await raw.answer()).status == 400
        assert not sim.requests
        await until(lambda: not (server.app[METRICS].in_flight or server.app[UPLOADS].taken))
