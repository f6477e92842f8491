"""``serving.served``: several servers within one process, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import pytest

from server.serving import CannotListen, ServeOptions, served
from tests.served import echo_app


async def test_several_are_served_at_once_and_gone_after_the_block() -> None:
    async with aiohttp.ClientSession() as client:
        async with (
            served(echo_app(), ServeOptions(port=0)) as one,
            served(echo_app(), ServeOptions(port=0)) as two,
        ):
            assert one != two
            for base in (one, two):
                async with client.get(f"{base}/path") as answer:
                    assert (answer.status, answer.headers["server"]) == (200, "antiphon")
        with pytest.raises(aiohttp.ClientError):
            await client.get(one)


async def test_it_takes_no_signal_for_its_own() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with served(echo_app(), ServeOptions(port=0)):
        assert signal.getsignal(signal.SIGTERM) is before
        assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_a_port_in_use_is_told() -> None:
    async with served(echo_app(), ServeOptions(port=0)) as base:
        port = int(base.rpartition(":")[2])
        with pytest.raises(CannotListen):
            async with served(echo_app(), ServeOptions(port=port)):
                pass
