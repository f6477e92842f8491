"""Which failures of a lone channel are worth a second call to it."""

from __future__ import annotations

from server.errors import UpstreamError
from tests.channels import answer, channel, failure, model, played, says


async def test_a_404_is_not_asked_for_again_where_it_came_from_but_of_another_channel() -> None:
    nothing = UpstreamError("nothing at this address", upstream_status=404)
    a, b = channel("a", [nothing], priority=1), channel("b")
    assert await answer(model(a, b)) == "hello"
    assert (len(played(a).asked), len(played(b).asked)) == (1, 1)
    lone = channel("lone", [nothing], says("hello"))
    assert await failure(model(lone)) is nothing
    assert len(played(lone).asked) == 1


async def test_another_fault_is_asked_for_again_where_it_came_from() -> None:
    lone = channel("lone", [UpstreamError("broken", upstream_status=500)], says("hello"))
    assert await answer(model(lone)) == "hello"
    assert len(played(lone).asked) == 2
