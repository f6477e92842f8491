from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bench.contestants import (
    ANTIPHON,
    DIRECT,
    RELAY,
    Contestant,
    UnfitContestants,
    choose,
    filled,
    find_nginx,
    read_gateways,
)
from bench.scenarios import MODELS

MINE = {"name": "mine", "command": ["mine", "{port}"], "model": "openai/{model}"}


def test_places_are_filled_in_and_other_braces_stay() -> None:
    assert filled("{port} {} {{dir}} {other} {port}", {"port": "1", "dir": "d"}) == "1 {} {d} {other} 1"


def test_antiphon_is_given_every_model_of_the_mock() -> None:
    everyone, _ = choose([], [], quick=True)
    (antiphon,) = (one for one in everyone if one.name == ANTIPHON)
    settings = yaml.safe_load(antiphon.files["config.yaml"])
    assert settings["channels"][0]["models"] == list(MODELS)
    # What is not said is as it is by default: a speed without its log or its accounts would be no answer.
    assert set(settings) == {"access", "channels", "combinations", "events"}


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_gateways_of_one_s_own_are_read(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"mine.{kind}"
    file.write_text(json.dumps(MINE) if kind == "json" else yaml.safe_dump([MINE]))
    (mine,) = read_gateways(file)
    assert mine.command == ["mine", "{port}"]
    assert mine.asked("rig-whole") == "openai/rig-whole"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "- 3",
        json.dumps({**MINE, "comand": []}),
        json.dumps({"name": "mine"}),
        json.dumps({**MINE, "name": "../mine"}),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UnfitContestants, match=r"mine\.yaml"):
        read_gateways(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfitContestants, match=r"none\.yaml"):
        read_gateways(tmp_path / "none.yaml")


def test_those_that_all_is_read_against_always_take_part() -> None:
    everyone, _ = choose(
        [Contestant("mine", ["mine"]), Contestant("other", ["other"])], ["mine"], quick=False
    )
    assert [one.name for one in everyone] == [DIRECT, RELAY, ANTIPHON, "mine"]


def test_nginx_is_left_out_aloud() -> None:
    everyone, notes = choose([], [], quick=True)
    assert [one.name for one in everyone] == [DIRECT, RELAY, ANTIPHON]
    assert any("nginx is left out" in note for note in notes)


@pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed")
def test_nginx_takes_part_where_it_is_installed() -> None:
    everyone, notes = choose([], [], quick=False)
    assert "nginx" in [one.name for one in everyone]
    assert not notes


def test_unknown_and_double_names_are_refused() -> None:
    with pytest.raises(UnfitContestants, match="not known here: nobody"):
        choose([], ["nobody"], quick=False)
    with pytest.raises(UnfitContestants, match="two contestants"):
        choose([Contestant(RELAY, ["mine"])], [], quick=False)
