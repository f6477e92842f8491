"""The command as it is typed: against the server, on a terminal and without one."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rich.console import Console

from server.auth import Principal
from server.cli.refusals import CannotWatch
from server.cli.watch import Checks, Lines, add_arguments, watch
from server.cli.watching import Happened, Notice, Snapshot
from server.errors import UpstreamError
from server.events import Event, encode
from server.settings import Runs, Settings
from tests.cli.told import RUN, whole
from tests.scripted_runs import KEYS, M1, M2, Script, Site, site

KEEPING = Settings(runs=Runs(keep_text=True))
PATIENCE_S = 30


class Command:
    """``antiphon watch`` in a process of its own; ``said`` is what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await self.process.stdout.readline()).decode().rstrip("\n")
        self.said.append(line)
        return line

    async def end(self) -> tuple[int, str]:
        """Read to the end; the status, and what was said to stderr."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        self.said += out.decode().splitlines()
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


@asynccontextmanager
async def command(*arguments: str, **environ: str) -> AsyncIterator[Command]:
    pipe = asyncio.subprocess.PIPE
    inherited = {name: value for name, value in os.environ.items() if name != "ANTIPHON_KEY"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "watch", *arguments),
        stdout=pipe,
        stderr=pipe,
        env={**inherited, **environ},
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def address(shown: Site) -> str:
    return f"http://127.0.0.1:{shown.port}"


def options(shown: Site, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--url", address(shown), *arguments])


class Output(io.StringIO):
    """Tells when something has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


class Screen(Console):
    """A terminal of a hundred columns that remembers what was written on it."""

    def __init__(self, *, terminal: bool = True) -> None:
        self.output = Output()
        super().__init__(
            file=self.output,
            width=100,
            height=40,
            force_terminal=terminal,
            color_system=None,
            markup=False,
            emoji=False,
            highlight=False,
            _environ={"TERM": "xterm"},
        )

    @property
    def text(self) -> str:
        return self.output.getvalue()

    async def shows(self, text: str) -> None:
        """Return once this has been written."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.text:
                self.output.written.clear()
                await self.output.written.wait()


def fail(script: Script) -> None:
    script.begin()
    script.run.close(UpstreamError("\x1b[2JNobody answered."))


# A pipe


async def test_a_run_that_is_over_is_told_from_its_beginning_and_the_command_ends() -> None:
    async with site() as shown:
        run = shown.script().whole()
        async with command(run.id, "--url", address(shown), "--check") as told:
            status, errors = await told.end()
    assert status == 0
    assert len(told.said) == run.head
    assert " run.created " in told.said[0]
    assert " run.completed " in told.said[-1]
    assert errors == f"antiphon: check of {run.id}: every event is in its place\n"


async def test_a_run_that_failed_gives_status_1_and_cannot_command_the_terminal() -> None:
    async with site() as shown:
        script = shown.script()
        fail(script)
        async with command(script.run.id, "--url", address(shown)) as told:
            status, _ = await told.end()
    assert status == 1
    assert "Nobody answered." in told.said[-1]
    assert "\x1b" not in "".join(told.said)


async def test_with_json_each_event_is_printed_as_it_came() -> None:
    async with site(KEEPING) as shown:
        run = shown.script().whole()
        async with command(run.id, "--url", address(shown), "--json", "--text") as told:
            status, _ = await told.end()
    events = [json.loads(line) for line in told.said]
    assert status == 0
    stored = [one for one in events if not one.get("volatile")]
    assert stored == [json.loads(encode(one)) for one in run.events_after(0)]
    texts = [one["data"]["text"] for one in events if one["type"].endswith(".delta")]
    assert texts == ["draft of m1", "draft of m2", "the answer"]


async def test_json_cannot_command_the_terminal_either() -> None:
    async with site() as shown:
        script = shown.script()
        script.begin()
        script.run.close(UpstreamError("\x9b2J\x7fNobody answered."))
        async with command(script.run.id, "--url", address(shown), "--json") as told:
            await told.end()
    assert not set("".join(told.said)) & {"\x9b", "\x7f"}
    assert json.loads(told.said[-1])["data"]["error"]["message"] == "\x9b2J\x7fNobody answered."


async def test_once_leaves_after_the_first_run_that_ends() -> None:
    async with site() as shown:
        script = shown.script()
        script.begin()
        async with command("--url", address(shown), "--once") as told:
            assert (await told.line()).endswith("stands: parallel in_progress m1=started m2=started")
            fail(shown.script())
            status, _ = await told.end()
    assert status == 1
    assert " run.failed " in told.said[-1]


async def test_the_key_is_taken_from_the_environment() -> None:
    async with site(Settings(access=KEYS)) as shown:
        for name in ("ann", "bob"):
            shown.script(Principal(name)).begin()
        async with command("--url", address(shown), ANTIPHON_KEY="key-of-bob") as told:
            assert " stands: parallel " in await told.line()
            told.process.send_signal(signal.SIGINT)
            assert await told.end() == (130, "")
    assert len(told.said) == 1  # of two runs, bob's


async def test_without_its_key_the_command_says_what_it_needs() -> None:
    async with site(Settings(access=KEYS)) as shown, command("--url", address(shown)) as told:
        status, errors = await told.end()
    assert status == 1
    assert errors == (
        f"antiphon: The server at {address(shown)} needs a key: give --key, or better set ANTIPHON_KEY"
        " (missing_api_key).\n"
    )


async def test_without_a_server_the_command_says_how_to_start_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with command("--url", url) as told:
        status, errors = await told.end()
    assert (status, errors) == (
        1,
        f"antiphon: No server at {url}; start one with 'make run' or 'antiphon serve'.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "gopher://x"], "is not an address"),
        ([RUN, "--topic", "self"], "not both"),
        (["--topic", "weather"], "self, all or run:ID"),
    ],
)
async def test_wrong_usage_is_status_2(arguments: list[str], words: str) -> None:
    async with command(*arguments) as told:
        status, errors = await told.end()
    assert status == 2
    assert words in errors
    assert "Traceback" not in errors


async def test_a_reader_that_leaves_ends_the_command() -> None:
    async with site() as shown:
        shown.script().begin()
        async with command("--url", address(shown), "--json") as told:
            await told.line()
            assert told.process.stdout is not None
            told.process.stdout._transport.close()  # type: ignore[attr-defined]
            shown.script().whole()
            async with asyncio.timeout(PATIENCE_S):
                assert await told.process.wait() == 1
            assert told.process.stderr is not None
            assert await told.process.stderr.read() == b""


# A terminal


async def test_on_a_terminal_a_run_lives_in_lanes_and_stays_when_it_has_ended() -> None:
    screen = Screen()
    async with site(KEEPING) as shown, asyncio.TaskGroup() as group:
        watching = group.create_task(watch(options(shown, "--once"), screen))
        await screen.shows("waiting for a run")
        script = shown.script()
        script.begin()
        await screen.shows("connecting")
        script.say(M1, "draft " * 100)
        await screen.shows("~150 tok")
        for member in (M1, M2):
            script.finish(member)
        script.begin_summary()
        script.summarise("answer " * 40)
        await screen.shows("~70 tok")
        script.end()
        assert await watching == 0
    panel = screen.text[screen.text.rindex("╭") :]
    assert script.run.id in panel
    assert "completed" in panel
    assert screen.text.count(" completed ") == 1  # once above, and no more below
    assert "answer answer" not in screen.text


async def test_with_text_the_answer_stands_below_its_lanes() -> None:
    screen = Screen()
    async with site(KEEPING) as shown:
        run = shown.script().whole()
        assert await watch(options(shown, run.id, "--text"), screen) == 0
    assert "│ the answer " in screen.text


async def test_what_went_wrong_with_the_connection_is_told_on_the_terminal() -> None:
    screen = Screen()
    async with site() as shown:
        with pytest.raises(CannotWatch, match="No run"):
            await watch(options(shown, RUN), screen)
    assert screen.text.endswith("\x1b[?25h")  # the cursor is back


async def test_without_colours_none_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as shown:
        run = shown.script().whole()
        screen = Console(
            file=io.StringIO(), width=100, force_terminal=True, _environ={"NO_COLOR": "1", "TERM": "xterm"}
        )
        assert await watch(options(shown, run.id), screen) == 0
    assert isinstance(screen.file, io.StringIO)
    assert "completed" in screen.file.getvalue()
    assert "\x1b[3" not in screen.file.getvalue()


async def test_a_terminal_that_cannot_draw_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    async with site() as shown:
        run = shown.script().whole()
        console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
        assert await watch(options(shown, run.id), console) == 0
    assert " run.completed " in capsys.readouterr().out


# The check


def happened(event: Event) -> Happened:
    return Happened(event, b"")


class Noting(Lines):
    """Keeps the notices that it is given."""

    def __init__(self) -> None:
        super().__init__(text=False)
        self.notices: list[str] = []

    def notice(self, heard: Notice) -> None:
        self.notices.append(heard.text)


def checked(*heard: Snapshot | Happened) -> tuple[int, list[str]]:
    display = Noting()
    checks = Checks(display)
    for one in heard:
        checks.take(one)
    return checks.faults, display.notices


def test_a_run_in_good_order_is_called_so() -> None:
    assert checked(*map(happened, whole())) == (0, [f"check of {RUN}: every event is in its place"])


def test_a_missing_event_is_a_fault() -> None:
    events = [one for one in whole() if one.type != "stage.finished"]
    faults, notices = checked(*map(happened, events))
    assert faults > 0
    assert "follows number 12" in notices[0]


def test_a_run_that_was_joined_late_is_checked_from_there_on() -> None:
    snapshot: dict[str, Any] = {"id": RUN, "status": "in_progress"}
    joined = Snapshot((snapshot,), gone=False)
    assert checked(joined, *map(happened, whole()[10:])) == (
        0,
        [f"check of {RUN}: every event is in its place"],
    )


def test_a_run_whose_beginning_was_not_seen_is_not_judged() -> None:
    assert checked(*map(happened, whole()[5:])) == (0, [])
