from __future__ import annotations

import sys

import pytest

from evaluation.tasks import KINDS, NoTasks, make_tasks


def test_the_same_seed_makes_the_same_tasks_of_all_kinds() -> None:
    one, other = make_tasks(10, 1), make_tasks(10, 1)
    assert [task.question for task in one] == [task.question for task in other]
    assert [task.kind for task in one] == [*KINDS, *KINDS]
    assert [task.question for task in one] != [task.question for task in make_tasks(10, 2)]


def test_a_task_knows_right_from_wrong_by_the_last_line() -> None:
    (task,) = make_tasks(1, 1, ["products"])
    left, _, right = task.question.split(":")[1].split(".")[0].partition("*")
    product = int(left) * int(right)
    assert task.is_right(f"Let me see.\n**{product}**")
    assert task.is_right(f"The answer is {product}.0")
    assert not task.is_right(f"{product}\nor {product + 1}")
    assert not task.is_right("I do not know.")
    assert not task.is_right("")


def test_no_task_tells_its_answer() -> None:
    assert len({task.question for task in make_tasks(50, 1)}) > 40


def test_the_rest_of_the_library_is_not_loaded() -> None:
    make_tasks(1, 1)
    assert not {name for name in sys.modules if name.startswith("reasoning_gym.games")}


def test_without_the_library_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    with pytest.raises(NoTasks, match="make install-dev"):
        make_tasks(1, 1)
