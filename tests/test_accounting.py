"""One line and the counters of each request, in batches."""

from __future__ import annotations

import asyncio
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.accounting import MAX_WAITING, Accounts, Record
from server.deltas import Usage
from server.metrics import Metrics

WALL = 1_800_000_000.25  # 2027-01-15T08:00:00.250Z


def record(**fields: object) -> Record:
    known = {"wall": WALL, "method": "POST", "route": "/v1/chat/completions", "status": 200}
    return Record(**{**known, "request_id": "req_1", "started": 0, "total_s": 1.5, **fields})  # type: ignore[arg-type]


def full(**fields: object) -> Record:
    return record(
        **{
            "key": "me",
            "run_id": "run_1",
            "model": "m",
            "channel": "a",
            "attempts": 2,
            "first_token_s": 0.25,
            "overhead_s": 0.001,
            "usage": Usage(3, 4, 7),
            **fields,
        }
    )


def accounts(out: io.StringIO | None = None, *, as_json: bool = False, log: bool = True) -> Accounts:
    return Accounts(
        Metrics(), known=lambda name: name in ("m", "n"), log=log, as_json=as_json, out=out or io.StringIO()
    )


async def written(*records: Record, as_json: bool = False) -> str:
    out = io.StringIO()
    kept = accounts(out, as_json=as_json)
    for one in records:
        kept.add(one)
    kept.close()
    return out.getvalue()


# ── lines ──


async def test_a_request_is_one_line_that_tells_all_that_is_known_of_it() -> None:
    assert await written(full()) == (
        "2027-01-15T08:00:00.250Z POST /v1/chat/completions 200 1500.0ms "
        "id=req_1 run=run_1 key=me model=m channel=a attempts=2 ttft_ms=250.0 tokens=7\n"
    )


async def test_what_is_not_known_is_left_out() -> None:
    line = await written(record(route="/v1/models", method="GET"))
    assert line == "2027-01-15T08:00:00.250Z GET /v1/models 200 1500.0ms id=req_1\n"


async def test_as_json_it_is_one_object() -> None:
    assert json.loads(await written(full(code="upstream_cut", status=502), as_json=True)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "message": "request",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 502,
        "total_ms": 1500.0,
        "id": "req_1",
        "run": "run_1",
        "key": "me",
        "model": "m",
        "channel": "a",
        "attempts": 2,
        "code": "upstream_cut",
        "ttft_ms": 250.0,
        "tokens": 7,
    }


async def test_a_client_that_left_is_told_as_gone() -> None:
    assert " 499 " in (line := await written(record(status=499, gone=True, code="upstream_cut")))
    assert "code=client_gone" in line


@pytest.mark.parametrize(
    "name",
    [
        "m\n2027 GET / 200",
        "a b",
        "a\u2028b",
        "a\x85b",
        "\x1b[2J",
        "\u202eabc",
        'a"b',
        "m key=admin",
        "a=b",
        "a\\b",
    ],
)
async def test_a_clients_model_name_forges_no_line_and_no_field(name: str) -> None:
    line = await written(full(model=name))
    assert len(line.splitlines()) == 1
    assert f"model={json.dumps(name)} channel=a" in line
    assert json.loads(await written(full(model=name), as_json=True))["model"] == name


async def test_a_long_model_name_is_cut() -> None:
    assert len(await written(full(model="x" * 100_000))) < 400


@given(st.text(), st.text())
async def test_any_name_and_code_can_be_written(model: str, code: str) -> None:
    for as_json in (False, True):
        assert (await written(full(model=model, code=code), as_json=as_json)).count("\n") == 1


async def test_lines_come_in_the_order_of_the_requests_ends() -> None:
    lines = (await written(*(record(request_id=f"req_{number}") for number in range(50)))).splitlines()
    assert [line.rpartition("=")[2] for line in lines] == [f"req_{number}" for number in range(50)]


# ── when ──


async def test_what_has_gathered_is_written_with_one_write_after_a_moment() -> None:
    writes: list[str] = []
    done = asyncio.Event()

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            done.set()
            return len(text)

    kept = accounts(Out())
    for _ in range(3):
        kept.add(record())
    assert not writes
    async with asyncio.timeout(10):
        await done.wait()
    assert [text.count("\n") for text in writes] == [3]
    done.clear()
    kept.add(record())  # the timer is set anew
    async with asyncio.timeout(10):
        await done.wait()
    assert len(writes) == 2


async def test_many_at_once_are_not_kept_waiting() -> None:
    out = io.StringIO()
    kept = accounts(out)
    for _ in range(MAX_WAITING):
        kept.add(record())
    assert out.getvalue().count("\n") == MAX_WAITING
    kept.close()
    assert out.getvalue().count("\n") == MAX_WAITING


async def test_closing_writes_the_rest_and_leaves_no_timer() -> None:
    out = io.StringIO()
    kept = accounts(out)
    kept.add(record())
    timer = kept._timer
    assert timer is not None
    kept.close()
    assert timer.cancelled()
    assert out.getvalue().count("\n") == 1


async def test_a_log_that_nobody_reads_any_more_stops_the_log_and_not_the_counters() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    for out in (Broken(), closed):
        kept = accounts(out)
        kept.add(record())
        kept.flush()
        kept.add(record())
        kept.close()
        assert kept.metrics.requests.total() == 2
        assert not kept.log


async def test_without_a_log_there_are_counters_only() -> None:
    out = io.StringIO()
    kept = accounts(out, log=False)
    kept.add(record())
    kept.close()
    assert (out.getvalue(), kept.metrics.requests.total()) == ("", 1)


async def test_standard_error_is_looked_up_when_it_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Accounts(Metrics(), known=lambda name: True)
    kept.add(record())
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    kept.close()
    assert out.getvalue().count("\n") == 1


# ── counters ──


async def counted(*records: Record) -> Metrics:
    kept = accounts()
    for one in records:
        kept.add(one)
    kept.close()
    return kept.metrics


async def test_a_request_is_counted_with_its_times_and_tokens() -> None:
    metrics = await counted(full(), full(model="n"))
    assert metrics.requests == {("/v1/chat/completions", "POST", "200"): 2}
    assert metrics.tokens == {
        ("m", "prompt"): 3,
        ("m", "completion"): 4,
        ("n", "prompt"): 3,
        ("n", "completion"): 4,
    }
    assert metrics.first_token["m"].total == 0.25
    assert metrics.overhead.total == pytest.approx(0.002)
    assert (metrics.errors, metrics.gone) == ({}, 0)


async def test_errors_and_clients_that_left_are_counted() -> None:
    metrics = await counted(record(code="upstream_cut", status=502), record(gone=True, status=499))
    assert (metrics.errors, metrics.gone) == ({"upstream_cut": 1}, 1)


async def test_names_that_are_not_configured_share_one_label() -> None:
    metrics = await counted(*(full(model=f"made up {number}") for number in range(20)))
    assert set(metrics.first_token) == {"other"}
    assert {model for model, _ in metrics.tokens} == {"other"}
