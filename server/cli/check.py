"""``antiphon check``: is this configuration right, and what would it serve?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from server.config import ConfigError, default_path, describe, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", nargs="?", type=Path, help="configuration file (default: as for 'serve')")


def run(options: argparse.Namespace) -> int:
    """Print what would be served, or every fault with its place."""
    path = default_path(options.file)
    try:
        loaded = load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(loaded.settings, loaded.warnings))
    return 0
