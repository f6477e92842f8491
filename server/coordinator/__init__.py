"""Many upstreams behind one name: members, limits, quorum, outcomes, and who writes the answer."""

from server.coordinator.combination import Combination, answer, answer_whole
from server.coordinator.surface_call import answer_surface

__all__ = ["Combination", "answer", "answer_surface", "answer_whole"]
