"""The acts, small, before the real server."""

from __future__ import annotations

from bench.acts import CANCELS, run
from bench.contestants import ANTIPHON, choose
from bench.results import Measured
from bench.rig import Rig
from bench.scenarios import WHOLE, Load, Scenario
from bench.tally import Job

TINY = [
    Scenario("WA", "tiny", Load(2, watchers=3, act="told", drain_s=20), WHOLE),
    Scenario("WJ", "tiny", Load(2, act="joins", warmup_s=0.5, drain_s=20), "rig-slow"),
]


async def results(scenarios: list[Scenario]) -> dict[str, Measured]:
    contestants, _ = choose([], ["antiphon"], quick=True)
    report = await Rig(contestants, scenarios, 1, quick=False, say=lambda _line: None).run()
    record = report.record(ANTIPHON)
    assert record is not None
    found = {key: rounds[0] for key, rounds in record.scenarios.items()}
    assert all(one.first_fault is None for one in found.values()), found
    return found


async def test_small_acts_bring_their_figures() -> None:
    assert CANCELS > 2
    found = await results(TINY)
    assert found["WA"].words == 2 * 3
    assert {"told p50", "told p90", "told p99"} <= set(found["WA"].figures)
    assert found["WJ"].good == 2 + 2
    assert {"joined p99", "closed p99"} <= set(found["WJ"].figures)
    assert all(figure >= 0 for name, figure in found["WJ"].figures.items() if name.startswith("joined"))


async def test_a_server_that_is_not_there_is_a_fault() -> None:
    job = Job(1, "/v1/chat/completions", {}, WHOLE, TINY[0].load, 225, watch_path="/v1/events")
    measured = await run(job)
    assert not measured.is_good
    assert (measured.first_fault or "").startswith("told: ")
