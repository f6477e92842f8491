"""``POST /v1/events/tickets``, and what a page does with a ticket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from server.auth import Principal
from server.settings import Settings
from tests.behaviour.asking import chat_request
from tests.handlers.event_streams import ask, event_source
from tests.handlers.status_client import client
from tests.raw_http import Answer, connect
from tests.scripted_runs import KEYS, Site, site

KEYED = Settings(access=KEYS)
ANN = Principal("ann")
BEARER = "Authorization: Bearer key-of-ann"


async def make(shown: Site, body: Any, *headers: str) -> Answer:
    async with connect("127.0.0.1", shown.port) as raw:
        await raw.send(chat_request(body, *(headers or (BEARER,)), path="/v1/events/tickets"))
        return await raw.answer()


async def ticket(shown: Site, **wish: Any) -> str:
    answer = await make(shown, wish)
    assert answer.status == 200, answer.body
    assert set(answer.json()) == {"ticket", "expires_at"}
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["ticket"])


async def test_an_event_source_watches_with_a_ticket_and_a_second_time_is_refused() -> None:
    async with site(KEYED) as shown:
        run = shown.script(ANN).begin()
        word = await ticket(shown, topic=f"run:{run.id}", include=["answer"])
        async with event_source(shown, f"/v1/events?ticket={word}") as source:
            snapshot = await source.next()
            assert snapshot is not None
            assert snapshot.event == "snapshot"
            assert json.loads(snapshot.data)["id"] == run.id
            run.close()
            assert [event.event for event in await source.rest()][-1] in ("run.failed", "run.cancelled")
        again = await ask(shown, f"/v1/events?ticket={word}", "Accept: text/event-stream")
        assert again.status == 401
        assert again.json()["error"]["code"] == "invalid_ticket"


async def test_a_websocket_watches_with_a_ticket_what_it_was_made_for_and_steers_nothing() -> None:
    async with site(KEYED) as shown:
        run = shown.script(ANN).begin()
        word = await ticket(shown, topic=f"run:{run.id}", types=["run.*"])
        async with with_ticket(shown, word) as watcher:
            await watcher.begin()
            await watcher.subscribe(f"run:{run.id}", starting_after=0)
            await watcher.send("subscribe", id="2", topic="self")
            assert [one["type"] for one in (await watcher.get(), await watcher.get())] == ["next", "next"]
            assert (await watcher.get("error"))["code"] == "not_allowed"
            for id, more in (("3", {"types": ["model.*"]}), ("4", {"include": ["drafts"]})):
                await watcher.send("subscribe", id=id, topic=f"run:{run.id}", **more)
                assert (await watcher.get("error"))["code"] == "not_allowed"
            await watcher.send("control", id="5", verb="cancel_run", run_id=run.id)
            assert (await watcher.get("error"))["code"] == "not_allowed"
            assert not run.is_cancelled()
            run.close()
        with pytest.raises(InvalidStatus) as refused:
            async with with_ticket(shown, word):
                pass
        assert refused.value.response.status_code == 401


def with_ticket(shown: Site, word: str) -> Any:
    return client(shown, query=f"?ticket={word}")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"topic": "all"}, 403),
        ({"topic": "nothing"}, 400),
        ({"topic": "run:"}, 400),
        ({"topic": "run:" + "a" * 300}, 400),
        ({"topic": "self", "types": ["nobody.*"]}, 400),
        ({"topic": "self", "include": ["channels"]}, 400),
        ({"topic": "self", "include": ["prompts"]}, 400),
        ({"topic": "self", "more": 1}, 400),
        ({"topic": 3}, 400),
        ({}, 400),
        (b"", 400),
        (b"[", 400),
    ],
)
async def test_a_wish_that_cannot_be_granted_is_refused(body: Any, status: int) -> None:
    async with site(KEYED) as shown:
        assert (await make(shown, body)).status == status


async def test_nobody_gets_a_ticket_without_a_key_and_no_foreign_run_is_seen() -> None:
    async with site(KEYED) as shown:
        assert (await make(shown, {"topic": "self"}, "X-Nothing: 1")).status == 401
        run = shown.script(Principal("bob")).begin()
        word = await ticket(shown, topic=f"run:{run.id}")
        answer = await ask(shown, f"/v1/events?ticket={word}", "Accept: text/event-stream")
        assert answer.status == 404
        for path in ("/v1/events?ticket=", "/v1/events?ticket=tk_0"):
            assert (await ask(shown, path, "Accept: text/event-stream")).status == 401
        run.close()
