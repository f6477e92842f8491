"""Commands of every wrong shape, too many of them, and other people's runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from server.handlers.status import WATCHERS
from tests.behaviour.asking import until
from tests.handlers.event_streams import ask
from tests.handlers.status_client import KEYED, Viewer, client, watching
from tests.scripted_runs import M1, site

ABSENT = "run_" + "0" * 32
SUBSCRIBE = '{"type":"subscribe","id":"1","topic":"self"'


@pytest.mark.parametrize(
    "first", ["", "null", "{}", "[]", '"x"', "5", '{"type":"ping"}', '{"type":"connection_init","token":5}']
)
async def test_whoever_does_not_begin_with_connection_init_is_sent_away(first: str) -> None:
    async with site() as shown, client(shown) as watcher:
        await watcher.socket.send(first)
        assert await watcher.closed() == 4400


async def test_fields_that_are_not_known_are_passed_over() -> None:
    async with site() as shown, client(shown) as watcher:
        await watcher.begin(payload={"a": [1]}, colour="red")
        assert (await watcher.subscribe("self", shape="round"))["id"] == "1"


@pytest.mark.parametrize(
    "wrong",
    [
        '{"type":"subscribe"}',
        '{"type":"subscribe","id":"1"}',
        '{"type":"subscribe","id":"","topic":"self"}',
        '{"type":"subscribe","id":null,"topic":"self"}',
        '{"type":"subscribe","id":"%s","topic":"self"}' % ("i" * 129),
        '{"type":"subscribe","id":"1","topic":"%s"}' % ("t" * 257),
        '{"type":"subscribe","id":"1","topic":["self"]}',
        SUBSCRIBE + ',"types":"model.*"}',
        SUBSCRIBE + ',"types":[5]}',
        SUBSCRIBE + ',"types":[' + ",".join(['"*"'] * 65) + "]}",
        SUBSCRIBE + ',"include":{"answer":true}}',
        SUBSCRIBE + ',"starting_after":"5"}',
        SUBSCRIBE + ',"starting_after":-1}',
        SUBSCRIBE + ',"starting_after":1.5}',
        SUBSCRIBE + ',"starting_after":9999999999999999999}',
        SUBSCRIBE + ',"offset":5}',
        SUBSCRIBE + ',"epoch":5}',
        SUBSCRIBE + ',"cursors":["m1"]}',
        SUBSCRIBE + ',"cursors":{"m1":-1}}',
        SUBSCRIBE + ',"cursors":{"m1":"4"}}',
        SUBSCRIBE + ',"wait":"yes"}',
        '{"type":"control","id":"1","verb":"cancel_run"}',
        '{"type":"control","id":"1","verb":"cancel_run","run_id":5}',
        '{"type":"control","id":"1","verb":["cancel_run"],"run_id":"x"}',
        '{"type":"control","id":"1","verb":"cancel_run","run_id":"x","member":5}',
        '{"type":"complete"}',
        '{"type":"refresh"}',
        '{"type":"next","id":"1","event":{}}',
        '{"type":"Subscribe","id":"1","topic":"self"}',
        '{"type":5}',
        "true",
        '{"type":"ping"',
        "\ud7ff\x00",
    ],
)
async def test_a_message_of_a_wrong_shape_closes_its_connection_and_no_other(wrong: str) -> None:
    async with watching() as (shown, watcher):
        async with client(shown) as faulty:
            await faulty.begin()
            await faulty.socket.send(wrong)
            assert await faulty.closed() == 4400
        await watcher.send("ping")
        await watcher.get("pong")


async def test_a_message_in_binary_is_malformed() -> None:
    async with site() as shown, client(shown) as watcher:
        await watcher.socket.send(b'{"type":"connection_init"}')
        assert await watcher.closed() == 4400


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"topic": ""}, "unknown_topic"),
        ({"topic": "run:"}, "unknown_topic"),
        ({"topic": "conversation:"}, "unknown_topic"),
        ({"topic": "ALL"}, "unknown_topic"),
        ({"topic": "self "}, "unknown_topic"),
        ({"topic": "self", "types": [""]}, "invalid_value"),
        ({"topic": "self", "types": ["model.*", "weather.*"]}, "invalid_value"),
        ({"topic": "self", "include": ["prompts"]}, "invalid_value"),
    ],
    ids=str,
)
async def test_a_subscription_to_what_there_is_not_is_an_error_and_its_id_stays_free(
    asked: dict[str, Any], code: str
) -> None:
    async with watching() as (_, watcher):
        await watcher.send("subscribe", id="1", **asked)
        error = await watcher.get("error")
        assert (error["id"], error["code"], error["retryable"]) == ("1", code, False)
        await watcher.subscribe("self")


@pytest.mark.parametrize("offset", ["-1", "", "٣", "x", "1.0", "9" * 200, " 0"])
async def test_an_offset_that_is_no_place_begins_anew(offset: str) -> None:
    async with watching() as (shown, watcher):
        shown.script().whole()
        told = await watcher.subscribe("self", offset=offset, epoch=shown.runs.bus.epoch)
        assert (told["recovered"], told["was_recovering"]) == (False, True)
        assert told["snapshot"] == {"object": "list", "data": []}


async def test_ten_thousand_subscriptions_cost_one_connection() -> None:
    async with watching() as (shown, watcher):
        async with client(shown) as greedy:
            await greedy.begin()
            try:
                for number in range(10_000):
                    await greedy.send("subscribe", id=str(number), topic="self", include=["answer"])
            except ConnectionClosed:
                pass
            assert await greedy.closed() == 4429
        run = shown.script().begin()
        await watcher.subscribe(f"run:{run.id}")
        await until(lambda: len(shown.app[WATCHERS]) == 1)
        run.close()
        await watcher.until("complete")
        assert not run.sleepers.asleep
        assert run.text_watchers == 0


async def test_beyond_the_limit_a_subscription_is_refused_and_may_be_tried_again() -> None:
    async with watching(max_subscriptions=3) as (_, watcher):
        for id in "123":
            await watcher.subscribe("self", id=id)
        await watcher.send("subscribe", id="4", topic="self")
        error = await watcher.get("error")
        assert (error["code"], error["retryable"]) == ("too_many_subscriptions", True)
        await watcher.send("subscribe", id="4", topic=f"run:{ABSENT}", wait=True)
        assert (await watcher.get("error"))["code"] == "too_many_subscriptions", "waiting counts as well"


VERBS = ["cancel_run", "cancel_member", "answer_now"]


@pytest.mark.parametrize("verb", VERBS)
async def test_to_steer_somebody_elses_run_is_answered_as_if_there_were_none(verb: str) -> None:
    async with site(KEYED) as shown, client(shown, "key-of-bob") as bob:
        script = shown.script(Viewer("ann"))
        run = script.begin()
        script.say(M1, "a draft that is long enough")
        await bob.begin()
        told = []
        for id in (run.id, ABSENT):
            await bob.send("control", id="c", verb=verb, run_id=id, member="m1")
            told.append(json.dumps(await bob.get("error")))
        assert told[0] == told[1]
        assert "run_not_found" in told[0]
        assert not run.is_cancelled()
        assert "run.control" not in [event.type for event in run.events_after(0)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/events?starting_after=1"),
        ("POST", "/cancel"),
        ("POST", "/answer_now"),
        ("POST", "/members/m1/cancel"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_by_http_somebody_elses_run_is_answered_like_an_absent_one(
    method: str, path: str, accept: str
) -> None:
    async with site(KEYED) as shown:
        run = shown.script(Viewer("ann")).begin()
        head = ("Authorization: Bearer key-of-bob", f"Accept: {accept}")
        theirs, absent = [
            await ask(shown, f"/v1/runs/{id}{path}", *head, method=method) for id in (run.id, ABSENT)
        ]
        assert (theirs.status, theirs.body) == (absent.status, absent.body)
        assert theirs.status == 404
        assert not run.is_cancelled()
