"""``antiphon replay``: a recording of the whole server's, shown in the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from server.cli import main
from server.settings import Combination, Member, Runs, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import both, post
from tests.behaviour.running import QUIET, ask, channel

Capture = pytest.CaptureFixture[str]


async def recording(folder: Path, *, fails: bool = False, says: str | None = None) -> tuple[Path, bytes]:
    """A recording of a run of two members and a summary, and the body that its client got."""

    def settings(sim: OpenAISimulator) -> Settings:
        return Settings(
            channels=(channel(sim, "m1", "m2", "s"),),
            combinations=(
                Combination(
                    name="panel",
                    members=(Member(model="m1"), Member(model="m2")),
                    summary=Summary(model="s"),
                ),
            ),
            runs=Runs(record_to=str(folder)),
            logging=QUIET,
        )

    async with both(settings) as (server, sim):
        for model in ("m1", "m2") if fails else ():
            sim.script(Script(status=400, error_message="No."), model=model, times=2)
        if says is not None:
            sim.script(Script(text=says), model="s")
        told = await post(server, ask("panel"))
    (name,) = os.listdir(folder)
    return folder / name, told.body


async def test_it_shows_events_and_the_answer(tmp_path: Path, capsys: Capture) -> None:
    file, body = await recording(tmp_path / "made")
    assert await asyncio.to_thread(main, ["replay", str(file)]) == 0
    told = capsys.readouterr().out
    assert "run.created" in told
    assert "run.completed" in told
    assert told.endswith(json.loads(body)["choices"][0]["message"]["content"] + "\n")


async def test_as_json_it_is_the_same_each_time_and_ends_with_the_body(
    tmp_path: Path, capsys: Capture
) -> None:
    file, body = await recording(tmp_path / "made")
    assert await asyncio.to_thread(main, ["replay", "--json", str(file)]) == 0
    told = capsys.readouterr().out
    assert await asyncio.to_thread(main, ["replay", "--json", str(file)]) == 0
    assert capsys.readouterr().out == told
    *events, answer = [json.loads(line) for line in told.splitlines()]
    assert [event["sequence_number"] for event in events] == list(range(1, len(events) + 1))
    assert answer == json.loads(body)


async def test_a_run_that_failed_is_told_by_the_status(tmp_path: Path, capsys: Capture) -> None:
    file, _ = await recording(tmp_path / "made", fails=True)
    assert await asyncio.to_thread(main, ["replay", str(file)]) == 1
    assert "code=invalid_value" in capsys.readouterr().out


async def test_what_a_model_said_cannot_command_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    said = "First.\n\x1b]0;title\x07\x9b31mred\u202e\n\nLast."
    file, body = await recording(tmp_path / "made", says=said)
    assert json.loads(body)["choices"][0]["message"]["content"] == said
    assert await asyncio.to_thread(main, ["replay", str(file)]) == 0
    assert capsys.readouterr().out.endswith("\nFirst.\n]0;title31mred\n\nLast.\n")
    assert await asyncio.to_thread(main, ["replay", "--json", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert not {"\x1b", "\x07", "\x9b"} & set(told)
    assert json.loads(told) == json.loads(body)


async def test_a_terminal_that_cannot_write_it_gets_question_marks(tmp_path: Path) -> None:
    file, _ = await recording(tmp_path / "made", says="中文 ✅")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "replay", str(file)),
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    assert told.endswith(b"\n?? ?\n")


def test_what_is_no_recording_is_told(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "other").write_text("no recording")
    assert main(["replay", str(tmp_path / "other")]) == 2
    assert main(["replay", str(tmp_path / "absent")]) == 2
    assert "Traceback" not in capsys.readouterr().err
