"""The moderations route of the OpenAI simulator."""

from __future__ import annotations

import openai
import pytest

from server.simulators.errors import Refused
from server.simulators.moderations import DEFAULT_MODEL, read_moderation_input
from server.simulators.openai import OpenAISimulator


async def test_the_official_client_reads_a_verdict_for_each_text() -> None:
    async with (
        OpenAISimulator() as sim,
        openai.AsyncOpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as client,
    ):
        answer = await client.moderations.create(model="m", input=["a kind word", "violence"])
    kind, unkind = answer.results
    assert (answer.model, kind.flagged, unkind.flagged) == ("m", False, True)
    assert (unkind.categories.violence, unkind.categories.hate) == (True, False)
    assert unkind.category_scores.violence > kind.category_scores.violence


async def test_a_script_fails_it_as_any_other_route() -> None:
    async with (
        OpenAISimulator() as sim,
        openai.AsyncOpenAI(base_url=sim.base_url, api_key="k", max_retries=0) as client,
    ):
        with pytest.raises(openai.RateLimitError):
            await client.moderations.create(input="a", extra_headers={"x-sim": '{"status": 429}'})


def test_parts_are_one_input_and_the_model_may_be_left_out() -> None:
    body = b'{"input": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]}'
    assert read_moderation_input(body) == (["a\n"], DEFAULT_MODEL)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"input": []}', b'{"input": 1}', b'{"input": ["a", {}]}', b'{"input": "a", "model": 1}', b"["],
)
def test_bad_requests_are_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_moderation_input(body)
    assert refused.value.fault.status == 400
