from __future__ import annotations

import pytest

from evaluation.reading import read, said, value_in
from server.coordinator.judging import ANALYSE, PAIR, PICK, SCORE
from server.coordinator.rounds import FAULTS, RANK
from tests.evaluation.members import asked, drafts


def test_a_question_without_drafts_wants_an_answer() -> None:
    prompt = read(asked())
    assert (prompt.item, prompt.task, prompt.drafts) == (1, "answer", ())


@pytest.mark.parametrize(
    ("rules", "task"),
    [
        (PAIR, "winner"),
        (PICK, "ranking"),
        (RANK, "ranking"),
        (SCORE, "score"),
        (ANALYSE, "analysis"),
        (FAULTS, "faults"),
        ("Write the answer.", "answer"),
    ],
)
def test_the_coordinators_own_rules_say_what_is_asked_for(rules: str, task: str) -> None:
    prompt = read(asked(drafts(said(12345, 7), said(54321, 8)), rules=rules))
    assert prompt.task == task
    assert [(one.label, one.value, one.way) for one in prompt.drafts] == [
        ("A", 12345, "0007"),
        ("B", 54321, "0008"),
    ]


def test_notes_name_faults_and_a_ranking() -> None:
    faults = read(asked(drafts(said(12345, 1), notes="Draft A is wrong.\nDraft C is wrong.")))
    assert faults.faulted == {"A", "C"}
    ranked = read(asked(drafts(said(12345, 1), notes="The authors ranked, best first: B, A.")))
    assert ranked.ranked == ("B", "A")


def test_a_draft_that_was_cut_or_says_nothing_has_no_value() -> None:
    text = said(12345, 1)
    assert value_in(text) == 12345
    assert value_in(text[: len(text) * 2 // 3]) is None
    cut = drafts(text).replace('state="complete"', 'state="truncated"')
    assert read(asked(cut)).drafts[0].value is None


def test_what_holds_no_question_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no question"):
        read(asked("hello"))
