"""``antiphon doctor``, as a process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import ROOT, ended

EXAMPLES = ROOT / "conf" / "examples"


KEYS = {"MAIN_KEY": "a", "TWIN_KEY": "b", "RESERVE_KEY": "c"}
FAILOVER = str(EXAMPLES / "failover.yaml")
FAILOVER_TEXT = (EXAMPLES / "failover.yaml").read_text("utf-8")


async def test_the_scorecard_tells_each_fault_and_ends_in_good_order(tmp_path: Path) -> None:
    done = await ended("doctor", FAILOVER, "--only", "status-500,dns-failure", folder=tmp_path, **KEYS)
    assert "8 passed, 0 failed" in done.out, done.out
    assert (done.status, done.err) == (0, "")


async def test_variables_that_are_not_set_are_not_needed(tmp_path: Path) -> None:
    done = await ended("doctor", FAILOVER, "--only", "status-500", folder=tmp_path, MAIN_KEY="a")
    assert "4 passed, 0 failed" in done.out
    assert done.err.count("\n") == 1
    assert "not set, and not needed here: TWIN_KEY, RESERVE_KEY" in done.err
    assert done.status == 0


async def test_a_wrong_configuration_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(FAILOVER_TEXT.replace("attempts: 3", "attempts: ${HOW_MANY}"))
    done = await ended("doctor", str(file), folder=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "routing.attempts: the variable HOW_MANY is not set" in done.err


async def test_where_nothing_can_be_examined_it_says_why_and_is_not_well(tmp_path: Path) -> None:
    done = await ended("doctor", str(ROOT / "conf" / "config.yaml"), folder=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "nothing was examined" in done.err
    assert "local (embedded, with no upstream of its own)" in done.err
    assert "conf/examples/failover.yaml" in done.err
    done = await ended("doctor", FAILOVER, "--kind", "spark", folder=tmp_path, **KEYS)
    assert (done.status, done.out) == (2, "")
    assert "nothing was examined: no model of this configuration is asked first" in done.err


async def test_what_fails_is_told_with_its_reason_and_a_status_for_scripts(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(FAILOVER_TEXT.replace("attempts: 3", "attempts: 1"))
    done = await ended("doctor", str(file), "--only", "status-500", folder=tmp_path, **KEYS)
    assert done.status == 1
    assert "FAIL: expected whole, the client saw error upstream_error: another channel was well" in done.out
    assert "note: " in done.out


async def test_each_line_is_told_as_json(tmp_path: Path) -> None:
    keys = {"SPARK_APP_ID": "a", "SPARK_API_KEY": "b", "SPARK_API_SECRET": "c"}
    only = ("--only", "clock-skew,dropped-after-content,code-11202")
    done = await ended("doctor", str(EXAMPLES / "spark.yaml"), "--json", *only, folder=tmp_path, **keys)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["wrong"] for line in lines] == [""] * 6
    assert {line["kind"] for line in lines} == {"spark"}
    assert done.status == 0


async def test_the_list_tells_what_is_promised(tmp_path: Path) -> None:
    done = await ended("doctor", "--list", "--kind", "spark", folder=tmp_path)
    assert "clock-skew" in done.out
    assert "openai" not in done.out
    assert done.status == 0


async def test_a_kind_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    done = await ended("doctor", "--kind", "abacus", folder=tmp_path)
    assert done.status == 2
    assert "no such kind: abacus; one of anthropic" in done.err


async def test_a_fault_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    done = await ended("doctor", "--only", "nonsense", folder=tmp_path)
    assert done.status == 2
    assert "no such fault: nonsense" in done.err
