"""Signs for terminals and files that lack ours."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", b"+ m1 - x> ? ?"), ("latin-1", b"+ m1 \xb7 x> ? \xe9"), ("utf-8", "✓ m1 · x… 中 é".encode())],
)
def test_each_of_our_signs_is_one_column_where_there_is_no_utf8(encoding: str, shown: bytes) -> None:
    program = "from server.cli.terminal import make_do; make_do(); print('✓ m1 · x… 中 é', end='')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == shown
