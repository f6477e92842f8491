"""The command line: ``antiphon serve · check · test · watch · doctor · simulate · replay · schema``.

Each command lives in a module of its own that is imported only when it is asked for: a start of the server
must not pay for the terminal view.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from server import __version__

_COMMANDS = {
    "serve": "run the server",
    "check": "check a configuration and list what it would serve, without starting",
    "test": "make a real, tiny call to each channel of a configuration, and tell how it went",
    "watch": "show runs live in the terminal",
    "doctor": "do upstream faults to a configuration, and tell what clients would see",
    "simulate": "play an upstream, with delays and faults on request",
    "replay": "carry out a recorded run again, and show its events and its answer",
    "schema": "print the form of events, for other programs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 well, 1 failed, 2 wrong usage or configuration)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="antiphon",
        description="One OpenAI-compatible server in front of many models.",
        epilog="'antiphon COMMAND --help' tells more of each.",
    )
    parser.add_argument("--version", action="version", version=f"antiphon {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if name == named:
            importlib.import_module(f"server.cli.{name}").add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        status = importlib.import_module(f"server.cli.{options.command}").run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `| head` does
        sys.stderr.close()
        return 1
    return int(status)
