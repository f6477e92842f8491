"""How long a race waits for a model's first word before it starts the next member."""

from __future__ import annotations

from collections import deque

KEPT = 200
"""First words of each model that are remembered."""
LEAST = 20
"""With fewer of them the figure says nothing yet."""
UNKNOWN_S = 2.0


class Patience:
    """Rolling times to the first word, in seconds, by model. Bounded by the models of one combination."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def note(self, model: str, seconds: float) -> None:
        """The model's first word came after so long."""
        self._times.setdefault(model, deque(maxlen=KEPT)).append(seconds)

    def p95(self, model: str) -> float:
        """What 95 of 100 first words of the model keep to; 2 s while too few are known."""
        times = self._times.get(model, ())
        if len(times) < LEAST:
            return UNKNOWN_S
        return sorted(times)[min(len(times) - 1, int(len(times) * 0.95))]
