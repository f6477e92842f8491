"""What is recorded of a run, and where it is kept."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from server.coordinator.recording import MAX_BYTES, Recordings
from tests.coordinator.panel import Panel, Scripted, says
from tests.coordinator.test_replaying import recorded


async def test_all_that_each_call_said_is_there_with_its_time(tmp_path: Path) -> None:
    _, data = await recorded("failures", tmp_path)
    head, *lines = [msgspec.json.decode(line) for line in data.splitlines()]
    assert head["recording"] == 1
    assert [line["begins"] for line in lines if "begins" in line] == ["m1", "m2", "m3", "m4", "writer"]
    assert [line["call"] for line in lines if "failed" in line] == [2, 4]
    times = [line["t"] for line in lines if "t" in line]
    assert times == sorted(times)
    assert lines[-1]["status"] == "completed"


async def test_credentials_within_a_request_are_not_recorded(tmp_path: Path) -> None:
    _, data = await recorded("race", tmp_path, api_key="sk-secret")
    assert b"sk-secret" not in data
    assert b"Why?" in data


async def test_the_file_is_the_owners_alone_and_the_oldest_go(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    for _ in range(3):
        told, _ = await recorded("race", folder)
    assert (folder / f"{told.run.id}.jsonl").stat().st_mode & 0o777 == 0o600
    made = Panel([Scripted("m1", says("one" * 10))], strategy="race")
    made.combination._recordings = Recordings(folder, 2)
    told = await made.ask()
    assert len(list(folder.iterdir())) == 2
    assert (folder / f"{told.run.id}.jsonl").exists()


async def test_a_file_that_vanishes_meanwhile_costs_no_recording(tmp_path: Path) -> None:
    (tmp_path / "run_gone.jsonl").symlink_to(tmp_path / "nowhere")
    made = Panel([Scripted("m1", says("one" * 10))], strategy="race")
    made.combination._recordings = Recordings(tmp_path, 1)
    told = await made.ask()
    assert os.listdir(tmp_path) == [f"{told.run.id}.jsonl"]


async def test_a_folder_that_cannot_be_written_costs_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    made = Panel([Scripted("m1", says("one" * 10))], strategy="race")
    made.combination._recordings = Recordings(tmp_path / "file", 2)
    assert (await made.ask()).text == "one" * 10
    assert "could not be recorded" in caplog.text


async def test_a_run_that_says_too_much_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "word " * (MAX_BYTES // 5 // 5 + 1)
    members = [Scripted(f"m{number}", says(long)) for number in range(5)]
    made = Panel(members, strategy="all")
    made.combination._recordings = Recordings(tmp_path / "made", 2)
    told = await made.ask()
    assert [told.text_of(choice) for choice in range(5)] == [long] * 5
    assert "too long to be recorded" in caplog.text
    assert not (tmp_path / "made").exists()
