"""The faults that doctor does."""

from __future__ import annotations

from server.doctor.catalogue import catalogue


def test_there_are_more_than_forty_faults_each_with_a_name_of_its_own() -> None:
    names = [fault.name for fault in catalogue()]
    assert len(names) > 40
    assert len(set(names)) == len(names)


def test_an_error_names_its_statuses_and_nothing_else_does() -> None:
    for fault in catalogue():
        assert bool(fault.statuses) == (fault.sees == "error"), fault.name
