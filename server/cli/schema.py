"""``antiphon schema WHAT``: the form of what the status channel tells, as JSON for other programs."""

from __future__ import annotations

import argparse
import sys

import msgspec

from server.events.schema import events_schema
from server.handlers.status_schema import asyncapi


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "what",
        choices=["events", "asyncapi"],
        help="the JSON Schema of every event, or the websocket as an AsyncAPI 3 document",
    )


def run(options: argparse.Namespace) -> int:
    """Print the document."""
    document = events_schema() if options.what == "events" else asyncapi()
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    sys.stdout.write(text + "\n")
    return 0
