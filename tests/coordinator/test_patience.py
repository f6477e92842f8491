"""How long a race waits for a first word."""

from __future__ import annotations

from server.coordinator.patience import KEPT, LEAST, UNKNOWN_S, Patience


def test_too_few_first_words_say_nothing() -> None:
    patience = Patience()
    for _ in range(LEAST - 1):
        patience.note("a", 0.1)
    assert patience.p95("a") == UNKNOWN_S
    assert patience.p95("b") == UNKNOWN_S


def test_the_figure_is_the_95th_of_a_hundred_and_forgets_the_old() -> None:
    patience = Patience()
    for number in range(100):
        patience.note("a", number)
    assert patience.p95("a") == 95
    for _ in range(KEPT):
        patience.note("a", 1)
    assert patience.p95("a") == 1
