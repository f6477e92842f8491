"""The routes of the Responses API; what the official client makes of them is in tests/behaviour."""

from __future__ import annotations

from tests.behaviour.asking import error_of, exchange, get, get_request, post
from tests.behaviour.kinds import kind_of

PATH = "/v1/responses"


async def test_what_is_kept_is_told_as_it_was_answered() -> None:
    async with kind_of("openai") as kind:
        answer = await post(kind.server, {"model": "m", "input": "hi"}, path=PATH)
        id = answer.json()["id"]
        kept = await get(kind.server, f"{PATH}/{id}")
        assert kept.body == answer.body
        assert kept.headers["cache-control"] == "no-store"
        gone = await exchange(kind.server, get_request(f"{PATH}/{id}", method="DELETE"))
        assert gone.json() == {"id": id, "object": "response", "deleted": True}
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
            refused = await exchange(kind.server, get_request(f"{PATH}/{id}{path}", method=method))
            assert error_of(refused, 404)["code"] == "response_not_found"


async def test_items_are_listed_in_either_order() -> None:
    async with kind_of("openai") as kind:
        items = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
        id = (await post(kind.server, {"model": "m", "input": items}, path=PATH)).json()["id"]
        newest = (await get(kind.server, f"{PATH}/{id}/input_items")).json()
        oldest = (await get(kind.server, f"{PATH}/{id}/input_items?order=asc")).json()
        assert [item["content"] for item in oldest["data"]] == ["one", "two"]
        assert newest["data"] == oldest["data"][::-1]
        assert (newest["first_id"], newest["has_more"]) == ("in_1", False)


async def test_an_answer_that_failed_amid_its_stream_is_kept_as_it_stands() -> None:
    async with kind_of("openai") as kind:
        kind.say(text="one two three", chunks=3, cut_after=2)
        answer = await post(kind.server, {"model": "m", "input": "hi", "stream": True}, path=PATH)
        id = "resp_" + answer.headers["x-run-id"].removeprefix("run_")
        kept = (await get(kind.server, f"{PATH}/{id}")).json()
        assert (kept["status"], kept["error"]["code"]) == ("failed", "upstream_cut")
        assert kept["output"][0]["content"][0]["text"] == "one two "
