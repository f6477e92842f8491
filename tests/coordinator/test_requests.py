"""What members, the summary and the one model of ``direct`` are asked."""

from __future__ import annotations

from typing import Any

import msgspec

from server.chat import ChatRequest
from server.coordinator.plan import make_plan
from server.coordinator.requests import direct_request, draft_request, summary_request
from server.settings import Combination, Member, Summary
from tests.coordinator.panel import request

IMAGE = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}


def drafted(chat: ChatRequest, member: Member, *, blind: bool = False, **changes: Any) -> dict[str, Any]:
    settings = Combination(name="p", members=(member,), summary=Summary(model="w"), **changes)
    plan = make_plan(settings, chat)
    body: dict[str, Any] = msgspec.json.decode(draft_request(chat, plan, plan.calls[0], blind=blind).body)
    return body


def test_the_clients_wishes_win_over_the_members_unless_forced() -> None:
    member: dict[str, Any] = {"model": "a", "temperature": 0.9, "params": {"top_k": 5, "seed": 1}}
    body = drafted(request(temperature=0.1, seed=7), Member(**member))
    assert (body["temperature"], body["seed"], body["top_k"]) == (0.1, 7, 5)
    body = drafted(request(temperature=0.1), Member(**member, force=True))
    assert body["temperature"] == 0.9
    assert drafted(request(temperature=None), Member(**member))["temperature"] == 0.9


def test_what_concerns_the_answer_alone_is_not_sent_and_the_rest_is() -> None:
    chat = request(
        n=1,
        stream_options={"include_usage": True},
        antiphon={},
        conversation_id="c",
        stop=["x"],
        odd={"a": 1.50},
    )
    body = drafted(chat, Member(model="a"))
    assert set(body) == {"model", "messages", "stop", "odd", "stream"}
    assert body["stream"] is True
    assert body["model"] == "a"


def test_the_smaller_limit_of_tokens_is_sent_under_the_name_that_the_client_used() -> None:
    member = Member(model="a", draft_max_tokens=100)
    assert drafted(request(), member)["max_tokens"] == 100
    assert drafted(request(max_tokens=50), member)["max_tokens"] == 50
    body = drafted(request(max_completion_tokens=500), member)
    assert body["max_completion_tokens"] == 100
    assert "max_tokens" not in body
    assert (
        drafted(request(), Member(model="a", params={"max_tokens": 900}), draft_max_tokens=80)["max_tokens"]
        == 80
    )
    forced = Member(model="a", params={"max_tokens": 7}, force=True)
    body = drafted(request(max_completion_tokens=500), forced)
    assert body["max_tokens"] == 7
    assert "max_completion_tokens" not in body


def test_a_members_system_text_is_added_to_the_clients() -> None:
    member = Member(model="a", system="Be short.")
    user = {"role": "user", "content": "hi"}
    assert drafted(request("hi"), member)["messages"] == [{"role": "system", "content": "Be short."}, user]
    chat = request(messages=[{"role": "developer", "content": "Rhyme.", "name": "dev"}, user])
    assert drafted(chat, member)["messages"] == [
        {"role": "developer", "content": "Rhyme.\n\nBe short.", "name": "dev"},
        user,
    ]
    parts = [{"type": "text", "text": "Rhyme."}]
    chat = request(messages=[{"role": "system", "content": parts}, user])
    assert drafted(chat, member)["messages"][0]["content"] == [*parts, {"type": "text", "text": "Be short."}]


def test_a_blind_member_gets_a_line_for_an_old_image() -> None:
    turns = [
        {"role": "user", "content": [IMAGE, {"type": "text", "text": "?"}]},
        {"role": "user", "content": "so"},
    ]
    first = drafted(request(messages=turns), Member(model="a"), blind=True)["messages"][0]
    assert [part["type"] for part in first["content"]] == ["text", "text"]
    assert drafted(request(messages=turns), Member(model="a"))["messages"] == turns


def test_the_summarys_own_parameters_serve_where_the_client_sent_none() -> None:
    summary = Summary(model="w", temperature=0.3, params={"max_tokens": 220})
    body = msgspec.json.decode(
        summary_request(request(), summary, "w2", [b'{"role":"user","content":"x"}']).body
    )
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("w2", 0.3, 220)
    body = msgspec.json.decode(summary_request(request(max_completion_tokens=9), summary, "w", []).body)
    assert "max_tokens" not in body


def test_direct_passes_the_request_byte_for_byte() -> None:
    chat = request([IMAGE], x=1.0)
    assert direct_request(chat, blind=False) is chat
    with_field = request("hi", antiphon={})
    assert b"antiphon" not in direct_request(with_field, blind=False).body
