"""What is counted, and that Prometheus can read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import BUCKETS_S, MAX_CODES, Distribution, Metrics


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(sample's name, its labels' values in the order of their names) → value, as Prometheus reads it."""
    samples = [
        sample
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    ]
    read = {(s.name, *(s.labels[name] for name in sorted(s.labels))): s.value for s in samples}
    assert len(read) == len(samples)
    return read


def test_a_fresh_server_can_be_scraped() -> None:
    read = scraped(Metrics())
    assert read["antiphon_requests_in_flight",] == 0
    assert read["antiphon_clients_gone_total",] == 0
    assert read["antiphon_overhead_seconds_count",] == 0


def test_requests_are_counted_by_route_method_and_status() -> None:
    metrics = Metrics()
    metrics.requests["/v1/models", "GET", "200"] += 2
    metrics.requests["/v1/models", "GET", "401"] += 1
    read = scraped(metrics)
    assert read["antiphon_requests_total", "GET", "/v1/models", "200"] == 2
    assert read["antiphon_requests_total", "GET", "/v1/models", "401"] == 1


def test_errors_attempts_tokens_and_clients_gone_are_counted() -> None:
    metrics = Metrics()
    metrics.failed("upstream_cut")
    metrics.attempted("a", "ok")
    metrics.attempted("a", "upstream_cut")
    metrics.skipped["a"] += 2
    metrics.tokens["m", "prompt"] += 7
    metrics.gone += 1
    metrics.in_flight += 3
    read = scraped(metrics)
    assert read["antiphon_errors_total", "upstream_cut"] == 1
    assert read["antiphon_upstream_attempts_total", "a", "ok"] == 1
    assert read["antiphon_upstream_attempts_total", "a", "upstream_cut"] == 1
    assert read["antiphon_upstream_skipped_total", "a"] == 2
    assert read["antiphon_tokens_total", "prompt", "m"] == 7
    assert read["antiphon_clients_gone_total",] == 1
    assert read["antiphon_requests_in_flight",] == 3


def test_times_to_the_first_token_stand_in_cumulative_buckets_by_model() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.005, 0.2, 500.0):
        metrics.first_token_after("m", seconds)
    read = scraped(metrics)
    name = "antiphon_first_token_seconds"
    assert [read[f"{name}_bucket", le, "m"] for le in ("0.005", "0.025", "0.25", "120.0", "+Inf")] == [
        2,
        2,
        3,
        3,
        4,
    ]
    assert read[f"{name}_count", "m"] == 4
    assert read[f"{name}_sum", "m"] == pytest.approx(500.209)


@given(st.lists(st.floats(0, 1000)))
def test_a_bucket_holds_all_that_is_not_above_its_bound(values: list[float]) -> None:
    kept = Distribution(BUCKETS_S)
    for value in values:
        kept.add(value)
    for bound, count in kept.buckets():
        assert count == sum(value <= float(bound) for value in values)
    assert kept.total == pytest.approx(sum(values))


def test_gauges_are_asked_at_each_scrape() -> None:
    metrics, running = Metrics(), [1]
    metrics.gauges["runs_in_progress"] = ("Runs under way.", lambda: len(running))
    assert scraped(metrics)["antiphon_runs_in_progress",] == 1
    running.append(2)
    assert scraped(metrics)["antiphon_runs_in_progress",] == 2


def test_an_upstreams_words_do_not_become_labels_without_bound() -> None:
    metrics = Metrics()
    for number in range(10 * MAX_CODES):
        metrics.failed(f"request-{number}")
        metrics.attempted("a", f"request-{number}")
    assert len(metrics.errors) == MAX_CODES + 1
    assert len(metrics.attempts) == MAX_CODES + 1
    assert metrics.errors["other"] == 9 * MAX_CODES


@pytest.mark.parametrize("code", ["", "two words", "x" * 65, 'quo"te', "line\nbreak", "中", "1", "\ud800"])
def test_a_code_that_is_no_plain_word_is_counted_as_other(code: str) -> None:
    metrics = Metrics()
    metrics.failed(code)
    metrics.attempted("a", code)
    read = scraped(metrics)
    assert read["antiphon_errors_total", "other"] == 1
    assert read["antiphon_upstream_attempts_total", "a", "other"] == 1


def test_configured_names_of_any_kind_can_be_labels() -> None:
    metrics = Metrics()
    for name in ('a "b"', "back\\slash", "通义/千问", "line\nbreak", "a{b}"):
        metrics.first_token_after(name, 1)
        metrics.attempted(name, "ok")
    read = scraped(metrics)
    assert read["antiphon_first_token_seconds_count", "通义/千问"] == 1
    assert read["antiphon_upstream_attempts_total", "line\nbreak", "ok"] == 1
