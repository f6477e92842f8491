"""How many tokens a text probably is, where nobody counted.

By the script: an ASCII character is a quarter of a token, one of two bytes of UTF-8 (Cyrillic, Arabic,
accents) three eighths, one of three (Chinese, Japanese, Korean, Indic) three quarters, one of four (emoji)
one and a half. Held against o200k, llama-3 and qwen2.5, texts in English, German, French, Arabic, Chinese,
Japanese, Korean, code and JSON come out within a third, Russian within a half, Hindi within a factor of two
and a half; the older cl100k makes up to twice as many of what is not Latin. Estimates are marked as such, and
made when a call is over.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.chat import ChatRequest, Message
from server.deltas import Usage

BYTES_PER_TOKEN = 4
# So many pieces of a text are weighed together.
MAX_PIECES = 64
# The first bytes of characters of two and of four bytes.
_TWO = bytes(range(0xC2, 0xE0))
_FOUR = bytes(range(0xF0, 0xF5))
# What a turn costs beside its text, and what an image costs at least, as the large vendors count them.
TOKENS_PER_TURN = 4
TOKENS_PER_IMAGE = 300


def weight_of(text: str) -> int:
    """Quarters of a token that ``text`` probably is; of plain ASCII its length."""
    if text.isascii():
        return len(text)
    data = text.encode("utf-8", "replace")
    size = len(data)
    twos, fours = (size - len(data.translate(None, firsts)) for firsts in (_TWO, _FOUR))
    return size - twos // 2 + 2 * fours


class Weighing:
    """The weight of a text that comes in pieces, as far as it is beyond the text's length.

    Pieces are weighed together: one by one they would hold up the answer.
    """

    __slots__ = ("_beyond", "_pieces")

    def __init__(self) -> None:
        self._beyond = 0
        self._pieces: list[str] = []

    def add(self, text: str) -> None:
        """Take in a piece. One of plain ASCII weighs nothing beyond its length, and need not come."""
        self._pieces.append(text)
        if len(self._pieces) >= MAX_PIECES:
            self._weigh()

    @property
    def beyond(self) -> int:
        """What all pieces weigh beyond one for each code point."""
        self._weigh()
        return self._beyond

    def _weigh(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        self._beyond += weight_of(text) - len(text)


def tokens_of_bytes(size: int) -> int:
    """Tokens that ``size`` bytes of JSON, or so much weight, probably are."""
    return -(-size // BYTES_PER_TOKEN)


def tokens_of(text: str) -> int:
    """Tokens that ``text`` probably is."""
    return tokens_of_bytes(weight_of(text))


def tokens_of_turns(turns: Iterable[Message]) -> int:
    """Tokens that these turns probably are, images included."""
    return sum(
        TOKENS_PER_TURN
        + tokens_of(turn.text)
        + TOKENS_PER_IMAGE * len(turn.images)
        + tokens_of_bytes(sum(len(bytes(call)) for call in turn.tool_calls or ()))
        for turn in turns
    )


def tokens_of_chat(chat: ChatRequest) -> int:
    """Tokens that a request probably is: its turns, and the tools that it offers."""
    tools = sum(len(chat.json.raw(field) or b"") for field in ("tools", "functions"))
    return tokens_of_turns(chat.messages) + tokens_of_bytes(tools)


def estimate_usage(chat: ChatRequest, answer_weight: int) -> Usage:
    """What a call used whose upstream did not say, from its prompt and the weight of the text received."""
    prompt, completion = tokens_of_chat(chat), tokens_of_bytes(answer_weight)
    return Usage(prompt, completion, prompt + completion, estimated=True)
