"""Tokens from files and commands: kept, had anew, and what is wrong told."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from server.errors import UpstreamAuth
from server.upstreams.entra import TokenSource


def printing(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r})")


@pytest.mark.parametrize(
    "printed",
    ["abc", ' {"accessToken": "abc", "expires_on": 1}', '{"access_token": "abc", "expires_in": 3600}'],
)
async def test_a_command_prints_a_token_or_what_azures_own_prints(printed: str) -> None:
    assert await TokenSource(None, printing(printed), 60).get() == "abc"


async def test_it_is_kept_for_its_time_and_then_had_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    source = TokenSource(str(file), (), 60)
    now = asyncio.get_running_loop().time()
    assert source.kept(now) is None
    assert await source.get() == "one"
    file.write_text("two")
    assert (await source.get(), source.kept(now + 30), source.kept(now + 100)) == ("one", "one", None)
    source.forget()
    assert (source.kept(now), await source.get()) == (None, "two")


async def test_who_comes_meanwhile_waits_for_the_same(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"open({str(count)!r}, 'a').write('x'); print('abc')"
    source = TokenSource(None, (sys.executable, "-c", script), 60)
    assert await asyncio.gather(*(source.get() for _ in range(5))) == ["abc"] * 5
    assert count.read_text() == "x"


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("/nowhere/at/all",), "cannot be run"),
        ((sys.executable, "-c", "raise SystemExit(1)"), "fails"),
        (printing(""), "holds no token"),
        (printing("two words"), "holds no token"),
        (printing('{"accessToken": 7}'), "holds no token"),
        (printing("{}"), "holds no token"),
        (printing("é"), "holds no token"),
    ],
)
async def test_what_is_wrong_with_a_command_is_told(command: tuple[str, ...], what: str) -> None:
    with pytest.raises(UpstreamAuth, match=what):
        await TokenSource(None, command, 60).get()


async def test_a_file_that_is_not_there_is_told_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(UpstreamAuth, match="token_file cannot be read") as raised:
        await TokenSource(str(tmp_path / "secret-place"), (), 60).get()
    assert "secret-place" not in raised.value.message


async def test_who_leaves_leaves_no_command_behind() -> None:
    source = TokenSource(None, (sys.executable, "-c", "import time; time.sleep(600)"), 60)
    waiting = asyncio.create_task(source.get())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await waiting
    assert waiting.cancelled()
