"""``antiphon test``, as a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.cli.command import Ended, ended

SECRET = "sk-the-upstreams-own-key"


def written(folder: Path, sim: OpenAISimulator) -> str:
    path = folder / "config.yaml"
    path.write_text(
        f"""
channels:
  - {{name: well, kind: openai, base_url: "{sim.base_url}", api_key: {SECRET}, models: [m, n]}}
  - {{name: dead, kind: openai, base_url: "http://127.0.0.1:1/v1", models: [m]}}
  - {{name: spare, kind: openai, base_url: "{sim.base_url}", models: [other], enabled: false}}
"""
    )
    return str(path)


async def tried(folder: Path, sim: OpenAISimulator, *arguments: str) -> Ended:
    return await ended("test", "--config", written(folder, sim), *arguments, folder=folder)


async def test_every_enabled_channel_is_tried_and_one_that_fails_is_status_1(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        done = await tried(tmp_path, sim)
    assert "answers  well  openai, m  connect " in done.out
    assert "said: You said:" in done.out
    assert "lists 1 models: sim" in done.out
    assert "fails    dead  openai, m" in done.out
    assert done.out.count("upstream_unreachable: The upstream cannot be reached") == 1
    assert "1 of 2 channels answer" in done.out
    assert "spare" not in done.out
    assert (done.status, done.err) == (1, "")


async def test_the_file_may_be_the_first_word(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        done = await ended("test", written(tmp_path, sim), "well", folder=tmp_path)
    assert "1 of 1 channels answer" in done.out
    assert (done.status, done.err) == (0, "")


async def test_those_that_are_named_are_tried_alone_also_if_they_are_disabled(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        done = await tried(tmp_path, sim, "spare", "well")
    assert "2 of 2 channels answer" in done.out
    assert done.status == 0


async def test_a_model_can_be_chosen_and_channels_without_it_are_left_out(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        done = await tried(tmp_path, sim, "--model", "n")
        assert "well  openai, n" in done.out
        assert sim.requests[-1].model == "n"
    assert done.status == 0


async def test_as_json_each_channel_is_one_line(tmp_path: Path) -> None:
    async with OpenAISimulator() as sim:
        done = await tried(tmp_path, sim, "--json")
    well, dead = [json.loads(line) for line in done.out.splitlines()]
    assert (well["channel"], well["ok"], well["models"]) == ("well", True, ["sim"])
    assert (dead["channel"], dead["ok"], dead["models"]) == ("dead", False, None)


async def test_a_key_is_never_shown(tmp_path: Path) -> None:
    script = Script(status=401, error_message=f"wrong key {SECRET}")
    async with OpenAISimulator(default=script) as sim:
        done = await tried(tmp_path, sim, "well")
    assert "upstream_auth" in done.out
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "no such channel: nobody; there are well, dead, spare"),
        (["--model", "x"], "no such channel"),
    ],
)
async def test_a_channel_that_does_not_exist_is_wrong_usage(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    async with OpenAISimulator() as sim:
        done = await tried(tmp_path, sim, *arguments)
    assert done.status == 2
    assert words in done.err


async def test_a_wrong_configuration_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("channels: [{name: a, kind: openia}]\n")
    done = await ended("test", "--config", "bad.yaml", folder=tmp_path)
    assert done.status == 2
    assert "bad.yaml:1:" in done.err


async def test_of_a_channel_without_names_the_first_model_that_it_lists_is_asked(tmp_path: Path) -> None:
    async with OpenAISimulator(models={"gpt-a": Script(), "gpt-b": Script()}) as sim:
        auto = f"{{name: a, kind: openai, base_url: '{sim.base_url}', models: auto, list_only: [gpt-*]}}"
        (tmp_path / "auto.yaml").write_text(f"channels: [{auto}]")
        done = await ended("test", "--config", "auto.yaml", folder=tmp_path)
        assert "answers  a  openai, gpt-a" in done.out, done
        assert done.status == 0
        assert [one.method for one in sim.requests] == ["GET", "POST"]  # the list is read once


async def test_a_channel_without_names_whose_list_does_not_come_fails(tmp_path: Path) -> None:
    (tmp_path / "auto.yaml").write_text(
        "channels: [{name: a, kind: openai, base_url: 'http://127.0.0.1:1/v1', models: auto}]"
    )
    done = await ended("test", "--config", "auto.yaml", folder=tmp_path)
    assert "fails    a  openai, auto" in done.out
    assert "upstream_unreachable" in done.out
    assert done.status == 1
