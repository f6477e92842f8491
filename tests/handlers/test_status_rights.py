"""Who may watch what through the status channel, and how much of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from server.app_keys import CURRENT
from server.settings import Access, AccessKey, Cors, Events, Settings
from tests.behaviour.asking import get_request
from tests.handlers.status_client import EVENTS, KEYED, Viewer, client, watching
from tests.raw_http import connect
from tests.scripted_runs import KEYS, M1, site


async def test_a_key_may_come_in_each_of_three_ways() -> None:
    coded = base64.urlsafe_b64encode(b"key-of-ann").rstrip(b"=").decode()
    bearer = Subprotocol(f"base64url.bearer.authorization.antiphon.{coded}")
    async with site(KEYED) as shown:
        async with client(shown, "key-of-ann") as watcher:
            await watcher.begin()
        async with client(shown, subprotocols=[EVENTS, bearer]) as watcher:
            assert watcher.socket.subprotocol == EVENTS
            await watcher.begin()
        async with client(shown) as watcher:
            await watcher.begin(token="key-of-ann")
        async with client(shown) as watcher:
            await watcher.send("connection_init", token="wrong")
            assert await watcher.closed() == 4401
        async with client(shown) as watcher:
            await watcher.send("connection_init")
            assert await watcher.closed() == 4401


async def test_a_foreign_run_is_like_an_absent_one_and_an_admin_sees_all() -> None:
    async with site(KEYED) as shown, client(shown, "key-of-bob") as bob:
        run = shown.script(Viewer("ann")).begin()
        await bob.begin()
        for id, name in (("1", run.id), ("2", "run_" + "0" * 32)):
            await bob.send("subscribe", id=id, topic=f"run:{name}")
            assert await bob.get() == {"type": "complete", "id": id, "reason": "not_found"}
        await bob.send("subscribe", id="3", topic="all")
        assert (await bob.get("error"))["code"] == "not_allowed"
        await bob.send("control", id="4", verb="cancel_run", run_id=run.id)
        assert (await bob.get("error"))["code"] == "run_not_found"
        assert not run.is_cancelled()
        assert (await bob.subscribe("self", id="5"))["snapshot"]["data"] == []
        async with client(shown, "key-of-root") as root:
            await root.begin()
            subscribed = await root.subscribe("all", include=["channels"])
            assert [one["id"] for one in subscribed["snapshot"]["data"]] == [run.id]
            await root.subscribe(f"run:{run.id}", id="2", starting_after=3, include=["channels"])
            assert (await root.get("next"))["event"]["data"] == {"channel": "secret-channel"}


async def test_connections_and_subscriptions_are_limited() -> None:
    async with watching(max_connections=1, max_subscriptions=2) as (shown, watcher):
        async with client(shown) as second:
            await second.send("connection_init")
            assert await second.closed() == 4429
        for id in ("1", "2"):
            await watcher.subscribe("self", id=id)
        await watcher.send("subscribe", id="3", topic="self")
        assert (await watcher.get("error"))["code"] == "too_many_subscriptions"
        await watcher.send("complete", id="1")
        await watcher.subscribe("self", id="3")


async def test_a_conversation_is_a_topic_of_its_own_key() -> None:
    ann, bob = Viewer("ann"), Viewer("bob")
    async with site(KEYED) as shown, client(shown, "key-of-ann") as watcher:
        await watcher.begin()
        early = shown.script(ann, conversation_id="c1")
        early.begin()
        subscribed = await watcher.subscribe("conversation:c1", include=["drafts"])
        assert [one["id"] for one in subscribed["snapshot"]["data"]] == [early.run.id]
        others = [shown.script(ann), shown.script(ann, conversation_id="c2")]
        others.append(shown.script(bob, conversation_id="c1"))
        for other in others:
            other.begin()
            other.say(M1, "not for this watcher")
            other.run.close()
        late = shown.script(ann, conversation_id="c1")
        late.whole()
        early.run.close()
        seen: list[Any] = []
        while not seen or seen[-1]["run_id"] != early.run.id or seen[-1]["type"] != "run.failed":
            message = await watcher.get()
            seen += [message["event"]] if message["type"] == "next" else []
        assert {event["run_id"] for event in seen} == {early.run.id, late.run.id}
        assert {event["conversation_id"] for event in seen} == {"c1"}


async def test_who_brings_no_key_and_cannot_bring_one_later_is_refused_in_the_handshake() -> None:
    async with site(KEYED) as shown:
        with pytest.raises(InvalidStatus) as refused:
            async with client(shown, subprotocols=None):
                pass
        assert refused.value.response.status_code == 401
        assert b'"missing_api_key"' in (refused.value.response.body or b"")
        async with client(shown, "key-of-ann", subprotocols=None) as watcher:
            assert await watcher.closed() == 4406
        async with client(shown) as watcher:
            await watcher.begin(token="key-of-ann")


PUBLIC = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "models.example.org"}


@pytest.mark.parametrize(
    ("origin", "told", "trusted", "may"),
    [
        ("http://127.0.0.1:{port}", {}, False, True),  # its own page
        ("https://127.0.0.1:{port}", {}, False, False),
        ("http://127.0.0.1", {}, False, False),
        ("null", {}, False, False),
        ("https://listed.example", {}, False, True),
        ("https://called.example", {}, False, True),
        ("http://listed.example", {}, False, False),
        ("https://models.example.org", PUBLIC, True, True),
        ("https://models.example.org", PUBLIC, False, False),  # whoever says so need not be a proxy
        ("http://models.example.org", PUBLIC, True, False),
        ("https://evil.example", PUBLIC, True, False),
        ("https://127.0.0.1:{port}", {"X-Forwarded-Proto": "https"}, True, True),
        ("https://127.0.0.1:{port}", {"X-Forwarded-Proto": "wss"}, True, True),
        ("https://models.example.org", {**PUBLIC, "X-Forwarded-Host": "Models.example.org:443"}, True, True),
        ("https://models.example.org:8443", PUBLIC, True, False),
        ("https://models.example.org", {**PUBLIC, "X-Forwarded-Proto": "https, http"}, True, True),
        ("http://127.0.0.1:{port}", {"X-Forwarded-Proto": "", "X-Forwarded-Host": ""}, True, True),
    ],
)
async def test_a_page_may_watch_from_where_it_stands_and_a_trusted_proxy_says_where_that_is(
    origin: str, told: dict[str, str], trusted: bool, may: bool
) -> None:
    settings = Settings(
        access=replace(KEYS, trusted_proxies=("127.0.0.0/8",) if trusted else ("203.0.113.1",)),
        cors=Cors(origins=("https://called.example",)),
        events=Events(origins=("https://listed.example",)),
    )
    async with site(settings) as shown:
        headers = {"Origin": origin.format(port=shown.port), **told}
        if may:
            async with client(shown, "key-of-ann", headers=headers) as watcher:
                await watcher.begin()
            return
        with pytest.raises(InvalidStatus) as refused:
            async with client(shown, "key-of-ann", headers=headers):
                pass
        assert refused.value.response.status_code == 403
        assert b'"origin_not_allowed"' in (refused.value.response.body or b"")


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("https://listed.example", True),
        ("https://called.example", True),
        ("http://localhost:3000", True),
        ("http://listed.example", False),
        ("https://evil.example", False),
    ],
)
async def test_without_keys_a_listed_page_may_watch_and_do_no_more(origin: str, may: bool) -> None:
    settings = Settings(
        cors=Cors(origins=("https://called.example",)), events=Events(origins=("https://listed.example",))
    )
    async with site(settings) as shown:
        headers = {"Origin": origin}
        if may:
            async with client(shown, headers=headers) as watcher:
                await watcher.begin()
        else:
            with pytest.raises(InvalidStatus) as refused:
                async with client(shown, headers=headers):
                    pass
            assert refused.value.response.status_code == 403
        async with connect("127.0.0.1", shown.port) as raw:
            await raw.send(get_request("/v1/runs", f"Origin: {origin}"))
            assert (await raw.answer()).status == (200 if may and "listed" not in origin else 403)


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        ((AccessKey(name="ann", key="key-of-ann", expires="2020-01-01"),), "expired"),
        (KEYS.keys[1:], "revoked"),
    ],
)
async def test_who_watches_is_told_that_its_key_is_good_no_more(
    left: tuple[AccessKey, ...], reason: str
) -> None:
    async with site(KEYED) as shown, client(shown, "key-of-ann") as watcher:
        await watcher.begin()
        await watcher.subscribe("self", id="1")
        current = shown.app[CURRENT]
        current.snapshot = current.make(replace(KEYED, access=Access(keys=left)))
        await watcher.send("subscribe", id="2", topic="self")  # when a key is looked at again
        complete = await watcher.get("complete")
        assert (complete["id"], complete["reason"]) == ("1", reason)
        assert await watcher.closed() == 4401
