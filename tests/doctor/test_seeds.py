"""The deliberate faults of the code: each still has its place there."""

from __future__ import annotations

import pytest

from tests.doctor.seeds import PATCHES, ROOT, Patch


@pytest.mark.parametrize("seed", PATCHES, ids=lambda seed: seed.name)
def test_what_is_replaced_is_there_once(seed: Patch) -> None:
    text = (ROOT / "server" / seed.file).read_text()
    assert text.count(seed.old) == 1
    assert seed.new != seed.old
