"""Responses that are kept: fetched, gone on from, forgotten, and made in the background."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from server.settings import Access, AccessKey, Responses
from tests.behaviour.kinds import KINDS
from tests.behaviour.responses_client import asking, response


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_kept_can_be_fetched_gone_on_from_and_forgotten(stream: bool) -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="Paris.")
        first = await response(client, stream, model="m", input="Where?", instructions="Be brief.")
        assert (await client.responses.retrieve(first.id)).output_text == "Paris."
        (asked,) = (await client.responses.input_items.list(first.id)).data
        assert asked.model_dump()["content"][0]["text"] == "Where?"
        second = await response(client, stream, model="m", input="And now?", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        said = [(turn["role"], turn["content"]) for turn in kind.sent()["messages"]]
        assert said == [("user", "Where?"), ("assistant", "Paris."), ("user", "And now?")]
        reference: Any = {"type": "item_reference", "id": first.output[0].id}
        await response(client, stream, model="m", input=[reference, {"role": "user", "content": "So?"}])
        assert [turn["content"] for turn in kind.sent()["messages"]] == ["Paris.", "So?"]
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(first.id)
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError) as gone:
            await client.responses.retrieve(first.id)
        assert gone.value.code == "response_not_found"
        with pytest.raises(openai.BadRequestError) as lost:
            await response(client, stream, model="m", input="x", previous_response_id=first.id)
        assert lost.value.code == "previous_response_not_found"


async def test_what_is_not_to_be_stored_or_is_anothers_is_not_found() -> None:
    keys = Access(keys=(AccessKey(name="me", key="good"), AccessKey(name="other", key="else")))
    async with asking("openai", key="good", access=keys) as (client, _kind):
        mine = await client.responses.create(model="m", input="hi")
        other = client.with_options(api_key="else")
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(mine.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.delete(mine.id)
        with pytest.raises(openai.BadRequestError):
            await other.responses.create(model="m", input="hi", previous_response_id=mine.id)
        secret = await client.responses.create(model="m", input="hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(secret.id)


async def test_without_room_nothing_is_kept_and_everything_is_answered() -> None:
    async with asking("openai", responses=Responses(max_bytes=0)) as (client, _kind):
        answer = await client.responses.create(model="m", input="hi")
        assert answer.output_text
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(answer.id)


@pytest.mark.parametrize("name", KINDS)
async def test_a_response_in_the_background_is_fetched_when_it_is_there(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(text="one two")
        begun = await client.responses.create(model=kind.model, input="hi", background=True)
        assert (begun.status, begun.background, begun.output) == ("in_progress", True, [])
        await ended(client, begun.id)
        whole = await client.responses.retrieve(begun.id)
        assert (whole.status, whole.output_text) == ("completed", "one two")
        assert whole.usage is not None
        kind.say(text="three")
        after = await client.responses.create(model=kind.model, input="and?", previous_response_id=begun.id)
        assert after.output_text == "three"
        assert (await client.responses.cancel(begun.id)).status == "completed"
        await kind.nothing_left()


async def ended(client: openai.AsyncOpenAI, id: str) -> list[Any]:
    """All events of a response in the background."""
    return [event async for event in await client.responses.retrieve(id, stream=True)]


async def test_a_stream_in_the_background_is_taken_up_again_where_it_was_left() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two three four", chunks=4, stall_after=2, stall_ms=300)
        stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
        seen = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        id = seen[0].response.id  # type: ignore[union-attr]
        with pytest.raises(openai.ConflictError):
            await client.responses.create(model="m", input="hi", previous_response_id=id)
        more = await client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
        seen += [event async for event in more]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed"
        assert seen == await ended(client, id)
        assert not await rest(client, id, seen[-1].sequence_number)
        await kind.nothing_left()


async def rest(client: openai.AsyncOpenAI, id: str, place: int) -> list[Any]:
    return [event async for event in await client.responses.retrieve(id, stream=True, starting_after=place)]


async def test_a_response_in_the_background_is_cancelled_or_fails_as_it_stands() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two", chunks=2, stall_after=1)
        begun = await client.responses.create(model="m", input="hi", background=True, stream=True)
        id = (await anext(begun)).response.id  # type: ignore[union-attr]
        stopped = await client.responses.cancel(id)
        assert stopped.status == "cancelled"
        assert (await ended(client, id))[-1].response.status == "cancelled"
        assert kind.sim.requests[-1].aborted
        with pytest.raises(openai.BadRequestError) as raised:
            await rest(client, id, 1000)
        assert raised.value.param == "starting_after"
        kind.say(status=400)
        refused = await client.responses.create(model="m", input="hi", background=True)
        await ended(client, refused.id)
        told = await client.responses.retrieve(refused.id)
        assert told.status == "failed"
        assert told.error is not None
        await kind.nothing_left()


@pytest.mark.parametrize("stream", [False, True], ids=["fetched", "streamed"])
@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "ollama", "spark"])
async def test_of_one_that_is_cancelled_or_cut_what_came_is_kept(name: str, stream: bool) -> None:
    async with asking(name) as (client, kind):
        kind.say(pieces=("one ", "two ", "three"), stall_after=2)
        begun: Any = await client.responses.create(
            model=kind.model, input="hi", background=True, stream=stream
        )
        id = (await anext(begun)).response.id if stream else begun.id
        async for event in await client.responses.retrieve(id, stream=True):
            if event.type == "response.output_text.delta" and "two" in event.delta:
                break
        stopped = await client.responses.cancel(id)
        kept = await client.responses.retrieve(id)
        for one in (stopped, kept):
            assert (one.status, one.output_text) == ("cancelled", "one two ")
            assert one.output[0].status == "incomplete"  # type: ignore[union-attr]
        kind.say(pieces=("one ", "two ", "three"), cut_after=2)
        cut: Any = await client.responses.create(model=kind.model, input="hi", background=True)
        await ended(client, cut.id)
        told: Any = await client.responses.retrieve(cut.id)
        assert (told.status, told.output_text) == ("failed", "one two ")
        assert told.error.code == "upstream_cut"
        await kind.nothing_left()


async def test_one_that_stops_at_its_limit_is_incomplete_in_the_background_too() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two", finish="length")
        begun = await client.responses.create(model="m", input="hi", background=True)
        await ended(client, begun.id)
        told = await client.responses.retrieve(begun.id)
        assert (told.status, told.output_text) == ("incomplete", "one two")
        assert told.incomplete_details is not None
        assert told.incomplete_details.reason == "max_output_tokens"


async def test_what_is_not_in_the_background_is_not_streamed_again_and_one_in_it_is_stored() -> None:
    async with asking("openai") as (client, _kind):
        plain = await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError):
            await client.responses.retrieve(plain.id, stream=True)
        with pytest.raises(openai.BadRequestError) as unstored:
            await client.responses.create(model="m", input="hi", background=True, store=False)
        assert unstored.value.param == "store"


async def test_what_is_deleted_while_it_is_under_way_does_not_come_back() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two", chunks=2, stall_after=1, stall_ms=200)
        stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
        id = (await anext(stream)).response.id  # type: ignore[union-attr]
        await client.responses.delete(id)
        assert [event.type async for event in stream][-1] == "response.completed"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(id)


async def test_after_a_cut_one_goes_on_from_the_question() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two three", chunks=3, cut_after=2)
        events = [e async for e in await client.responses.create(model="m", input="hi", stream=True)]
        assert events[-1].type == "response.failed"
        await client.responses.create(model="m", input="go on", previous_response_id=events[-1].response.id)
        assert [turn["content"] for turn in kind.sent()["messages"]] == ["hi", "go on"]
