"""A Spark channel over real sockets: signed afresh, read with its own clocks, closed when nobody listens."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.utils import accept_key

from server.deltas import Finished, TextDelta, Usage, UsageDelta
from server.errors import (
    ContentFiltered,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    ServerError,
    UpstreamCut,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from server.settings import Channel, Images, Timeouts
from server.upstreams.base import Call
from server.upstreams.image_source import ImageSource
from server.upstreams.spark import SparkUpstream
from tests.behaviour.asking import until
from tests.spark.spark_chats import chat
from tests.upstreams.raw_upstream import Peer, raw_upstream
from tests.upstreams.spark_channel import KNOWN, deltas, text, upstream
from tests.upstreams.spark_server import (
    Script,
    SparkServer,
    breaking,
    error,
    frame,
    saying,
    spark_server,
    stalling,
)

LONG_S = 60
CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
ACCEPT = "Sec-WebSocket-Accept: "


async def test_a_chat_is_signed_sent_answered_and_counted() -> None:
    async with spark_server() as spark, upstream(spark.base_url) as asked:
        said = await deltas(asked, temperature=0)
        assert said[-2:] == [Finished("stop"), UsageDelta(Usage(1, 2, 3))]
        (request,) = spark.requests
        assert request["header"]["app_id"] == "appid123"
        assert len(request["header"]["uid"]) <= 32
        assert request["parameter"]["chat"] == {"domain": "lite", "temperature": 0.01}
        assert spark.urls[0].startswith("/v1.1/chat?authorization=")
        async with asyncio.timeout(LONG_S):
            await spark.gone.wait()
        assert spark.close_codes == [1000]


async def test_a_plain_answer_comes_as_one_batch() -> None:
    async with (
        spark_server() as spark,
        upstream(spark.base_url) as asked,
        aclosing(asked.stream(chat(), Call())) as batches,
    ):
        (batch,) = [batch async for batch in batches]
    assert [delta.text for delta in batch if isinstance(delta, TextDelta)] == ["po", "ng"]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (saying(error(11202)), RateLimited),
        (saying(error(10013)), ContentFiltered),
        (saying(frame("a", 0), error(11202)), RateLimited),
        (saying(), UpstreamCut),
        (saying(frame("a", 0)), UpstreamCut),
        (breaking(frame("a", 0)), UpstreamCut),
        (saying("no json"), UpstreamInvalid),
        (saying(b"\x00\xff"), UpstreamInvalid),
        (saying(frame("x" * 9_000_000)), UpstreamInvalid),
    ],
    ids=["refused", "moderated", "refused midway", "nothing", "cut", "broken", "text", "bytes", "too long"],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_is_not_whole_is_an_error(
    script: Script, kind: type[ServerError], stream: bool
) -> None:
    async with spark_server(script) as spark, upstream(spark.base_url) as asked:
        with pytest.raises(kind):
            await deltas(asked, stream=stream)
        async with asyncio.timeout(LONG_S):
            await spark.gone.wait()


async def test_a_frame_of_several_megabytes_is_read() -> None:
    whole = saying(frame("x" * 7_000_000, 2))
    async with spark_server(whole) as spark, upstream(spark.base_url) as asked:
        assert len(await text(asked)) == 7_000_000


async def test_an_answer_ends_with_its_last_frame_though_spark_keeps_the_socket() -> None:
    async with spark_server(stalling(frame("pong", 2))) as spark, upstream(spark.base_url) as asked:
        async with asyncio.timeout(LONG_S):
            assert await text(asked) == "pong"
            await spark.gone.wait()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("last", [(frame("a", 0), frame("", 2)), (frame("a", 2),)])
async def test_a_warning_behind_the_last_frame_is_the_reason_of_the_end(
    last: tuple[str, ...], stream: bool
) -> None:
    warned = saying(*last, error(10019))
    async with spark_server(warned) as spark:
        async with upstream(spark.base_url, spark={"warning_wait_s": 10}) as asked:
            assert (await deltas(asked, stream=stream))[-1] == Finished("content_filter")
        async with upstream(spark.base_url, spark={"warned": "stop"}) as asked:
            assert (await deltas(asked, stream=stream))[-1] == Finished("stop")


async def test_the_end_waits_for_no_warning_once_spark_says_goodbye() -> None:
    """Though it keeps the connection: the wait would be longer than this test."""
    left = asyncio.Event()

    async def goodbye(socket: ServerConnection) -> None:
        await socket.send(frame("pong", 2))
        socket.protocol.send_close(1000, "close this ws conn")
        for data in socket.protocol.data_to_send():
            socket.transport.write(data)
        await left.wait()

    async with (
        spark_server(goodbye) as spark,
        upstream(spark.base_url, spark={"warning_wait_s": 10}) as asked,
    ):
        async with asyncio.timeout(5):
            assert (await deltas(asked))[-1] == Finished("stop")
        left.set()


async def test_the_text_of_the_last_frame_waits_for_no_warning() -> None:
    slow = {"warning_wait_s": 10}
    async with (
        spark_server(stalling(frame("pong", 2))) as spark,
        upstream(spark.base_url, spark=slow) as asked,
    ):
        async with aclosing(asked.stream(chat(stream=True), Call())) as batches, asyncio.timeout(5):
            assert TextDelta("pong") in await anext(batches)
        async with asyncio.timeout(LONG_S):
            await spark.gone.wait()


@pytest.mark.parametrize("late", ["no json", b"\xff", frame("more"), error(10009)])
async def test_what_else_comes_behind_the_last_frame_is_passed_over(late: str | bytes) -> None:
    async with spark_server(saying(frame("pong", 2), late)) as spark, upstream(spark.base_url) as asked:
        said = await deltas(asked)
        assert (said[-2], said[-1]) == (TextDelta("pong"), Finished("stop"))


@pytest.mark.parametrize(
    ("script", "clocks", "clock"),
    [
        (stalling(), {"first_token_s": 0.05}, "first_token"),
        (stalling(frame("a", 0)), {"idle_s": 0.05}, "idle"),
        (stalling(frame("a", 0)), {"total_s": 0.05}, "total"),
    ],
)
async def test_a_silent_spark_is_left_when_its_clock_runs_out(
    script: Script, clocks: dict[str, float], clock: str
) -> None:
    async with spark_server(script) as spark, upstream(spark.base_url) as asked:
        async with asyncio.timeout(LONG_S):
            with pytest.raises(UpstreamTimeout) as caught:
                await deltas(asked, call=Call(timeouts=lambda said: msgspec.convert(clocks, Timeouts)))
            await spark.gone.wait()
    assert caught.value.clock == clock


async def test_a_listener_that_never_greets_runs_out_of_the_connect_clock() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with upstream(f"ws://127.0.0.1:{mute.getsockname()[1]}") as asked:
            with pytest.raises(UpstreamTimeout) as caught:
                await deltas(asked, call=Call(timeouts=lambda said: Timeouts(connect_s=0.05)))
    assert caught.value.clock == "connect"


async def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with upstream(f"ws://127.0.0.1:{port}") as asked:
        with pytest.raises(UpstreamUnreachable):
            await deltas(asked)


async def test_a_certificate_is_verified() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    async with spark_server(tls=tls) as spark:
        address = f"wss://localhost:{spark.port}"
        async with upstream(address) as asked:
            with pytest.raises(UpstreamUnreachable):
                await deltas(asked)
        async with upstream(address, tls={"ca_file": str(CERTIFICATE)}) as asked:
            assert await text(asked) == "pong"


async def test_a_proxy_is_asked_for_a_tunnel_and_one_that_refuses_is_no_way_there() -> None:
    heads: list[bytes] = []

    async def refuse(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    async with raw_upstream(refuse) as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        async with upstream("wss://models.invalid", proxy=address) as asked:
            with pytest.raises(UpstreamUnreachable) as caught:
                await deltas(asked)
    assert heads[0].startswith(b"CONNECT models.invalid:443 HTTP/1.1\r\n")
    assert "models.invalid" not in caught.value.message


@pytest.mark.parametrize("address", ["ws://127.0.0.1:99999", "ws:///", "ws://[1"])
async def test_an_address_that_is_none_is_told_without_the_signed_url(address: str) -> None:
    model = {"like": "spark-lite", "url": address}
    own = {"models": {"spark-lite": model}}
    made = msgspec.convert(KNOWN | {"spark": own}, Channel)
    asked = SparkUpstream(made, ImageSource(Images()))
    with pytest.raises(UpstreamUnreachable) as caught:
        await deltas(asked)
    assert caught.value.__cause__ is None
    assert "authorization" not in str(caught.value)


async def left_midway(spark: SparkServer, asked: SparkUpstream) -> None:
    """Take the first batch and go."""
    async with aclosing(asked.stream(chat(stream=True), Call())) as batches:
        await anext(batches)
    await spark.gone.wait()


async def test_a_client_that_leaves_takes_the_socket_along() -> None:
    async with spark_server(stalling(frame("a", 0))) as spark, upstream(spark.base_url) as asked:
        async with asyncio.timeout(LONG_S):
            await left_midway(spark, asked)


async def test_a_call_cancelled_before_its_first_frame_takes_the_socket_along() -> None:
    async with spark_server(stalling()) as spark, upstream(spark.base_url) as asked:
        task = asyncio.create_task(deltas(asked))
        async with asyncio.timeout(LONG_S):
            await spark.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await spark.gone.wait()


async def test_a_peer_that_reads_no_more_cannot_hold_a_socket() -> None:
    """What was sent fills the socket, so that not even a close frame gets through."""
    greeted, leave = asyncio.Event(), asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line[19:] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key: "))
        lines = ("HTTP/1.1 101 Go", "Upgrade: websocket", "Connection: Upgrade", ACCEPT + accept_key(key))
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await reader.readexactly(1)  # the request is on its way
        greeted.set()
        await leave.wait()
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", 0, limit=1024) as server:
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(LONG_S), upstream(address) as asked:
            long = chat({"role": "user", "content": "x" * 7_000_000}, stream=True)
            task = asyncio.ensure_future(anext(asked.stream(long, Call())))
            await greeted.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not any(one.get_name() == "close:spark" for one in asyncio.all_tasks()))
        leave.set()


async def test_what_spark_cannot_do_is_refused_before_a_dial() -> None:
    async with spark_server() as spark, upstream(spark.base_url) as asked:
        with pytest.raises(InvalidRequest):
            await deltas(asked, n=2)
        with pytest.raises(ModelNotFound):
            await deltas(asked, model="gone")
        with pytest.raises(InvalidRequest, match=r"v1\.1"):
            await deltas(asked, model="spark-api", version="v9")
        assert spark.urls == []


@pytest.mark.parametrize(("version", "path"), [(None, "/v1.1/chat"), ("v3.1", "/v3.1/chat")])
async def test_the_old_gateways_versions_find_their_model(version: str | None, path: str) -> None:
    async with spark_server() as spark, upstream(spark.base_url) as asked:
        fields = {} if version is None else {"version": version}
        assert await text(asked, model="spark-api", **fields) == "pong"
        assert spark.urls[0].split("?")[0] == path


async def test_the_channels_rules_for_fields_are_kept() -> None:
    rules = {"default": {"max_tokens": 7}, "drop": ["temperature"]}
    async with spark_server() as spark, upstream(spark.base_url, params=rules) as asked:
        assert await text(asked, temperature=1) == "pong"
        assert spark.requests[0]["parameter"]["chat"] == {"domain": "lite", "max_tokens": 7}


async def test_an_error_names_the_public_model_and_no_secret() -> None:
    words = "spark-lite appid123 the-api-key-0123 the-api-secret-0123"
    async with spark_server(saying(error(10009, words))) as spark, upstream(spark.base_url) as asked:
        with pytest.raises(ServerError) as caught:
            await deltas(asked, model="m")
    message = caught.value.message
    assert "10009: m ***" in message
    assert not any(secret in message for secret in words.split()[1:])


async def test_a_channels_own_models_and_choices_are_used() -> None:
    own = {
        "models": {"mine": {"like": "spark-max", "url": "wss://h/tuned", "domain": "d", "patch_id": ["r"]}},
        "legacy_fields": True,
    }
    async with spark_server() as spark, upstream(spark.base_url, spark=own, models=["mine"]) as asked:
        said = await deltas(asked, model="mine")
        assert spark.urls[0].startswith("/tuned?")
        assert spark.requests[0]["header"]["patch_id"] == ["r"]
        assert spark.requests[0]["parameter"]["chat"]["domain"] == "d"
    (usage,) = [delta.usage for delta in said if isinstance(delta, UsageDelta)]
    assert b"question_tokens" in (usage.raw or b"")
