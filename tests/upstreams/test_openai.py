"""The openai upstream against a simulated one: what it sends, and what it makes of the answers."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from server.chat import ChatRequest
from server.deltas import Finished, Opening, ReasoningDelta, TextDelta, ToolCallDelta, UsageDelta
from server.openai_wire import parse_chat
from server.settings import Channel
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from server.upstreams.http_fast import FastClient
from server.upstreams.http_upstream import LARGE_BYTES
from server.upstreams.openai import OpenAIUpstream
from tests.channels import answer, chat, deltas
from tests.upstreams.openai_cases import KEY, TEXT, connections, upstream

# ── what is sent ──


async def sent(sim: OpenAISimulator, request: ChatRequest, **settings: Any) -> bytes:
    async with upstream(sim.base_url, **settings) as channel:
        await deltas(channel, request=request)
    return sim.requests[-1].body


ODD = (
    b'{ "messages" : [{"role":"user","content":[{"type":"text","text":"\\u2028 hi"}],"name":null,"x":{}}],\n'
    b'"temperature":0,"seed":0,"max_tokens":0,"stop":[],"user":"","top_p":1.0,"big":12345678901234567890123,'
    b'"pi":3.14159265358979323846,"thinking":{"type":"enabled","deep":[{"a":null}]},"no":null,"yes":false,'
    b'"model" : "m" , "service_tier":"flex"'
)


async def test_a_plain_request_is_sent_byte_for_byte(sim: OpenAISimulator, http: str) -> None:
    body = ODD + b"}"
    assert await sent(sim, parse_chat(body), http=http) == body


async def test_a_stream_that_asks_for_usage_is_sent_byte_for_byte(sim: OpenAISimulator, http: str) -> None:
    body = ODD + b', "stream":true, "stream_options" : {"include_usage":true , "x":1.0}}'
    assert await sent(sim, parse_chat(body), http=http) == body


async def test_only_the_models_name_is_replaced_by_the_channels_own(sim: OpenAISimulator) -> None:
    sent_body = await sent(sim, parse_chat(ODD + b"}"), models={"m": {"model": 'their "m"'}})
    assert sent_body == ODD.replace(b'"m"', b'"their \\"m\\""') + b"}"


@pytest.mark.parametrize(
    ("asked", "sent_options"),
    [
        (b"", b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":{}', b',"stream_options":{"include_usage":true}'),
        (
            b',"stream_options":{"include_usage":false,"x":1.0}',
            b',"stream_options":{"include_usage":true,"x":1.0}',
        ),
    ],
)
async def test_usage_is_asked_for_and_nothing_else_is_changed(
    sim: OpenAISimulator, asked: bytes, sent_options: bytes
) -> None:
    body = ODD + b',"stream":true'
    assert await sent(sim, parse_chat(body + asked + b"}")) == body + sent_options + b"}"


async def test_usage_is_not_asked_for_where_the_channel_says_so(sim: OpenAISimulator) -> None:
    body = ODD + b',"stream":true}'
    for how in ("given", "refused"):
        assert await sent(sim, parse_chat(body), stream_usage=how) == body
    asked = ODD + b',"stream":true,"stream_options":{"include_usage":true}}'
    assert await sent(sim, parse_chat(asked), stream_usage="given") == asked
    assert b"stream_options" not in await sent(sim, parse_chat(asked), stream_usage="refused")


async def test_what_is_between_the_client_and_us_is_not_sent(sim: OpenAISimulator) -> None:
    request = chat(stream=False, antiphon={"quorum": 1}, conversation_id="c1", seed=1)
    assert set(json.loads(await sent(sim, request))) == {"model", "stream", "messages", "seed"}


async def test_the_upstream_gets_our_headers_and_none_besides(sim: OpenAISimulator, http: str) -> None:
    request = chat(stream=False)
    await sent(sim, request, http=http, headers={"X-Title": "mine"})
    assert {name.lower(): value for name, value in sim.requests[-1].headers} == {
        "host": f"127.0.0.1:{sim.port}",
        "user-agent": "antiphon",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": f"Bearer {KEY}",
        "x-title": "mine",
        "content-length": str(len(request.body)),
    }


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ("bearer", "authorization", f"Bearer {KEY}"),
        ("api-key", "api-key", KEY),
        ("x-api-key", "x-api-key", KEY),
        ("none", None, None),
    ],
)
async def test_the_key_stands_where_the_channel_says(
    sim: OpenAISimulator, auth: str, name: str | None, value: str | None
) -> None:
    await sent(sim, chat(), auth=auth)
    headers = {known.lower(): value for known, value in sim.requests[-1].headers}
    assert {k: v for k, v in headers.items() if KEY in v} == ({name: value} if name else {})


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "authorization", "CONTENT-TYPE"])
async def test_a_channels_header_replaces_ours_of_any_spelling(sim: OpenAISimulator, name: str) -> None:
    await sent(sim, chat(), headers={name: "application/json"})
    values = [value for known, value in sim.requests[-1].headers if known.lower() == name.lower()]
    assert values == ["application/json"]


@pytest.mark.parametrize("end", ["", "/", "/chat/completions", "/chat/completions/"])
async def test_the_base_url_may_name_the_endpoint(sim: OpenAISimulator, end: str) -> None:
    async with upstream(f"{sim.url}/some/v1{end}") as channel:
        assert await answer(channel) == TEXT
    assert sim.requests[-1].path == "/some/v1/chat/completions"


# ── what comes back ──


async def test_a_stream_is_told_as_deltas_with_the_upstreams_own_usage(
    sim: OpenAISimulator, http: str
) -> None:
    async with upstream(sim.base_url, http=http) as channel:
        got = await deltas(channel)
    assert type(got[0]) is Opening
    assert [type(delta) for delta in got[1:]] == [TextDelta] * 4 + [Finished, UsageDelta]
    usage = got[-1]
    assert isinstance(usage, UsageDelta)
    assert usage.usage.total_tokens > 0
    assert not usage.usage.estimated


async def test_a_plain_answer_says_the_same_as_a_stream(sim: OpenAISimulator, http: str) -> None:
    script = Script(reasoning=("hm",), text=TEXT, tools=(ToolCall(),), n=1)
    sim.script(script, script)
    said = []
    async with upstream(sim.base_url, http=http) as channel:
        for stream in (True, False):
            got = await deltas(channel, request=chat(stream=stream))
            said.append(
                (
                    "".join(delta.text for delta in got if type(delta) is TextDelta),
                    "".join(delta.text for delta in got if type(delta) is ReasoningDelta),
                    "".join(delta.arguments for delta in got if type(delta) is ToolCallDelta),
                    [delta.name for delta in got if type(delta) is ToolCallDelta and delta.name],
                    [delta.reason for delta in got if type(delta) is Finished],
                    [delta.usage.total_tokens > 0 for delta in got if type(delta) is UsageDelta],
                )
            )
    assert said[0] == said[1]
    assert said[0][0] == TEXT


async def test_one_success_is_one_request_on_a_connection_that_is_used_again(
    sim: OpenAISimulator, http: str
) -> None:
    async with upstream(sim.base_url, http=http) as channel:
        for number in range(1, 7):
            assert await answer(channel, request=chat(stream=number % 2 == 0)) == TEXT
            assert len(sim.requests) == number
    assert connections(sim) == 1


TOLERATED: dict[str, dict[str, Any]] = {
    "crlf": {"line_end": "crlf"},
    "cr": {"line_end": "cr"},
    "mixed line ends": {"line_end": "mixed"},
    "no space": {"space": False},
    "bom": {"bom": True},
    "data over lines": {"multiline": True},
    "event names": {"event_name": "message"},
    "event ids": {"event_ids": True, "retry": 5},
    "comments": {"comments_first": 3, "comments_between": True},
    "garbage": {"inject": {0: "data: {garbage\n\n", 2: "data: <html>\n\n"}},
    "no done": {"done": 0},
    "two dones": {"done": 2},
    "talk after done": {"after_done": 'data: {"error":{"message":"late"}}\n\n'},
    "no last blank line": {"last_blank_line": False},
    "no last blank line and no done": {"last_blank_line": False, "done": 0},
    "several events at once": {"join": 5},
    "byte by byte": {"split_at": 1},
    "roles everywhere": {"role": "every"},
    "no role": {"role": "never"},
    "finish with the last text": {"finish_form": "last"},
    "no finish but done": {"finish_form": "missing"},
    "empty finish": {"no_finish": "empty"},
    "absent finish": {"no_finish": "absent"},
    "no ids": {"ids": "absent", "created": False},
    "changing ids": {"ids": "changing"},
    "the whole message at the end": {"message_last": True},
    "azure's filter chunk": {"filter_first": True},
    "unknown fields": {"extras": True, "big_integers": True},
    "usage everywhere": {"usage": "every"},
    "usage in a choice": {"usage": "in_choices"},
    "no usage": {"usage": "never"},
    "gzip": {"encoding": "gzip"},
    "deflate": {"encoding": "deflate"},
    "json for a stream": {"answer_as": "json"},
    "blank lines, then json": {"answer_as": "json", "leading": "\n\n  \n"},
    "until the connection ends": {"framing": "close"},
    "by length": {"framing": "length"},
    "http 1.0": {"http": "1.0"},
    "interim answers": {"interim": (100, 103)},
    "a wrong content type": {"content_type": "text/html"},
    "no content type": {"content_type": ""},
    "a slow head": {"drip_ms": 0.01},
    "an announced end": {"connection": "close"},
}


@pytest.mark.parametrize("name", TOLERATED)
async def test_what_upstreams_do_is_understood_and_the_next_request_is_clean(
    sim: OpenAISimulator, name: str, http: str
) -> None:
    odd = Script(text=TEXT, chunks=4, **TOLERATED[name])
    split = Script(text=TEXT, chunks=4, **TOLERATED[name] | {"split_at": 1})
    sim.script(odd, split)
    async with upstream(sim.base_url, http=http) as channel:
        for _ in range(3):
            got = await deltas(channel)
            assert "".join(delta.text for delta in got if type(delta) is TextDelta) == TEXT
            assert [delta.reason for delta in got if type(delta) is Finished] == ["stop"]
    assert [one.outcome for one in sim.requests] == ["whole"] * 3


@pytest.mark.parametrize(
    "script", [{"answer_as": "sse"}, {"answer_as": "sse", "done": 0}, {"encoding": "gzip"}]
)
async def test_a_plain_request_may_be_answered_in_other_ways(
    sim: OpenAISimulator, script: dict[str, Any], http: str
) -> None:
    sim.script(Script(text=TEXT, split_at=3, **script))
    async with upstream(sim.base_url, http=http) as channel:
        assert await answer(channel, request=chat(stream=False)) == TEXT


async def test_a_megabyte_in_one_line_comes_whole(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(huge_bytes=1_000_000), Script(huge_bytes=1_000_000))
    async with upstream(sim.base_url, http=http) as channel:
        for stream in (True, False):
            assert len(await answer(channel, request=chat(stream=stream))) == 1_000_000


async def test_garbage_is_told_to_the_operator_once(
    sim: OpenAISimulator, caplog: pytest.LogCaptureFixture
) -> None:
    sim.script(Script(text=TEXT, inject={0: "data: {gar\n\ndata: bage\n\n"}))
    async with upstream(sim.base_url) as channel:
        assert await answer(channel) == TEXT
    assert caplog.messages == ["channel a: 2 unreadable lines skipped"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("length", [10, 2 * LARGE_BYTES])
async def test_an_answer_of_any_length_comes_whole_and_a_large_one_is_read_in_a_thread(
    sim: OpenAISimulator, stream: bool, length: int
) -> None:
    apart: list[bool] = []
    here = threading.get_ident()

    def mend(data: bytes) -> bytes:
        apart.append(threading.get_ident() != here)
        return data

    sim.script(Script(text="x" * length, chunks=1))
    client = FastClient()
    try:
        channel = OpenAIUpstream(Channel("a", "openai", ("m",), base_url=sim.base_url), client, mend=mend)
        assert await answer(channel, request=chat(stream=stream)) == "x" * length
    finally:
        await client.aclose()
    assert any(apart) is (length > LARGE_BYTES)
