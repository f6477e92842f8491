"""``antiphon doctor``, as a process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import ROOT, ended

EXAMPLES = ROOT / "conf" / "examples"


async def test_a_shipped_example_is_all_green(tmp_path: Path) -> None:
    keys = {"MAIN_KEY": "a", "TWIN_KEY": "b", "RESERVE_KEY": "c"}
    done = await ended("doctor", str(EXAMPLES / "failover.yaml"), folder=tmp_path, **keys)
    assert "0 failed" in done.out, done.out
    assert (done.status, done.err) == (0, "")


async def test_the_example_for_spark_is_all_green_and_told_as_json(tmp_path: Path) -> None:
    keys = {"SPARK_APP_ID": "a", "SPARK_API_KEY": "b", "SPARK_API_SECRET": "c"}
    done = await ended("doctor", str(EXAMPLES / "spark.yaml"), "--json", folder=tmp_path, **keys)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line for line in lines if line["wrong"]] == []
    assert len(lines) > 10
    assert done.status == 0


async def test_a_fault_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    done = await ended("doctor", "--only", "nonsense", folder=tmp_path)
    assert done.status == 2
    assert "no such fault: nonsense" in done.err
