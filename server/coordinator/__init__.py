"""Many upstreams behind one name: members, limits, quorum, outcomes, and who writes the answer."""

from server.coordinator.combination import Combination, answer, answer_whole

__all__ = ["Combination", "answer", "answer_whole"]
