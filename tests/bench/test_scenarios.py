from __future__ import annotations

from bench.acts import ACTS
from bench.scenarios import MEMBERS, MODELS, PANELS, QUICK_SCENARIOS, SCENARIOS


def test_scenarios_ask_for_models_that_the_mock_plays() -> None:
    for scenario in SCENARIOS.values():
        assert scenario.model in MODELS
    assert len(MEMBERS) == 4
    assert [len(members) for members in PANELS.values()] == [4, 5, 5]


def test_scenarios_whose_load_is_an_act_name_one_that_there_is() -> None:
    assert [one.load.act for one in SCENARIOS.values() if one.load.act] == list(ACTS)


def test_quick_scenarios_are_scenarios() -> None:
    assert set(QUICK_SCENARIOS) <= set(SCENARIOS)


def test_the_window_opens_when_all_connections_are_open() -> None:
    for scenario in SCENARIOS.values():
        for load in (scenario.load, scenario.quick or scenario.load):
            assert load.ramp_s < load.warmup_s


def test_streams_that_are_asked_for_once_last_beyond_the_window() -> None:
    load, pace = SCENARIOS["D"].load, MODELS[SCENARIOS["D"].model]
    assert pace.words * pace.every_ms / 1000 > load.warmup_s + load.window_s
