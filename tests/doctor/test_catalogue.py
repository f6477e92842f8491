"""The faults that doctor does."""

from __future__ import annotations

from collections import Counter

import pytest

from server.doctor.catalogue import catalogue


@pytest.mark.parametrize("kind", ["openai", "azure", "anthropic", "gemini", "ollama", "spark"])
def test_each_kind_has_more_than_forty_faults(kind: str) -> None:
    names = [fault.name for fault in catalogue() if fault.kind == kind]
    assert len(names) > 40
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_an_error_names_its_statuses_and_nothing_else_does() -> None:
    for fault in catalogue():
        for promise in filter(None, (fault.streamed, fault.plain)):
            assert bool(promise.statuses) == (promise.seen == "error"), fault.name


def test_every_fault_can_be_met_by_some_request() -> None:
    assert all(fault.streamed or fault.plain for fault in catalogue())


def test_what_has_begun_or_ran_out_of_time_is_never_tried_again() -> None:
    for fault in catalogue():
        for promise in filter(None, (fault.streamed, fault.plain)):
            if promise.seen != "error" or promise.clock == "total":
                assert promise.retry == "never", fault.name
