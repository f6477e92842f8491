"""What a simulated model finds in its prompt: the question, and what stands between the drafts' tags.

It gets nothing but the prompt, as a real model does; so what the coordinator shows, hides, cuts and shuffles
has its effect here.
"""

from __future__ import annotations

import re

import msgspec

from server.chat import ChatRequest

_ITEM = re.compile(r"question #(\d+)")
_DRAFT = re.compile(r'<(draft-[0-9a-f]{32}) label="([A-Z]+)" state="(\w+)">\n(.*?)\n</\1>', re.DOTALL)
_NOTES = re.compile(r'<(draft-[0-9a-f]{32}) notes="on the drafts">\n(.*?)\n</\1>', re.DOTALL)
_FAULT = re.compile(r"Draft ([A-Z]+) is wrong\b")
_RANKED = re.compile(r"best first: ([A-Z, ]+)\.")
_WAY = re.compile(r"This was way (\d{4})\.")
_VALUE = re.compile(r"\n(\d{5,6})$")
# What is asked for, by a word of the rules that nothing else has.
_TASKS = (
    ("winner", '"winner"'),
    ("ranking", '"ranking"'),
    ("score", '"score"'),
    ("analysis", '"consensus"'),
    ("faults", "list the faults"),
)


def question(number: int) -> str:
    """The words of a question."""
    return f"This is question #{number}. End with a line that holds the number alone."


def said(value: int, way: int) -> str:
    """A draft that comes to this answer by a way of its own (four digits), long enough to count when cut."""
    return f"{_PROSE}This was way {way:04d}.\n{value}"


def value_in(text: str) -> int | None:
    """The answer that a draft comes to; None for one that was cut, or says nothing of use."""
    found = _VALUE.search(text)
    return int(found[1]) if found else None


_PROSE = (
    "Let us go through this step by step, so that nothing is overlooked and every figure is checked twice. "
    * 5
)


class ShownDraft(msgspec.Struct, frozen=True):
    """A draft in a prompt. ``value`` None: no answer. ``way`` tells it from others of the same value."""

    label: str
    value: int | None
    way: str


class Prompt(msgspec.Struct, frozen=True):
    """``task`` is what is asked for: an answer, or one of the verdicts that judges give.

    ``faulted`` are the labels that notes call wrong, ``ranked`` those that notes rank, best first.
    """

    item: int
    task: str
    drafts: tuple[ShownDraft, ...]
    faulted: frozenset[str]
    ranked: tuple[str, ...]


def read(chat: ChatRequest) -> Prompt:
    """The prompt as a simulated model reads it. Raises ValueError if it holds no question."""
    text = chat.messages[-1].text
    numbers = _ITEM.findall(text)
    if not numbers:
        raise ValueError("the prompt holds no question")
    item = int(numbers[-1])
    if "<draft-" not in text:
        return Prompt(item, "answer", (), frozenset(), ())
    rules = "\n".join(turn.text for turn in chat.messages if turn.role == "system")
    task = next((name for name, word in _TASKS if word in rules), "answer")
    drafts = tuple(
        ShownDraft(label, value_in(body) if state != "truncated" else None, "".join(_WAY.findall(body)))
        for _, label, state, body in _DRAFT.findall(text)
    )
    notes = "\n".join(body for _, body in _NOTES.findall(text))
    ranked = _RANKED.search(notes)
    return Prompt(
        item,
        task,
        drafts,
        frozenset(_FAULT.findall(notes)),
        tuple(ranked[1].split(", ")) if ranked else (),
    )
