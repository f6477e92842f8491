"""Answers that are kept to be given again: what makes two requests equal, and which answers are fit for it.

No I/O, no clock: whoever calls says what time it is, in seconds of one monotonic clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from server.cache_settings import Cache
from server.chat import ChatRequest, Part
from server.deltas import Batch, Delta, Finished, RefusalDelta, TextDelta, ToolCallDelta

# Hashing a request takes the event loop's time; larger ones are not looked up. (bytes)
MAX_REQUEST = 1024 * 1024
# What a delta takes in memory beside its text and bytes, about. (bytes)
DELTA_BYTES = 200
# Top-level fields that say how an answer is to be told, or whom it is for, and not what it is. The model is
# told apart by who serves it.
_IGNORED = frozenset({"antiphon", "conversation_id", "model", "stream", "stream_options"})
# Other ways to offer tools; what a search finds changes.
_TOOLS = ("functions", "web_search_options")
# An answer that ended otherwise was cut or filtered.
_WHOLE = frozenset({"stop", "tool_calls", "function_call"})


class Caching:
    """What may be done for one call, and what was: ``outcome`` is hit, shared, miss or bypass, "" so far.

    ``look``: may a kept answer be given? ``keep``: may this one be kept? ``place`` tells the calls of a
    combination apart, whose samples must not all be one; "" for a client's own. ``told`` hears each outcome.
    """

    __slots__ = ("_told", "keep", "look", "outcome", "place")

    def __init__(
        self,
        *,
        look: bool = True,
        keep: bool = True,
        place: str = "",
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.look = look
        self.keep = keep
        self.place = place
        self.outcome = ""
        self._told = told

    def note(self, outcome: str) -> None:
        """Say what was done."""
        self.outcome = outcome
        if self._told is not None:
            self._told(outcome)

    def of_member(self, id: str) -> Caching:
        """The same for the draft of a member."""
        return Caching(look=self.look, keep=self.keep, place=f"{self.place}/{id}")


def wished(cache_control: str | None, told: Callable[[str], None] | None = None) -> Caching:
    """What a client's ``Cache-Control`` leaves: ``no-store`` nothing, ``no-cache`` a fresh answer to keep."""
    if not cache_control:
        return Caching(told=told)
    words = {word.strip().lower() for word in cache_control.split(",")}
    store = "no-store" not in words
    return Caching(look=store and "no-cache" not in words, keep=store, told=told)


def is_fit(chat: ChatRequest, rules: Cache, *, member: bool = False) -> bool:
    """May the answer to this request be given to an equal one?

    ``member``: it is a member's of a combination, whose samples are told apart, so chance is no obstacle.
    """
    fields = chat.fields
    if len(chat.body) > MAX_REQUEST:
        return False
    if chat.json.raw("store") == b"true":  # the upstream is to keep it: an effect beside the answer
        return False
    if not (rules.sampled or member):
        chance = fields.seed is None and bool(fields.temperature)
        if chance or chat.choices > 1:
            return False
    if not rules.tools and (fields.tools or any(map(chat.has, _TOOLS))):
        return False
    return all(
        _is_inside(part)
        for message in chat.messages
        if isinstance(message.content, list)
        for part in message.content
    )


def _is_inside(part: Part) -> bool:
    """Does the request hold all of this part? What an address or a file's id leads to may change."""
    if part.image_url is not None:
        return part.image_url.url.startswith("data:")
    return part.type in ("text", "refusal", "input_audio", "thinking", "redacted_thinking")


def fingerprint(chat: ChatRequest, *beside: bytes) -> bytes:
    """What is the same for equal requests: fields in any order, blanks anywhere, null for what is absent.

    Numbers and strings count as they are written. ``beside``: what else tells requests apart.
    """
    made = hashlib.sha256(b"wide" if chat.wide else b"plain")
    for piece in beside:
        _add(made, piece)
    for key in sorted(chat.json):
        raw = chat.json.raw(key)
        if key in _IGNORED or raw is None or raw == b"null":
            continue
        _add(made, key.encode("utf-8", "surrogatepass"))
        _add(made, msgspec.json.format(raw, indent=-1))
    return made.digest()


def _add(made: hashlib._Hash, piece: bytes) -> None:
    made.update(len(piece).to_bytes(8, "big"))
    made.update(piece)


class KeptAnswer(msgspec.Struct, frozen=True):
    """A whole answer as it came, batch by batch.

    ``channel`` gave it, ``warnings`` tell what it had adapted in the request. ``size`` in bytes, about.
    """

    batches: tuple[Batch, ...]
    size: int
    channel: str = ""
    warnings: tuple[str, tuple[str, ...]] | None = None


class Gathering:
    """Keeps a copy of an answer that passes by, up to ``max_bytes``."""

    __slots__ = ("_batches", "_left", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._batches: list[Batch] = []
        self._max_bytes = self._left = max_bytes

    def add(self, batch: Batch) -> None:
        """Take in a batch; what grows too large is dropped."""
        if self._left < 0:
            return
        self._left -= size_of_batch(batch)
        if self._left < 0:
            self._batches.clear()
        else:
            self._batches.append(tuple(batch))

    def answer(
        self, choices: int, channel: str = "", warnings: tuple[str, tuple[str, ...]] | None = None
    ) -> KeptAnswer | None:
        """The answer, which is at its end; None if it is not fit to be given again.

        Fit is one of all ``choices`` that were asked for, each ended of the model's own accord, with
        something said.
        """
        deltas = [delta for batch in self._batches for delta in batch]
        ended = {delta.index: delta.reason for delta in deltas if type(delta) is Finished}
        said = any(type(delta) in (TextDelta, ToolCallDelta) for delta in deltas)
        refused = any(type(delta) is RefusalDelta for delta in deltas)
        if (
            self._left < 0
            or refused
            or not said
            or len(ended) < choices
            or not _WHOLE.issuperset(ended.values())
        ):
            return None
        return KeptAnswer(tuple(self._batches), self._max_bytes - self._left, channel, warnings)


def size_of_batch(batch: Batch) -> int:
    """What a batch takes in memory, about. (bytes)"""
    return sum(map(_size_of, batch))


def _size_of(delta: Delta) -> int:
    original = delta.original
    size = DELTA_BYTES if original is None else DELTA_BYTES + len(original.data)
    text: str = getattr(delta, "text", "") or getattr(delta, "arguments", "")
    return size + (len(text) if text.isascii() else 4 * len(text))


class AnswerCache:
    """Kept answers by the fingerprints of their requests; what was not asked for the longest goes first.

    ``rules`` may be replaced (a reload); a smaller bound is in force from the next ``put`` on. ``counts``
    is told each outcome.
    """

    def __init__(self, rules: Cache, count: Callable[[str], None]) -> None:
        self.rules = rules
        self.count = count
        self.size = 0
        self._kept: OrderedDict[bytes, tuple[float, KeptAnswer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes, now: float) -> KeptAnswer | None:
        """The answer to an equal request, if it is young enough."""
        found = self._kept.get(key)
        if found is None:
            return None
        if now - found[0] >= self.rules.ttl_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: bytes, answer: KeptAnswer, now: float) -> None:
        """Keep an answer, within the bounds, in the place of an older one."""
        rules = self.rules
        self._drop(key)
        if answer.size <= min(rules.max_answer_bytes, rules.max_bytes):
            self._kept[key] = (now, answer)
            self.size += answer.size
        while len(self._kept) > rules.max_entries or self.size > rules.max_bytes:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Keep nothing of what there is."""
        self._kept.clear()
        self.size = 0

    def _drop(self, key: bytes) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self.size -= found[1].size
