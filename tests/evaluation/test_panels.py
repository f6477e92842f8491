from __future__ import annotations

from evaluation.members import Faults
from evaluation.panels import Entry, Panel
from evaluation.reading import question, value_in
from evaluation.studies import strategy_entries
from server.settings import Member
from tests.evaluation.test_arena import WORLD

PANEL = Panel("two", (0.6, 0.8), 0.4)


def test_the_best_member_is_the_one_that_knows_most() -> None:
    assert PANEL.best == "m2"
    assert [one.accuracy for one in PANEL.skills] == [0.6, 0.8]


def test_a_panel_has_its_members_a_writer_and_a_judge() -> None:
    assert [one.name for one in PANEL.models("seed")] == ["m1", "m2", "writer", "judge"]


def test_panels_of_one_spread_are_asked_the_same_questions() -> None:
    other = Panel("other", (0.5,), 0.4, faults=Faults(hang=1))
    assert PANEL.world("seed") == other.world("seed") != PANEL.world("else")


def test_a_patient_entry_waits_for_everybody() -> None:
    made = Entry("vote", "vote", samples=3).combination(PANEL)
    assert made.quorum == 6
    assert made.members == (Member(model="m1", id="m1", samples=3), Member(model="m2", id="m2", samples=3))
    assert made.timeouts.first_token_s == 0
    hasty = Entry("vote", "vote", patient=False).combination(PANEL)
    assert hasty.quorum is None
    assert hasty.summary is not None
    assert hasty.summary.fallback == ("best_draft",)


def test_one_model_needs_no_members() -> None:
    made = Entry("m1 alone", "direct", members=("m1",)).combination(PANEL)
    assert (made.model, made.members) == ("m1", ())


def test_every_strategy_is_tried_but_those_whose_gain_is_the_models_own() -> None:
    tried = {one.strategy for one in strategy_entries(PANEL, (1.0, 1.0), patient=True)}
    assert tried == {
        "fallback",
        "race",
        "vote",
        "best_of",
        "cascade",
        "synthesize",
        "critique",
        "council",
        "moa",
        "all",
    }


def test_a_question_can_be_told_from_an_answer() -> None:
    assert value_in(question(WORLD.item(1).truth)) is None
