from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bench import cpu
from bench.__main__ import chosen_scenarios, main, missing
from bench.results import Record
from tests.bench.programs import PATIENCE_S, ROOT
from tests.bench.reports import BAD, report


def test_scenarios_come_in_their_own_order_whatever_their_case() -> None:
    assert [one.key for one in chosen_scenarios("t, a", quick=False)] == ["A", "T"]
    assert [one.key for one in chosen_scenarios(None, quick=True)] == ["A", "T", "P", "D"]
    assert [one.key for one in chosen_scenarios(None, quick=False)] == [
        *"ABTPCSDEWR",
        *("WA", "WT", "WC", "WS", "WJ"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scenarios", "A,X"], "no scenario 'X'"),
        (["--only", "nobody"], "not known here: nobody"),
        (["--also", "none.yaml"], "none.yaml"),
        (["--rounds", "-1"], "--rounds"),
    ],
)
def test_wrong_arguments_are_told_before_anything_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_help_lists_the_scenarios_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "D  1,000 slow streams" in text
    assert "--strict" in text


def test_a_relay_without_a_result_is_a_failure_of_the_rig() -> None:
    assert missing(report("A")) == []
    assert "relay has no result in A" in missing(report("A", relay=[BAD]))[0]
    assert missing(report("A", antiphon=[BAD])) == []
    made = report("A")
    made.records[-1].faults.append("antiphon ended with 1")
    assert missing(made) == ["antiphon ended with 1"]
    made = report("E")
    made.records[0] = Record("direct")
    assert missing(made) == []


@pytest.mark.skipif(not cpu.IS_KNOWN, reason="the processes are counted in /proc")
async def test_nothing_is_left_running_after_ctrl_c() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "--scenarios", "A", "--rounds", "1", "--quick"),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_S):
        while b"relay: A" not in await process.stderr.readline():
            assert process.returncode is None
        # Itself, the mock, the relay, the load: /proc tells nobody when there is one more.
        while len(pids := cpu.tree(process.pid)) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, words = await process.communicate()
    assert process.returncode == 130
    assert b"nothing is left running" in words
    assert not [pid for pid in pids if is_running(pid)]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
