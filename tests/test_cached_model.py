"""A model whose answers are kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace

from server.answer_cache import AnswerCache, Caching
from server.cache_settings import Cache
from server.cached_model import CachedModel, as_chunks, identity_of, scopes_of
from server.deltas import Delta, Finished, TextDelta, UsageDelta
from server.errors import InvalidRequest, UpstreamCut
from server.hedged_model import HedgedModel
from server.openai_wire import decode_completion
from server.routing.channel import ChannelState
from server.settings import AccessKey, Channel, ChannelModel, Images
from server.shared_call import SharedCalls
from server.spark_ws import Credentials
from server.tasks import TaskOwner
from server.upstreams.base import Call, whole
from tests.channels import Listener, answer, channel, chat, failure, model, played, says, until

COMPLETION = (
    b'{"id":"c1","object":"chat.completion","created":5,"model":"up","own":{"a":1},"choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
)


class ParentRun:
    def __init__(self, key: str = "me") -> None:
        self.id = "run_1"
        self.key = key


class House:
    """A cached model before one scripted channel."""

    def __init__(self, state: ChannelState, **rules: Any) -> None:
        self.state = state
        self.counts: Counter[str] = Counter()
        rules = {"models": ("m",), **rules}
        self.cache = AnswerCache(Cache(**rules), self._count)
        self.calls = SharedCalls(TaskOwner())
        self.model = self.made()

    def made(self, identity: bytes = b"i", scopes: dict[str, bytes] | None = None) -> CachedModel:
        return CachedModel(
            model(self.state), self.cache, self.cache.rules, identity, scopes or {}, self.calls
        )

    @property
    def asked(self) -> int:
        return len(played(self.state).asked)

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1


def call(key: str = "me", **options: Any) -> Call:
    made = Call(run=ParentRun(key))
    made.caching = Caching(**options)
    return made


def outcome(call: Call) -> str:
    assert call.caching is not None
    return call.caching.outcome


async def test_an_equal_request_is_answered_from_what_is_kept() -> None:
    house = House(channel("a", says("he", "llo"), says("other")))
    first, second = call(), call()
    second.observer = listener = Listener()
    assert await answer(house.model, first) == "hello"
    assert await answer(house.model, second) == "hello"
    assert house.asked == 1
    assert (outcome(first), outcome(second)) == ("miss", "hit")
    assert (second.channel, second.attempts_made, listener.notes) == ("a", 0, [("a", "kept", None)])
    assert house.counts == {"miss": 1, "hit": 1}


async def test_what_was_adapted_for_an_answer_is_told_each_time_that_it_is_given() -> None:
    house = House(channel("a"))
    played(house.state).warnings = ("seed was left out",)
    for outcome_ in ("miss", "hit"):
        made = call()
        made.observer = listener = Listener()
        assert await answer(house.model, made) == "hello"
        assert (outcome(made), made.warnings) == (outcome_, ("a", ("seed was left out",)))
        assert listener.adaptations == [("a", ("seed was left out",))]


async def test_batches_are_replayed_as_they_came() -> None:
    house = House(channel("a", says("he", "llo")))
    await answer(house.model, call())
    async with aclosing(house.model.stream(chat(), call())) as batches:
        texts = [[one.text for one in batch if type(one) is TextDelta] async for batch in batches]
    assert texts == [["he"], ["llo"], []]


async def test_both_forms_are_served_from_one_entry() -> None:
    house = House(channel("a", [decode_completion(COMPLETION)]))
    plain = chat(stream=False)
    first = await whole(house.model)(plain, call())
    assert await answer(house.model, call()) == "hi"
    again = await whole(house.model)(plain, call())
    assert list(again) == [replace(one, cost=0) if type(one) is UsageDelta else one for one in first]
    assert house.asked == 1


def test_a_completion_becomes_chunks_without_losing_a_field() -> None:
    made = list(as_chunks(decode_completion(COMPLETION)))
    data = b"".join(one.original.data for one in made if one.original)
    assert b'"own":{"a":1}' in data
    assert {one.original.form for one in made if one.original} == {"openai.chunk"}
    assert [one.text for one in made if type(one) is TextDelta] == ["hi"]
    bare: list[Delta] = [TextDelta("a"), Finished("stop")]
    assert list(as_chunks(bare)) == bare


@pytest.mark.parametrize("across_keys", [False, True])
async def test_keys_share_answers_only_if_they_are_to(across_keys: bool) -> None:
    house = House(channel("a"), across_keys=across_keys)
    await answer(house.model, call("me"))
    await answer(house.model, call("you"))
    assert house.asked == (1 if across_keys else 2)


async def test_a_name_that_is_given_to_another_key_does_not_inherit() -> None:
    house = House(channel("a"))
    before, after = (scopes_of((AccessKey(name="me", key=key),)) for key in ("sk-1", "sk-2"))
    await answer(house.made(scopes=before), call())
    await answer(house.made(scopes=after), call())
    assert house.asked == 2


async def test_another_configuration_of_the_model_is_asked_anew() -> None:
    house = House(channel("a"))
    await answer(house.made(b"before"), call())
    await answer(house.made(b"after"), call())
    assert house.asked == 2


def test_identity_follows_all_that_makes_the_answer() -> None:
    one, images = Channel(name="a", kind="openai", base_url="http://a", models=("m",)), Images()
    same = [identity_of("m", [(one, ChannelModel())], images) for _ in range(2)]
    assert same[0] == same[1]
    others = [
        identity_of("m2", [(one, ChannelModel())], images),
        identity_of("m", [(replace(one, base_url="http://b"), ChannelModel())], images),
        identity_of("m", [(one, ChannelModel(model="n"))], images),
        identity_of("m", [], images),
    ]
    assert len({*same, *others}) == 5


@pytest.mark.parametrize(("options", "kept"), [({"look": False}, 1), ({"look": False, "keep": False}, 0)])
async def test_a_client_may_want_a_fresh_answer(options: dict[str, Any], kept: int) -> None:
    house = House(channel("a", says("old"), says("new")))
    await answer(house.model, call())
    house.cache.clear()
    fresh = call(**options)
    assert await answer(house.model, fresh) == "new"
    assert outcome(fresh) == "bypass"
    assert (house.asked, len(house.cache)) == (2, kept)


async def test_nothing_is_given_to_a_caller_with_credentials_or_without_a_run() -> None:
    house = House(channel("a"))
    await answer(house.model, call())
    own, nobody, unasked = call(), Call(), Call(run=ParentRun())
    own.credentials = Credentials("app", "key", "secret")
    nobody.caching = Caching()
    for one in (own, nobody, unasked):
        assert await answer(house.model, one) == "hello"
    assert await whole(house.model)(chat(stream=False), Call())
    assert house.asked == 5
    assert house.counts == {"miss": 1, "bypass": 2}


async def test_what_fails_or_is_left_is_not_kept() -> None:
    cut = [*says("half")[:2], UpstreamCut("cut")]
    house = House(channel("a", cut, says("one", "two"), says("whole")))
    assert (await failure(house.model, call())).code == UpstreamCut.code
    async with aclosing(house.model.stream(chat(), call())) as batches:
        await anext(batches)
    assert (len(house.cache), played(house.state).open) == (0, 0)
    assert await answer(house.model, call()) == "whole"
    assert len(house.cache) == 1


async def test_a_model_that_nobody_named_keeps_its_drafts_only() -> None:
    house = House(channel("a"), models=(), drafts=("panel",))
    await answer(house.model, call())
    assert len(house.cache) == 0
    for place in ("/m1", "/m1", "/m2"):
        await answer(house.model, call(place=place), chat(temperature=1))
    assert house.asked == 3, "each member has a draft of its own"


def test_what_the_model_tells_of_itself_is_still_told() -> None:
    state = channel("a", models={"m": {"vision": False}})
    inner = model(state)
    cached = CachedModel(inner, House(state).cache, Cache(), b"", {})
    assert (cached.name, cached.vision, cached.context_length) == ("m", inner.vision, None)
    hedged = CachedModel(HedgedModel(inner, 1), House(state).cache, Cache(), b"", {})
    assert getattr(hedged, "vision", None) is None


# ── equal requests at once ──


async def test_equal_requests_at_once_share_one_call() -> None:
    go = asyncio.Event()
    house = House(channel("a", [go, *says("he", "llo")]), single_flight=("m",))
    calls = [call() for _ in range(3)]
    calls[2].observer = listener = Listener()
    tasks = [asyncio.create_task(answer(house.model, one)) for one in calls]
    await until(lambda: house.counts.total() == 3)
    go.set()
    assert [await one for one in tasks] == ["hello"] * 3
    assert [outcome(one) for one in calls] == ["miss", "shared", "shared"]
    assert house.asked == 1
    assert (calls[2].channel, listener.notes) == ("a", [("a", "shared", None)])
    assert await answer(house.model, last := call()) == "hello"
    assert outcome(last) == "hit"


@pytest.mark.parametrize("models", [(), ("m",)])
async def test_plain_and_streamed_ones_share_among_themselves(models: tuple[str, ...]) -> None:
    go = asyncio.Event()
    house = House(channel("a", [go, *says("hello")]), single_flight=("m",), models=models)
    requests = [chat(stream=False), chat(), chat(stream=False), chat()]
    tasks = [asyncio.create_task(answer(house.model, call(), one)) for one in requests]
    await until(lambda: house.counts.total() == 4)
    go.set()
    assert [await one for one in tasks] == ["hello"] * 4
    assert house.asked == 2
    assert len(house.cache) == len(models)


async def test_who_wants_a_fresh_answer_or_chance_or_has_another_key_has_a_call_of_its_own() -> None:
    go = asyncio.Event()
    house = House(channel("a", [go, *says("hello")]), single_flight=("m",))
    one = [call(), call(look=False), call(look=False, keep=False), call("you"), call()]
    requests = [chat()] * 4 + [chat(temperature=1)]
    tasks = [asyncio.create_task(answer(house.model, *each)) for each in zip(one, requests, strict=True)]
    await until(lambda: house.asked == 5)
    go.set()
    assert [await task for task in tasks] == ["hello"] * 5


async def test_the_first_one_may_leave_and_the_call_goes_on() -> None:
    go = asyncio.Event()
    house = House(channel("a", [go, *says("hello")]), single_flight=("m",))
    first, second = call(), call()
    tasks = [asyncio.create_task(answer(house.model, one)) for one in (first, second)]
    await until(lambda: house.counts.total() == 2 and house.asked)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert (outcome(second), played(house.state).open) == ("miss", 1)
    go.set()
    assert await tasks[1] == "hello"
    assert house.asked == 1


async def test_a_failure_before_the_first_word_goes_to_all() -> None:
    go = asyncio.Event()
    house = House(channel("a", [go, InvalidRequest("no")], says("well")), single_flight=("m",))
    tasks = [asyncio.create_task(failure(house.model, call())) for _ in range(2)]
    await until(lambda: house.counts.total() == 2)
    go.set()
    assert [(await one).code for one in tasks] == ["invalid_value"] * 2
    assert await answer(house.model, call()) == "well"
    assert house.asked == 2
