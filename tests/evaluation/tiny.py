"""``python -m tests.evaluation.tiny FOLDER``: a tiny evaluation; its results go there, its page to stdout."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluation.__main__ import Sizes, evaluate
from evaluation.figures import Figures
from evaluation.lab import Lab
from evaluation.report import report

SIZES = Sizes(votes=12, bar=20, strategies=10, judges=8, policies=20, dead=5)


def tiny(folder: Path) -> Figures:
    """Few questions of every study."""
    return evaluate(Lab("again", folder, lambda _: None), SIZES, quick=True)


if __name__ == "__main__":
    sys.stdout.buffer.write(report(tiny(Path(sys.argv[1]))).encode())
