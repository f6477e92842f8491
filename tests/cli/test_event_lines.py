"""Events as lines for pipes and log files."""

from __future__ import annotations

import pytest

from server.cli.event_lines import event_line, snapshot_line
from server.events import Event
from tests.cli.told import SUMMARY, created, drafting, event, of, whole


@pytest.mark.parametrize("told", [created(), *whole()], ids=lambda told: told.type)
def test_every_event_is_one_line_with_its_time_run_and_type(told: Event) -> None:
    line = event_line(told)
    assert line.startswith("09:00:0")
    assert f" run_5f0c7a9b +{told.elapsed_ms / 1000:.2f} s " in line
    assert f" {told.type}" in line
    assert line.isprintable()


def test_a_failure_says_its_code_and_message() -> None:
    failed = next(one for one in drafting() if one.type == "model.failed")
    assert event_line(failed) == (
        "09:00:01.214 run_5f0c7a9b +1.21 s m3 qwen-plus: model.failed code=rate_limit_exceeded "
        "http_status=429 retryable=yes attempts=1 latency_ms=1200 chars=0 partial=no usage=none "
        '"The upstream asks for less."'
    )


def test_a_failed_run_says_the_error_that_its_client_got() -> None:
    error = {
        "message": "Nobody\x1b[2J answered.",
        "type": "upstream_error",
        "param": None,
        "code": "no_draft",
    }
    line = event_line(event("run.failed", 2, 9, {"error": error}))
    assert line.endswith('code=no_draft "Nobody[2J answered."')


def test_text_stands_in_quotes_on_one_line() -> None:
    data = {"kind": "text", "text": "a\nb\x9b", "text_offset": 0}
    line = event_line(event("summary.delta", 2, 9, data, volatile=True, stage=SUMMARY))
    assert line.endswith('summary.1: summary.delta text "a\\nb"')


def test_names_cannot_command_the_terminal() -> None:
    where = of("m1")
    where["member"] = {"id": "m\x1b1", "model": "\x1b]0;x\x07"}
    assert event_line(event("model.started", 2, 9, **where)).isprintable()


def test_a_snapshot_is_one_line() -> None:
    members = [{"id": "m1", "state": "started"}, {"id": "m2", "state": "failed"}]
    run = {"id": "run_5f0c7a9be1d2", "model": "parallel", "status": "in_progress", "members": members}
    line = snapshot_line(run)
    assert line.split() == ["run_5f0c7a9b", "stands:", "parallel", "in_progress", "m1=started", "m2=failed"]
