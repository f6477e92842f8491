"""The configuration file on the command line: every command that reads one takes it in the same two ways."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HELP = "configuration file (default: $ANTIPHON_CONFIG, ./conf/config.yaml, the one in the package)"


class _NamedOnce(argparse.Action):
    """Keeps the file, whichever way it was named, and refuses a second one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values is None:  # the word that may be left out was
            return
        if getattr(namespace, self.dest, None) is not None:
            parser.error("the configuration file is named twice")
        setattr(namespace, self.dest, values)


def add_config_file(parser: argparse.ArgumentParser, *, word: bool = True) -> None:
    """``FILE`` and ``--config FILE``, for ``options.file``; None if neither is given.

    ``word`` False: the option alone, for a command whose words mean something else.
    """
    if word:
        parser.add_argument("file", nargs="?", metavar="FILE", type=Path, action=_NamedOnce, help=_HELP)
    parser.add_argument(
        "--config",
        dest="file",
        metavar="FILE",
        type=Path,
        action=_NamedOnce,
        help="the same, as an option" if word else _HELP,
    )


def add_examples(parser: argparse.ArgumentParser, *lines: str, status: str = "") -> None:
    """End the help with examples, and with what the exit status says."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        (
            *((f"status: {status}", "") if status else ()),
            "examples:",
            *(f"  antiphon {line}" for line in lines),
        )
    )
