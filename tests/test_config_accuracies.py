from __future__ import annotations

import math
from pathlib import Path

import pytest

from server.config import ConfigError, Loaded, load
from server.config_accuracies import weight_of

CHANNEL = "channels: [{name: v, kind: openai, base_url: 'http://127.0.0.1:9', models: [big, small]}]\n"
VOTE = """\
combinations:
  - name: panel
    strategy: vote
    vote: {type: number}
    members: [{model: big, weight: measured}, {model: small, weight: measured}, {model: small, weight: 0.5}]
"""


def loaded(tmp_path: Path, text: str, accuracies: str | None = None) -> Loaded:
    if accuracies is not None:
        (tmp_path / "accuracies.json").write_text(accuracies)
    path = tmp_path / "config.yaml"
    path.write_text(CHANNEL + text)
    return load(path, {})


def fault(tmp_path: Path, text: str, accuracies: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, accuracies)
    return str(caught.value)


def test_a_measured_weight_is_the_log_odds_of_the_models_accuracy(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        f"accuracies: accuracies.json\n{VOTE}",
        '{"tasks": 200, "accuracies": {"big": 0.8, "small": 0.6}}',
    )
    weights = [member.weight for member in found.settings.combinations[0].members]
    assert weights == pytest.approx([math.log(4), math.log(1.5), 0.5], abs=1e-5)
    assert found.files[-1] == tmp_path / "accuracies.json"


def test_weights_grow_with_accuracy_and_are_never_0() -> None:
    assert weight_of(0.5) == weight_of(0.1) == weight_of(0) == 0.01
    assert weight_of(0.9) > weight_of(0.8)
    assert math.isfinite(weight_of(1))


def test_a_measured_weight_without_the_file_says_who_writes_it(tmp_path: Path) -> None:
    said = fault(tmp_path, VOTE)
    assert (
        "combinations[0].members[0].weight: measured wants accuracies: a file that make eval writes" in said
    )
    assert "config.yaml:6:36" in said
    assert len(said.splitlines()) == 2


def test_a_model_that_was_not_measured_is_named_with_its_place(tmp_path: Path) -> None:
    text = f"accuracies: accuracies.json\n{VOTE}"
    said = fault(tmp_path, text, '{"accuracies": {"big": 0.8, "smal": 0.6}}')
    assert "does not name small, did you mean smal?" in said
    assert "members[1].weight" in said
    assert "measure it, or set a number" in fault(tmp_path, text, '{"accuracies": {"big": 0.8}}')


@pytest.mark.parametrize(
    "data", ["", "[]", "{}", '{"accuracies": {"big": 1.2}}', '{"accuracies": {"big": "0.8"}}']
)
def test_a_file_that_is_none_is_told_once(tmp_path: Path, data: str) -> None:
    said = fault(tmp_path, f"accuracies: accuracies.json\n{VOTE}", data)
    assert "accuracies: the file is not what make eval writes" in said
    assert len(said.splitlines()) == 1


def test_a_file_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    said = fault(tmp_path, f"accuracies: accuracies.json\n{VOTE}")
    assert "accuracies: the file cannot be read: No such file or directory" in said
    assert len(said.splitlines()) == 1


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"accuracies": {"big": 0.8, "small": 0.6}}')
    path = tmp_path / "config.yaml"
    path.write_text(f"accuracies: ${{FILE}}\n{CHANNEL}{VOTE}")
    assert load(path, {"FILE": str(tmp_path / "a.json")}).settings.combinations[0].members[0].weight > 1


def test_any_other_word_is_no_weight(tmp_path: Path) -> None:
    assert "weight: must be" in fault(tmp_path, VOTE.replace("measured", "heavy"))
