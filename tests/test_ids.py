"""Ids: their form, and that none is given twice."""

from __future__ import annotations

import re

from server.ids import RandomIds


def test_ids_are_hexadecimal_of_their_length_and_never_the_same_over_several_blocks() -> None:
    ids = RandomIds(12)
    made = [ids() for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{24}", one) for one in made)


def test_a_size_that_does_not_divide_the_block_leaves_no_short_id() -> None:
    ids = RandomIds(13)
    assert {len(ids()) for _ in range(2000)} == {26}
