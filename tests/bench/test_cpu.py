from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench import cpu

WAITING = "import sys; sys.stdin.read()"
known = pytest.mark.skipif(not cpu.IS_KNOWN, reason="there is no /proc here")


@known
def test_a_tree_holds_what_descends_from_a_process() -> None:
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAITING!r}])"
    command = [sys.executable, "-c", f"print(flush=True); {nested}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while len(cpu.tree(process.pid)) < 2:
            assert process.poll() is None
        assert cpu.tree(process.pid)[0] == process.pid
        assert process.pid in cpu.tree(os.getpid())
        process.communicate()


@known
def test_a_process_s_time_and_memory_are_read() -> None:
    pids = [os.getpid()]
    before = cpu.seconds(pids)
    assert before is not None
    while (cpu.seconds(pids) or 0) <= before:
        pass  # its own time passes, so this ends
    assert (cpu.resident_mb(pids) or 0) > 1
    assert (cpu.proportional_mb(pids) or 0) > 1
    assert (cpu.waited(pids) or 0) >= 0


@known
def test_a_process_that_has_ended_has_used_nothing_more() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cpu.seconds([process.pid]) == cpu.resident_mb([process.pid]) == 0
    assert cpu.proportional_mb([process.pid]) == cpu.waited([process.pid]) == 0
