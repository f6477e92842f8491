"""``antiphon schema WHAT``: what the code knows of itself, for other programs and for the pages of docs/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from server.cli.config_file import add_examples
from server.cli.features import document as features
from server.cli.features import put_into
from server.events.schema import events_schema
from server.handlers.status_schema import asyncapi


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "what",
        choices=["events", "asyncapi", "features"],
        help="the JSON Schema of every event, the websocket as an AsyncAPI 3 document, or what each kind of "
        "upstream makes of each feature of a chat, as tables in Markdown",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="PAGE",
        help="of features: put the tables into this page, between their marks",
    )
    add_examples(
        parser,
        "schema events",
        "schema features --into docs/providers.md",
        status="0 printed, 2 wrong usage, or a page without marks",
    )


def run(options: argparse.Namespace) -> int:
    """Print the document, or put it into a page."""
    if options.what == "features":
        if options.into is None:
            sys.stdout.write(features())
            return 0
        try:
            options.into.write_text(put_into(options.into.read_text("utf-8")), "utf-8")
        except (OSError, ValueError) as error:
            print(f"{options.into}: {error}", file=sys.stderr)
            return 2
        return 0
    document = events_schema() if options.what == "events" else asyncapi()
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    sys.stdout.write(text + "\n")
    return 0
