"""A model of which equal requests are answered once: from what is kept, or by a call that they share.

It stands before a model only where the configuration wants it; a call without ``Call.caching`` passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

import msgspec
from msgspec.structs import replace

from server.answer_cache import AnswerCache, Caching, Gathering, KeptAnswer, fingerprint, is_fit
from server.cache_settings import Cache
from server.chat import ChatRequest
from server.deltas import Batch, Delta, Deltas, UsageDelta
from server.openai_wire import ChunkDecoder, completion_as_chunks
from server.settings import AccessKey, Channel, ChannelModel, Images
from server.shared_call import SharedCalls
from server.upstreams.base import Call, Upstream, whole


class CachedModel:
    """``upstream``, with its answers kept in ``cache``; an ``Upstream``.

    ``identity`` is another one whenever the configuration may make other answers of the same request.
    ``scopes`` tell access keys apart by more than their names, which may be given to somebody else. ``calls``
    are those under way that requests may share, where the rules say so.
    """

    def __init__(
        self,
        upstream: Upstream,
        cache: AnswerCache,
        rules: Cache,
        identity: bytes,
        scopes: Mapping[str, bytes],
        calls: SharedCalls | None = None,
    ) -> None:
        self.name = upstream.name
        self._upstream = upstream
        self._cache = cache
        self._rules = rules
        self._identity = identity
        self._scopes = scopes
        self._keeps = rules.keeps(self.name)
        self._calls = calls if rules.shares(self.name) else None

    def __getattr__(self, name: str) -> Any:
        """What else the model can tell of itself (``vision``, ``context_length``)."""
        return getattr(self._upstream, name)

    def stream(self, chat: ChatRequest, call: Call) -> Deltas:
        """Yield the batches of the answer; see ``upstreams.base.Upstream``."""
        caching = call.caching
        key = None if caching is None else self._key(chat, call, caching)
        if caching is None or key is None:
            return self._upstream.stream(chat, call)
        kept = self._kept(key, call, caching)
        if kept is not None:
            return given_again(kept, stream=chat.stream)
        if self._calls is not None and caching.look and not caching.place:
            return self._shared(self._calls, key, chat, call, caching)
        self._missed(caching)
        return self._asked(key, chat, call, caching)

    async def whole(self, chat: ChatRequest, call: Call) -> Batch:
        """The plain answer as one batch; see ``upstreams.base.whole``."""
        if call.caching is None:
            return await whole(self._upstream)(chat, call)
        async with aclosing(self.stream(chat, call)) as batches:
            return [delta async for batch in batches for delta in batch]

    async def _asked(
        self, key: bytes, chat: ChatRequest, call: Call, caching: Caching
    ) -> AsyncGenerator[Batch, None]:
        """Ask, and keep what comes if it is whole."""
        gathering = Gathering(self._rules.max_answer_bytes)
        if chat.stream:
            async with aclosing(self._upstream.stream(chat, call)) as batches:
                async for batch in batches:
                    gathering.add(batch)
                    yield batch
        else:
            batch = await whole(self._upstream)(chat, call)
            gathering.add(batch)
            yield batch
        if not (self._keeps or caching.place):
            return
        answer = gathering.answer(chat.choices, call.channel, call.warnings)
        if answer is not None:
            self._cache.put(key, answer, monotonic())

    async def _shared(
        self, calls: SharedCalls, key: bytes, chat: ChatRequest, call: Call, caching: Caching
    ) -> AsyncGenerator[Batch, None]:
        """The answer to an equal request that is under way; or ask, for all who come while it is."""
        key_of_form = key + (b"stream" if chat.stream else b"plain")
        shared = calls.join(key_of_form)
        if shared is None:
            self._missed(caching)
            shared = calls.begin(key_of_form, self._asked(key, chat, call, caching), call)
        else:
            self._note(caching, "shared")
        lead, told = shared.lead, shared.lead is call
        async with aclosing(shared.read(caching)) as batches:
            async for batch in batches:
                if not told:
                    told = True
                    self._follow(lead, call, "shared")
                yield free(batch) if caching.outcome == "shared" else batch

    def _key(self, chat: ChatRequest, call: Call, caching: Caching) -> bytes | None:
        """What equal requests have in common; None for one that goes its own way."""
        rules, member = self._rules, bool(caching.place)
        wanted = caching.keep and call.run is not None and call.credentials is None
        concerned = member or self._keeps or self._calls is not None
        if not wanted or not concerned or not is_fit(chat, rules, member=member):
            self._note(caching, "bypass")
            return None
        assert call.run is not None
        scope = b"" if rules.across_keys else self._scopes.get(call.run.key, b"") + call.run.key.encode()
        return fingerprint(chat, self._identity, scope, caching.place.encode())

    def _kept(self, key: bytes, call: Call, caching: Caching) -> KeptAnswer | None:
        """The answer that is kept, if it is to be given."""
        kept = self._cache.get(key, monotonic()) if caching.look else None
        if kept is not None:
            self._note(caching, "hit")
            self._follow(kept, call, "kept")
        return kept

    def _follow(self, source: Call | KeptAnswer, call: Call, state: str) -> None:
        """Tell in ``call`` where its answer comes from, though it asked nobody itself."""
        call.channel = source.channel
        if call.observer is not None:
            call.observer.noted(source.channel, state)
        if source.warnings is not None:
            call.adapted(*source.warnings)

    def _missed(self, caching: Caching) -> None:
        self._note(caching, "miss" if caching.look else "bypass")

    def _note(self, caching: Caching, outcome: str) -> None:
        caching.note(outcome)
        self._cache.count(outcome)


async def given_again(kept: KeptAnswer, *, stream: bool) -> AsyncGenerator[Batch, None]:
    """Yield a kept answer as it came; for a stream, what came as a whole is cut into chunks first."""
    for batch in kept.batches:
        yield free(list(as_chunks(batch)) if stream else batch)


def free(batch: Batch) -> Batch:
    """The batch with its usage as it was, at no cost."""
    if not any(type(delta) is UsageDelta for delta in batch):
        return batch
    return [replace(delta, cost=0) if type(delta) is UsageDelta else delta for delta in batch]


def as_chunks(batch: Batch) -> Iterator[Delta]:
    """A batch as a stream would have brought it: no field of a completion's JSON is lost."""
    bodies = [one.original.data for one in batch if one.original and one.original.form == "openai.completion"]
    data = next(filter(None, bodies), None)
    if data is None:
        yield from batch
        return
    decoder = ChunkDecoder()
    for chunk in completion_as_chunks(data):
        yield from decoder.chunk(chunk)
    decoder.done = True
    yield from decoder.eof()


def identity_of(model: str, served: Sequence[tuple[Channel, ChannelModel]], images: Images) -> bytes:
    """What is another one when the model is served by others, or otherwise."""
    return hashlib.sha256(msgspec.json.encode((model, served, images))).digest()


def scopes_of(keys: tuple[AccessKey, ...]) -> dict[str, bytes]:
    """Name → what tells a key from another one that had the name before."""
    return {key.name: hashlib.sha256(key.key.encode()).digest() for key in keys}
