"""``antiphon`` and ``python -m server``."""

from __future__ import annotations

import sys

from server.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
