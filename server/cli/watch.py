"""``antiphon watch``: runs as live lanes in the terminal, as plain lines, or as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from server.cli.board import MAX_RUNS, Board, Watched
from server.cli.config_file import add_examples
from server.cli.event_lines import event_line, snapshot_line
from server.cli.lanes import clean, clean_json, render_run, render_screen
from server.cli.refusals import CannotWatch
from server.cli.terminal import make_do
from server.cli.watching import Happened, Notice, Snapshot, StatusClient
from server.events import Event
from server.run_check import RunChecker
from server.run_view import ENDED

PAINTS_A_SECOND = 8
TEXTS = ("answer", "drafts", "reasoning")
_TOPIC = re.compile(r"self|all|run:.+")
GONE = Notice("what happened in between is gone")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_examples(
        parser,
        "watch",
        "watch run_5f0c7a9be1d24c6f8a3b90d17e42c6aa --text",
        "watch --url https://models.example.org --json --once",
        status="0 well, 1 the run or the connection failed, 2 wrong usage",
    )
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID", help="one run, from its beginning to its end")
    parser.add_argument(
        "--url", default="http://127.0.0.1:18888", help="the server's address (default: %(default)s)"
    )
    parser.add_argument("--key", help="access key; better kept in $ANTIPHON_KEY, which others cannot see")
    parser.add_argument(
        "--topic", help="self: runs of this key; all: of every key; run:ID (default: all if the key may)"
    )
    parser.add_argument("--text", action="store_true", help="show drafts and answers, too")
    parser.add_argument("--json", action="store_true", help="print events as JSON, one a line")
    parser.add_argument("--once", action="store_true", help="leave after the first run that ends")
    parser.add_argument("--check", action="store_true", help="check that events come in their right order")


def run(options: argparse.Namespace) -> int:
    """Watch until Ctrl-C, or the end of the run that was asked for: then 0 if that went well, else 1."""
    make_do()
    console = Console(highlight=False, markup=False, emoji=False)
    try:
        return asyncio.run(watch(options, console))
    except CannotWatch as error:
        print(f"antiphon: {clean(error, 500)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


class Display(Protocol):
    """What is shown, and where. ``include`` is what it needs to be told."""

    include: tuple[str, ...]

    def snapshot(self, heard: Snapshot) -> None: ...
    def event(self, heard: Happened) -> None: ...
    def notice(self, heard: Notice) -> None: ...


async def watch(options: argparse.Namespace, console: Console) -> int:
    """What ``run`` does, on this console. Raises ``CannotWatch``."""
    display = _display(options, console)
    client = StatusClient(
        options.url,
        key=options.key or os.environ.get("ANTIPHON_KEY"),
        topic=_topic(options),
        include=display.include,
    )
    checks = Checks(display) if options.check else None
    status = 0
    live = display.painted(client) if isinstance(display, Lanes) else _unpainted()
    async with live, aclosing(client.listen()) as everything:
        async for heard in everything:
            match heard:
                case Snapshot():
                    display.snapshot(heard)
                    ended = [told["status"] for told in heard.runs if told.get("status") in ENDED]
                case Happened():
                    display.event(heard)
                    event = heard.event
                    ended = [event.data.status] if event is not None and event.data.terminal else []
                case Notice():
                    display.notice(heard)
                    continue
            if checks is not None:
                checks.take(heard)
            if ended:
                status = 0 if ended[0] in ("completed", "incomplete") else 1
                if options.once:
                    break
    if checks is not None and checks.faults:
        return 1
    return status


def _topic(options: argparse.Namespace) -> str | None:
    run_id: str | None = options.run_id
    topic: str | None = options.topic
    if run_id is not None and topic is not None:
        raise CannotWatch("Give a RUN_ID or a --topic, not both.", 2)
    if run_id is not None:
        return f"run:{run_id}"
    if topic is not None and not _TOPIC.fullmatch(topic):
        raise CannotWatch(f"--topic is self, all or run:ID, not {topic!r}.", 2)
    return topic


def _display(options: argparse.Namespace, console: Console) -> Display:
    if options.json:
        return JsonLines(text=options.text)
    if console.is_terminal and not console.is_dumb_terminal:
        return Lanes(console, text=options.text)
    return Lines(text=options.text)


class JsonLines:
    """Events as they came, one a line; a snapshot as ``{"type": "snapshot", …}``."""

    def __init__(self, *, text: bool) -> None:
        self.include: tuple[str, ...] = ("progress", *TEXTS) if text else ("progress",)

    def snapshot(self, heard: Snapshot) -> None:
        for told in heard.runs:
            _print_json({"type": "snapshot", "snapshot": told})

    def event(self, heard: Happened) -> None:
        _print(clean_json(heard.json.decode(errors="replace")))

    def notice(self, heard: Notice) -> None:
        print(f"antiphon: {clean(heard.text, 2000)}", file=sys.stderr, flush=True)


class Lines:
    """Events as lines for people."""

    def __init__(self, *, text: bool) -> None:
        self.include: tuple[str, ...] = TEXTS if text else ()

    def snapshot(self, heard: Snapshot) -> None:
        if heard.gone:
            self.notice(GONE)
        for told in heard.runs:
            _print(snapshot_line(told))

    def event(self, heard: Happened) -> None:
        if heard.event is not None:
            _print(event_line(heard.event))

    def notice(self, heard: Notice) -> None:
        print(f"antiphon: {clean(heard.text, 2000)}", file=sys.stderr, flush=True)


class Lanes:
    """Runs under way as lanes that live; each that ends is printed once above them, and stays."""

    def __init__(self, console: Console, *, text: bool) -> None:
        # The answer is wanted in any case: a summary's length is known from its text alone.
        self.include: tuple[str, ...] = ("progress", *(TEXTS if text else ("answer",)))
        self._console = console
        self._text = text
        self._board = Board()
        self._connected = True
        self._dirty = True
        self._live: Live | None = None
        self._client: StatusClient | None = None

    @asynccontextmanager
    async def painted(self, client: StatusClient) -> AsyncIterator[None]:
        """Draw several times a second, until the end of the block; the last picture stays."""
        console = self._console
        with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            self._live, self._client = live, client
            refusal: CannotWatch | None = None
            async with asyncio.TaskGroup() as group:
                painter = group.create_task(self._paint(), name="painter")
                try:
                    yield
                except CannotWatch as error:  # which the group would wrap
                    refusal = error
                finally:
                    painter.cancel()
            self._draw()
            self._live = None
            if refusal is not None:
                raise refusal

    def snapshot(self, heard: Snapshot) -> None:
        now = time.monotonic()
        lost = self._board.reset(heard.runs, now)
        if heard.gone:
            self.notice(GONE)
        for run in lost:
            self._console.print(render_run(run, now, text=self._text))
        for run in list(self._board.runs.values()):
            self._print_if_ended(run, now)
        self._dirty = True

    def event(self, heard: Happened) -> None:
        now = time.monotonic()
        if heard.event is not None and (run := self._board.hear(heard.event, now)) is not None:
            self._print_if_ended(run, now)
        self._dirty = True

    def notice(self, heard: Notice) -> None:
        self._connected = heard.connected
        self._console.print(f"antiphon: {clean(heard.text, 2000)}", style="yellow")
        self._dirty = True

    def _print_if_ended(self, run: Watched, now: float) -> None:
        if run.view.ended:
            self._board.remove(run)
            self._draw()  # or it would stand there twice, until the next picture
            self._console.print(render_run(run, now, text=self._text))

    async def _paint(self) -> None:
        while True:
            if self._dirty or self._board.runs:
                self._dirty = False
                self._draw()
            await asyncio.sleep(1 / PAINTS_A_SECOND)

    def _draw(self) -> None:
        if self._live is None or self._client is None:
            return
        board = self._board
        words = [f"{self._client.server} · {self._client.topic}"]
        if not self._connected:
            words.append("not connected")
        words.append(f"{len(board.runs)} under way" if board.runs else "waiting for a run")
        if board.ended:
            words.append(f"{board.ended} ended")
        if board.let_go:
            words.append(f"{board.let_go} more than {MAX_RUNS} at once were let go")
        picture = render_screen(
            list(board.runs.values()),
            time.monotonic(),
            height=self._console.height,
            status=" · ".join([*words, "Ctrl-C leaves"]),
            text=self._text,
        )
        self._live.update(picture, refresh=True)


class Checks:
    """Looks whether each run's events keep the rules; says at its end what did not."""

    def __init__(self, display: Display) -> None:
        self.faults = 0
        self._display = display
        self._by_run: dict[str, RunChecker] = {}

    def take(self, heard: Snapshot | Happened) -> None:
        """Take what was heard, in order."""
        if isinstance(heard, Snapshot):
            self._by_run = {told["id"]: RunChecker(joined=True) for told in heard.runs}
        elif heard.event is not None:
            self._check(heard.event)

    def _check(self, event: Event) -> None:
        if event.type == "run.created" and event.run_id not in self._by_run:
            if len(self._by_run) >= MAX_RUNS:
                del self._by_run[next(iter(self._by_run))]
            self._by_run[event.run_id] = RunChecker()
        checker = self._by_run.get(event.run_id)
        if checker is None:
            return
        checker.apply(event)
        if event.data.terminal:
            del self._by_run[event.run_id]
            faults = checker.finish()
            self.faults += len(faults)
            verdict = "; ".join(faults[:20]) or "every event is in its place"
            self._display.notice(Notice(f"check of {event.run_id}: {verdict}"))


@asynccontextmanager
async def _unpainted() -> AsyncIterator[None]:
    yield


def _print(line: str) -> None:
    print(line, flush=True)


def _print_json(value: dict[str, Any]) -> None:
    _print(json.dumps(value, separators=(",", ":")))
