"""The frames of a simulated Spark's answer: what they say, and between them the script's troubles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec
import orjson

from server.simulators.asked import Asked
from server.simulators.said import Said, say
from server.simulators.script import words
from server.simulators.spark_asked import SparkAsked
from server.simulators.spark_errors import error_frame, message_of
from server.simulators.spark_script import Source, SparkScript
from server.simulators.steps import Cut, Pause

SOFT_CODE = 10019
_DEFAULT_FAULT = 10012
_THOUGHTS = words(2, "thought")


class Message(NamedTuple):
    """One websocket message. ``counts``: it is a chunk, as a script counts."""

    data: bytes
    counts: bool = False
    binary: bool = False


class Raw(NamedTuple):
    """Bytes for the bare connection, in no frame."""

    data: bytes


FrameStep: TypeAlias = Message | Raw | Pause | Cut


def sid_of(script: SparkScript, number: int, *, http: bool = False) -> str:
    """The name of a session, in the vendor's form."""
    if script.sid is not None:
        return script.sid
    return f"{'cha' if http else 'cht'}000b{number:04x}@dx18d6fb9d758b{number:06x}0"


def say_spark(script: SparkScript, asked: SparkAsked, number: int) -> Said:
    """The pieces of an answer; a model that reasons does so without a script."""
    plain = Asked(
        model=asked.name,
        stream=asked.stream,
        include_usage=True,
        n=1,
        logprobs=False,
        prompt_tokens=asked.prompt_tokens,
        last_user=asked.last_user,
        fields=frozenset(),
    )
    said = say(script, plain, number)
    reasons = asked.thinks if script.think is None else script.think
    if not reasons or said.reasoning or said.tools:
        return said
    count = said.completion_tokens + len(_THOUGHTS)
    return msgspec.structs.replace(said, reasoning=_THOUGHTS, completion_tokens=count)


def sources_of(script: SparkScript, asked: SparkAsked) -> tuple[Source, ...]:
    """The pages to show: those of the script, or two where the request asks for them."""
    if script.sources is not None:
        return script.sources
    return (Source(), Source("Simulated too", "https://example.com/2")) if asked.shows_sources else ()


def usage_of(script: SparkScript, asked: SparkAsked, said: Said) -> dict[str, int]:
    """The usage. A call alone is told as no tokens, as the vendor's sample has it."""
    completion = 0 if said.tools and not said.text else said.completion_tokens
    prompt, question = asked.prompt_tokens, asked.question_tokens
    if script.usage == "zero":
        prompt = question = completion = 0
    return {
        "question_tokens": question,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def frame_steps(script: SparkScript, asked: SparkAsked, number: int, now: datetime) -> Iterator[FrameStep]:
    """A websocket's answer up to its last message. What closes it comes after."""
    if script.first_ms:
        yield Pause(script.first_ms / 1000)
    code = _hard_code(script)
    fault = Message(orjson.dumps(fault_frame(script, code or _DEFAULT_FAULT, number, now)))
    yield from _around(script, 0)
    if script.error_after == 0 or (code is not None and script.error_after is None):
        yield fault
        return
    count = 0
    for message in _messages(script, asked, number, now):
        if message.counts and count and script.pace_ms:
            yield Pause(script.pace_ms / 1000)
        yield message._replace(binary=script.frames == "binary")
        count += message.counts
        if message.counts:
            if count == script.error_after:
                yield fault
                return
            yield from _around(script, count)
    if script.after_done:
        yield Message(script.after_done.encode("utf-8", "surrogateescape"))


def fault_frame(script: SparkScript, code: int, number: int, now: datetime) -> dict[str, Any]:
    """The frame of the error that a script tells."""
    message = message_of(code, None, now) if script.error_message is None else script.error_message
    return error_frame(code, message, sid_of(script, number))


def _hard_code(script: SparkScript) -> int | None:
    code = script.error_code
    if code is None or code == SOFT_CODE:
        return None
    return int(code)


def _around(script: SparkScript, count: int) -> Iterator[FrameStep]:
    """What the script does after so many chunks."""
    if count in script.inject:
        yield Message(script.inject[count].encode("utf-8", "surrogateescape"))
    if count in script.inject_binary:
        yield Message(script.inject_binary[count].encode("utf-8", "surrogateescape"), binary=True)
    if count in script.inject_raw:
        yield Raw(script.inject_raw[count].encode("latin-1", "replace"))
    if script.stall_after == count:
        yield Pause(None if script.stall_ms is None else script.stall_ms / 1000)
    if script.cut_after == count:
        yield Cut()


def _messages(script: SparkScript, asked: SparkAsked, number: int, now: datetime) -> Iterator[Message]:
    """The answer without its troubles."""
    said = say_spark(script, asked, number)
    sources = sources_of(script, asked)
    header = {"code": 0, "message": script.header_message, "sid": sid_of(script, number)}
    if sources:
        plugins = {"text": [_plugin(sources)]}
        yield Message(orjson.dumps({"header": {**header, "status": 1}, "payload": {"plugins": plugins}}))
    items = _items(script, said) or [{"content": ""}]
    if script.last_frame == "empty":
        items.append({"content": ""})
    soft = script.error_code == SOFT_CODE
    warning = Message(orjson.dumps(fault_frame(script, SOFT_CODE, number, now)))
    for place, item in enumerate(items):
        last = place == len(items) - 1
        middle = 1 if place else 0
        ends = last and not (soft and script.soft_form == "own")
        in_header = 2 if ends and script.last_status in ("both", "header") else middle
        in_choices = 2 if ends and script.last_status in ("both", "choices") else middle
        choices: dict[str, Any] = {"status": in_choices}
        if script.seq:
            choices["seq"] = place
        choices["text"] = [{**item, "role": "assistant", "index": 0}]
        payload: dict[str, Any] = {"choices": choices}
        if script.usage != "never" and (ends or script.usage == "every"):
            payload["usage"] = {"text": usage_of(script, asked, said)}
        head = {**header, "status": in_header}
        if soft and ends and script.soft_form == "last":
            head |= {"code": SOFT_CODE, "message": orjson.loads(warning.data)["header"]["message"]}
        if script.extras:
            head["x_header"], payload["x_payload"] = [None], {"deep": [{}]}
        counts = not (last and script.last_frame == "empty")
        yield Message(orjson.dumps({"header": head, "payload": payload}), counts)
    if soft and script.soft_form != "last":
        yield warning


def _items(script: SparkScript, said: Said) -> list[dict[str, Any]]:
    both = min(len(said.reasoning), len(said.text)) if script.mixed else 0
    items: list[dict[str, Any]] = [
        {"content": text, "reasoning_content": thought}
        for text, thought in zip(said.text[:both], said.reasoning[:both], strict=True)
    ]
    items += [{"content": "", "reasoning_content": thought} for thought in said.reasoning[both:]]
    items += [{"content": text} for text in said.text[both:]]
    for call in said.tools[:1]:
        function = {"name": call.name, "arguments": call.arguments}
        items.append({"content": "", "content_type": "text", "function_call": function})
    return items


def _plugin(sources: tuple[Source, ...]) -> dict[str, Any]:
    pages = [{"index": place, "url": one.url, "title": one.title} for place, one in enumerate(sources, 1)]
    return {
        "name": "ifly_search",
        "content": orjson.dumps(pages).decode(),
        "content_type": "text",
        "content_meta": None,
        "role": "tool",
        "status": "finished",
        "invoked": {
            "namespace": "ifly_search",
            "plugin_id": "ifly_search",
            "plugin_ver": "",
            "status_code": 200,
            "status_msg": "Success",
            "type": "local",
        },
    }
