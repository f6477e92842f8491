"""What a tree of processes has used, from Linux's /proc. Elsewhere it is not known, and None says so."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
IS_KNOWN = (PROC / "self" / "smaps_rollup").exists()


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold blanks and brackets: [0] is the state."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """``pid`` and all that descends from it; only itself where there is no /proc."""
    children: dict[int, list[int]] = {}
    if IS_KNOWN:
        for entry in PROC.iterdir():
            if entry.name.isdigit():
                try:
                    children.setdefault(int(_fields(int(entry.name))[1]), []).append(int(entry.name))
                except OSError:
                    continue  # it has ended meanwhile
    found, at = [pid], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found


def seconds(pids: list[int]) -> float | None:
    """User and system time of the processes so far, in seconds; None: cannot be known here."""
    if not IS_KNOWN:
        return None
    ticks = 0
    for pid in pids:
        try:
            ticks += sum(int(field) for field in _fields(pid)[11:13])
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def waited(pids: list[int]) -> float | None:
    """Seconds that the processes' threads were ready to run and had no core; None: cannot be known here.

    Ended threads are forgotten, so it may be too little.
    """
    if not IS_KNOWN:
        return None
    nanoseconds = 0
    for pid in pids:
        for thread in (PROC / str(pid) / "task").glob("*/schedstat"):
            try:
                nanoseconds += int(thread.read_text().split()[1])
            except (OSError, IndexError):
                continue
    return nanoseconds / 1e9


def open_files(pids: list[int]) -> int | None:
    """How many files and sockets the processes have open; None: cannot be known here."""
    if not IS_KNOWN:
        return None
    found = 0
    for pid in pids:
        try:
            found += len(list((PROC / str(pid) / "fd").iterdir()))
        except OSError:
            continue
    return found


def resident_mb(pids: list[int]) -> float | None:
    """Resident memory in MB, pages that are shared counted for each process: cheap enough to sample."""
    if not IS_KNOWN:
        return None
    pages = 0
    for pid in pids:
        try:
            pages += int((PROC / str(pid) / "statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def proportional_mb(pids: list[int]) -> float | None:
    """Resident memory in MB with shared pages divided among those who share them (PSS)."""
    if not IS_KNOWN:
        return None
    kilobytes = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


def pin(core: int | None) -> None:
    """Bind this thread, and what it starts from now on, to one core; None: leave it where it may run."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def cores() -> tuple[int | None, int | None]:
    """The server's core and the rig's own; None where nothing can be pinned, or there is one core only."""
    if not hasattr(os, "sched_setaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)
