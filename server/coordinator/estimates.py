"""How many tokens a text probably is, where nobody counted.

Four bytes of UTF-8 a token: right to a quarter for English with today's tokenizers, a little low for Chinese.
Estimates are always marked as such.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.chat import ChatRequest, Message
from server.deltas import Usage

BYTES_PER_TOKEN = 4
# What a turn costs beside its text, and what an image costs at least, as the large vendors count them.
TOKENS_PER_TURN = 4
TOKENS_PER_IMAGE = 300


def size_of(text: str) -> int:
    """Bytes of ``text`` in UTF-8, without encoding it where it is plain ASCII."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def tokens_of_bytes(size: int) -> int:
    """Tokens that ``size`` bytes of UTF-8 probably are."""
    return -(-size // BYTES_PER_TOKEN)


def tokens_of(text: str) -> int:
    """Tokens that ``text`` probably is."""
    return tokens_of_bytes(size_of(text))


def tokens_of_turns(turns: Iterable[Message]) -> int:
    """Tokens that these turns probably are, images included."""
    return sum(
        TOKENS_PER_TURN
        + tokens_of(turn.text)
        + TOKENS_PER_IMAGE * len(turn.images)
        + tokens_of_bytes(sum(len(bytes(call)) for call in turn.tool_calls or ()))
        for turn in turns
    )


def estimate_usage(chat: ChatRequest, answer_bytes: int) -> Usage:
    """What a call used whose upstream did not say, from its prompt and the text received."""
    prompt, completion = tokens_of_turns(chat.messages), tokens_of_bytes(answer_bytes)
    return Usage(prompt, completion, prompt + completion, estimated=True)
