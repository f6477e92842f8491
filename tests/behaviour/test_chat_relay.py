"""One model: what the client wrote reaches the upstream, and what the upstream said reaches the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from server.settings import Channel, ChannelModel, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.asking import CHAT, both, chunks_of, data_lines, get, post, text_of
from tests.behaviour.running import QUIET, Antiphon, ask, channel

Pair = tuple[Antiphon, OpenAISimulator]


def settings(sim: OpenAISimulator) -> Settings:
    renamed = Channel(
        name="renamed",
        kind="openai",
        base_url=sim.base_url,
        api_key="upstream-secret",
        models={"public": ChannelModel(model="there")},
    )
    return Settings(channels=(channel(sim), renamed), aliases={"nick": "public"}, logging=QUIET)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with both(settings) as pair:
        yield pair


# Spaces, escapes, order and number forms as a client may write them.
ODD_FIELDS = (
    b' "thinking" : {"type":"enabled","budget_tokens":1e3},\n "temperature":0, "seed":0,"max_tokens":0,'
    b'"user":"", "stop":[], "logprobs":false,"top_p":null,"x":[123456789012345678901234567890,1.0,1,'
    b'0.1000000000000000055511151231257827,-0,{"model":"m"}],"\xe4\xbd\xa0":"\\u2028 \xe2\x80\xa8 \\u0000",'
    b'"messages":[{"role":"developer","content":"","name":"n","x":1},{"role":"odd","content":null},'
    b'{"role":"user","content":[{"type":"text","text":"a\\/b"},{"type":"input_audio","input_audio":{"d":1}}]}]'
)


@pytest.mark.parametrize("stream", [b"", b',"stream":false'])
async def test_every_byte_but_the_models_name_reaches_the_upstream(pair: Pair, stream: bytes) -> None:
    server, sim = pair
    answer = await post(server, b'{"model" : "public" ,' + ODD_FIELDS + stream + b"}")
    assert answer.status == 200
    assert sim.requests[-1].body == b'{"model" : "there" ,' + ODD_FIELDS + stream + b"}"


async def test_an_alias_loses_no_field_either(pair: Pair) -> None:
    server, sim = pair
    answer = await post(server, b"{" + ODD_FIELDS + b',"model":"nick"}')
    assert answer.json()["model"] == "nick"
    assert sim.requests[-1].body == b"{" + ODD_FIELDS + b',"model":"there"}'


async def test_a_stream_request_only_gains_the_wish_for_usage(pair: Pair) -> None:
    server, sim = pair
    sent = b'{"model":"public",' + ODD_FIELDS + b',"stream":true}'
    assert (await post(server, sent)).status == 200
    got = sim.requests[-1].body
    assert got.startswith(b'{"model":"there",' + ODD_FIELDS + b',"stream":true')
    assert json.loads(got)["stream_options"] == {"include_usage": True}


async def test_stream_options_keep_what_else_they_say(pair: Pair) -> None:
    server, sim = pair
    await post(
        server, ask(stream=True, stream_options={"include_usage": False, "include_obfuscation": False})
    )
    assert sim.requests[-1].json()["stream_options"] == {"include_usage": True, "include_obfuscation": False}


async def test_unknown_answer_fields_and_long_numbers_come_through(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(extras=True, big_integers=True), times=2)
    async with server.client.post(f"{sim.base_url}/chat/completions", json=ask("m")) as direct:
        expected = await direct.read()
    answer = await post(server, ask("m"))

    def settled(body: bytes) -> list[tuple[str, object]]:
        pairs = json.loads(body, parse_int=str, parse_float=str, object_pairs_hook=lambda found: found)
        return [(name, value) for name, value in pairs if name not in ("id", "created")]

    assert dict(settled(answer.body)) == dict(settled(expected))


async def test_a_stream_is_the_upstreams_bytes_but_for_the_models_name(pair: Pair) -> None:
    server, sim = pair
    script = Script(text="Grüße, 世界 \u2028 🎈", chunks=5, extras=True, big_integers=True, logprobs=True)
    sim.script(script, times=2)
    async with server.client.post(f"{sim.base_url}/chat/completions", json=ask("m", stream=True)) as direct:
        expected = data_lines(await direct.read())
    got = data_lines((await post(server, ask("m", stream=True))).body)
    assert len(got) == len(expected)

    def tail(line: bytes) -> bytes:
        """A chunk without its head, in which the id and the time are the request's."""
        return line.partition(b'"choices":')[2]

    assert [tail(line) for line in got] == [tail(line) for line in expected]


async def test_only_the_models_field_is_renamed_and_never_the_text(pair: Pair) -> None:
    server, sim = pair
    for stream in (False, True):
        sim.script(Script(text='I am there, and "model":"there" is my name.'))
        answer = await post(server, ask("public", stream=stream))
        if stream:
            chunks = chunks_of(answer.body)
            assert {chunk["model"] for chunk in chunks} == {"public"}
            assert text_of(chunks) == 'I am there, and "model":"there" is my name.'
        else:
            assert answer.json()["model"] == "public"
            assert '"model":"there"' in answer.json()["choices"][0]["message"]["content"]


async def test_a_plain_answer_has_all_that_typed_clients_want(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(ids="absent", created=False, usage="never"))
    told = (await post(server, ask())).json()
    assert told["id"].startswith("chatcmpl-")
    assert told["object"] == "chat.completion"
    assert isinstance(told["created"], int)
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"]["estimated"] is True
    assert told["usage"]["total_tokens"] > 0


async def test_streamed_and_plain_answers_say_the_same(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(text=" \n", reasoning=("I ", "think"), tools=(ToolCall(), ToolCall(name="b"))), times=2)
    plain = (await post(server, ask())).json()["choices"][0]
    streamed = chunks_of((await post(server, ask(stream=True))).body)
    assert text_of(streamed) == plain["message"]["content"] == " \n"
    deltas = [choice["delta"] for chunk in streamed for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "I think"
    assert plain["message"]["reasoning_content"] == "I think"
    arguments = {0: "", 1: ""}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            arguments[call["index"]] += call["function"].get("arguments", "")
    told = {place: call["function"]["arguments"] for place, call in enumerate(plain["message"]["tool_calls"])}
    assert told == arguments
    assert plain["finish_reason"] == "tool_calls"


async def test_three_choices_come_apart(pair: Pair) -> None:
    server, _sim = pair
    plain = (await post(server, ask(n=3))).json()
    assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2]
    ends = [
        choice["index"]
        for chunk in chunks_of((await post(server, ask(n=3, stream=True))).body)
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert sorted(ends) == [0, 1, 2]


async def test_one_request_is_one_upstream_request_on_a_connection_that_is_kept(pair: Pair) -> None:
    server, sim = pair
    for stream in (True, False, True):
        assert (await post(server, ask(stream=stream))).status == 200
    assert len(sim.requests) == 3
    assert len({request.connection for request in sim.requests}) == 1


async def test_the_upstream_gets_its_own_headers_and_none_of_the_clients(pair: Pair) -> None:
    server, sim = pair
    secrets = {
        "Authorization": "Bearer client-secret",
        "x-api-key": "client-secret",
        "api-key": "client-secret",
        "Cookie": "a=client-secret",
        "X-Forwarded-For": "203.0.113.9",
        "OpenAI-Organization": "client-secret",
        "TE": "trailers",
    }
    await post(server, ask("public"), *(f"{name}: {value}" for name, value in secrets.items()))
    request = sim.requests[-1]
    assert request.header("Authorization") == "Bearer upstream-secret"
    assert request.header("Host") == f"127.0.0.1:{sim.port}"
    assert request.header("Content-Type") == "application/json"
    told = " ".join(f"{name}: {value}" for name, value in request.headers)
    assert "client-secret" not in told
    assert "203.0.113.9" not in told
    for name in ("cookie", "x-api-key", "api-key", "te", "openai-organization"):
        assert request.header(name) is None


async def test_no_header_of_the_upstreams_reaches_the_client(pair: Pair) -> None:
    server, sim = pair
    theirs: dict[str, str | None] = {"Set-Cookie": "a=b", "Server": "vendor/1", "Via": "x"}
    theirs["openai-organization"] = "org"
    for stream in (False, True):
        sim.script(Script(headers=theirs, encoding="gzip" if not stream else "identity"))
        answer = await post(server, ask(stream=stream))
        assert answer.status == 200
        assert answer.headers["server"] == "antiphon"
        assert not {"set-cookie", "via", "openai-organization", "content-encoding"} & set(answer.headers)


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}/", "/chat/completions", "/chat/completions/"])
async def test_the_path_answers_with_and_without_v1_and_a_last_slash(pair: Pair, path: str) -> None:
    server, _sim = pair
    assert (await post(server, ask(), path=path)).status == 200


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream", "nonsense"])
async def test_the_body_is_json_whatever_its_type_says(pair: Pair, content_type: str | None) -> None:
    server, _sim = pair
    assert (await post(server, ask(), content_type=content_type)).status == 200


async def test_many_answers_at_once_do_not_mix(pair: Pair) -> None:
    server, _sim = pair

    async def one(number: int) -> None:
        answer = await post(server, ask(text=f"number {number} " * 50, stream=bool(number % 2)))
        if number % 2:
            text = text_of(chunks_of(answer.body))
        else:
            text = answer.json()["choices"][0]["message"]["content"]
        assert text.count(f"number {number} ") >= 49
        assert text.count("number") == 50

    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(one(number))


async def test_a_huge_body_passes_whole(pair: Pair) -> None:
    server, sim = pair
    text = "x" * (10 * 1024 * 1024)
    sim.script(Script(text="ok"))
    assert (await post(server, ask(text=text))).status == 200
    assert len(sim.requests[-1].json()["messages"][0]["content"]) == len(text)


async def test_a_huge_delta_passes_whole(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(huge_bytes=1_000_000), times=2)
    assert len(text_of(chunks_of((await post(server, ask(stream=True))).body))) == 1_000_000
    assert len((await post(server, ask())).json()["choices"][0]["message"]["content"]) == 1_000_000


async def test_every_answer_tells_its_run_and_our_own_time(pair: Pair) -> None:
    server, _sim = pair
    for stream in (False, True):
        answer = await post(server, ask(stream=stream))
        run_id = answer.headers["x-run-id"]
        assert float(answer.headers["x-antiphon-overhead-ms"]) >= 0
        run = (await get(server, f"/v1/runs/{run_id}")).json()
        assert run["status"] == "completed"
