"""The OpenAI simulator's routes beside chats, asked by the official client."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from server.simulators.errors import Refused
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.simulators.surfaces import READERS, read_rerank


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[OpenAISimulator, openai.AsyncOpenAI]]:
    async with (
        OpenAISimulator() as sim,
        openai.AsyncOpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as client,
    ):
        yield sim, client


async def test_speech_is_sound_that_its_request_alone_decides() -> None:
    async with asked() as (sim, client):
        one = await client.audio.speech.create(model="t", voice="alloy", input="two words")
        two = await client.audio.speech.create(model="t", voice="alloy", input="two words")
        other = await client.audio.speech.create(model="t", voice="alloy", input="two worlds")
        sound = await client.audio.speech.create(model="t", voice="a", input="x", response_format="wav")
    assert one.content == two.content != other.content
    assert one.content.startswith(b"ID3")
    with wave.open(io.BytesIO(sound.content)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 24_000)
    assert all(request.streamed for request in sim.requests)


async def test_speech_may_come_as_events() -> None:
    async with asked() as (_, client):
        answer = await client.audio.speech.create(
            model="t", voice="alloy", input="two words", extra_body={"stream_format": "sse"}
        )
    events = [json.loads(one.removeprefix(b"data: ")) for one in answer.content.split(b"\n\n")[:-1]]
    assert [one["type"] for one in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]


async def test_what_is_heard_is_told_in_every_form() -> None:
    async with asked() as (_, client):

        async def heard(**options: Any) -> Any:
            return await client.audio.transcriptions.create(file=("a.mp3", b"abc"), model="w", **options)

        assert (await heard()).text == "a.mp3: 3 bytes"
        assert await heard(response_format="text") == "a.mp3: 3 bytes\n"
        assert "00:00:00,000 --> 00:00:01,000" in await heard(response_format="srt")
        assert (await heard(response_format="vtt")).startswith("WEBVTT")
        verbose = await heard(response_format="verbose_json", timestamp_granularities=["word"])
        assert [word.word for word in verbose.words] == ["a.mp3:", "3", "bytes"]
        told = [event async for event in await heard(stream=True)]
        assert (told[0].type, told[-1].type) == ("transcript.text.delta", "transcript.text.done")
        with pytest.deprecated_call():
            english = await client.audio.translations.create(file=("b.mp3", b"ab"), model="w")
        assert english.text == "b.mp3: 2 bytes"


async def test_pictures_come_as_bytes_or_addresses() -> None:
    async with asked() as (_, client):
        by_url = await client.images.generate(prompt="a cat", n=2)
        as_bytes = await client.images.generate(prompt="a cat", model="gpt-image-1")
        edited = await client.images.edit(image=("a.png", b"png"), prompt="a dog", model="gpt-image-1")
    assert [one.url for one in by_url.data or []] == ["https://images.example/sim.png"] * 2
    assert (as_bytes.data or [])[0].b64_json == (edited.data or [])[0].b64_json
    assert as_bytes.usage is not None


def test_rerank_puts_what_shares_the_querys_words_first() -> None:
    body = {"model": "r", "query": "red apple", "documents": ["a pear", {"text": "a red apple"}], "top_n": 1}
    _, made = read_rerank(json.dumps({**body, "return_documents": True}).encode(), "application/json")
    told = json.loads(made(Script()).pieces[0])
    assert told["results"] == [{"index": 1, "relevance_score": 1.0, "document": {"text": "a red apple"}}]


@pytest.mark.parametrize("route", READERS)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nno name\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
    ],
)
def test_bad_requests_are_refused(route: str, body: bytes, content_type: str) -> None:
    with pytest.raises(Refused) as refused:
        READERS[route](body, content_type)
    assert refused.value.fault.status in (400, 415)


async def test_scripts_are_for_these_routes_too() -> None:
    async with asked() as (sim, client):
        sim.script(Script(status=429), route="audio/speech")
        with pytest.raises(openai.RateLimitError):
            await client.audio.speech.create(model="t", voice="alloy", input="x")
        sim.script(Script(cut_after=1), route="audio/speech")
        with pytest.raises(openai.APIConnectionError):
            await client.audio.speech.create(model="t", voice="alloy", input="two words")
        assert [one.outcome for one in sim.requests] == ["whole", "cut"]
