"""Whatever a vendor's model can answer, a client of any dialect sees it, or is told that it is missing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from server.messages_wire.beside import UNSIGNED
from server.openai_wire import unsealed
from tests.behaviour.anthropic_client import ASKED as ASKED_OF
from tests.behaviour.anthropic_client import asking, message
from tests.behaviour.asking import post
from tests.behaviour.kinds import kind_of
from tests.behaviour.rich import RICH, Rich
from tests.behaviour.speaking import DIALECTS, speaker

HELLO = [{"role": "user", "content": "hello"}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 2000},
    "/v1/responses": {"input": "hello"},
    "/v1/completions": {"prompt": "hello"},
}
_SEALED = re.compile(r'"(antiphon:[A-Za-z0-9+/=]+)"')
_PIECES = ("content", "arguments", "partial_json", "text", "delta", "thinking", "transcript", "refusal")
_WARNINGS = re.compile(r'"warnings":(\[[^\]]*\])')

every_kind = pytest.mark.parametrize("kind", RICH)
both_forms = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.mark.parametrize("kind", RICH)
def test_every_kind_of_thing_that_the_vendors_package_knows_is_in_the_answer(kind: str) -> None:
    rich = RICH[kind]
    assert rich.covered >= rich.due, "the vendor answers something new: have tests/behaviour/rich.py say it"


@both_forms
@pytest.mark.parametrize("path", ASKED)
@every_kind
async def test_each_thing_in_an_answer_is_seen_or_told_to_be_missing(
    kind: str, path: str, stream: bool
) -> None:
    rich = RICH[kind]
    async with kind_of(kind) as served:
        served.say(**rich.script)
        body = {"model": rich.model or served.model, "stream": stream, **ASKED[path]}
        answer = await post(served.server, body, path=path)
    assert answer.status == 200, answer.body
    seen = _said(answer.body.decode(), stream=stream)
    warnings = [one for found in _WARNINGS.findall(seen) for one in json.loads(found)]
    named = {warning.partition(" ")[0] for warning in warnings}
    marks = rich.marks + (rich.streamed_only if stream else rich.plain_only)
    lost = [mark.by for mark in marks if mark.by not in seen and not named.intersection(mark.told)]
    assert not lost, warnings
    if not stream and warnings:
        assert set(warnings) <= set(answer.headers["x-antiphon-warnings"].split("; "))
    if path == "/v1/chat/completions":
        assert not warnings, "chats have a place for everything"
    assert len(warnings) < 17, "so many are told one by one"


def _said(text: str, *, stream: bool) -> str:
    """What a client can read: texts joined over their pieces, and what it gives back unread."""
    events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    joined = "".join(_texts(json.loads(event)) for event in (events if stream else [text]))
    found = [one for one in _SEALED.findall(text) if one != UNSIGNED]
    return text + joined + "".join(json.dumps(unsealed(one)) for one in found)


def _texts(value: Any) -> str:
    """The pieces of texts within, in order."""
    if isinstance(value, list):
        return "".join(map(_texts, value))
    if not isinstance(value, dict):
        return ""
    return "".join(
        one if isinstance(one, str) and key in _PIECES else _texts(one) for key, one in value.items()
    )


@both_forms
@pytest.mark.parametrize("dialect", DIALECTS)
@every_kind
async def test_the_vendors_own_clients_read_such_an_answer(kind: str, dialect: str, stream: bool) -> None:
    rich: Rich = RICH[kind]
    async with kind_of(kind) as served, speaker(dialect, served.server.url) as client:
        served.say(**rich.script)
        told = await client.ask(rich.model or served.model, HELLO, stream=stream, thinks=True)
    assert "mark-text" in told.text
    if kind != "spark" and dialect != "completions":
        assert "mark-call" in [call.name for call in told.calls]
    if dialect != "completions":
        assert told.thought == "mark-thought"


@both_forms
async def test_anthropics_own_blocks_and_sources_come_to_its_own_clients_as_they_were_and_go_back(
    stream: bool,
) -> None:
    said: dict[str, Any] = {key: RICH["anthropic"].script[key] for key in ("blocks", "citations", "text")}
    async with asking("anthropic") as (client, kind):
        kind.say(**said, reasoning=("hm",), signature="Eq")
        told = await message(client, stream, model=kind.model, max_tokens=2000, messages=ASKED_OF)
        content = json.loads(told.model_dump_json(exclude_unset=True))["content"]
        first, rest = said["text"].split(" ", 1)
        assert [block for block in content if block["type"] != "text"] == [
            {"type": "thinking", "thinking": "hm", "signature": "Eq"},
            *said["blocks"],
        ]
        assert [block for block in content if block["type"] == "text"] == [
            {"type": "text", "text": first},
            {"type": "text", "text": f" {rest}", "citations": list(said["citations"])},
        ]
        kind.say(text="fine")
        more = [*ASKED_OF, {"role": "assistant", "content": content}, *ASKED_OF]
        await message(client, stream, model=kind.model, max_tokens=2000, messages=more)
        assert kind.sent()["messages"][1]["content"] == content
