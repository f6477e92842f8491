"""``antiphon check``: is this configuration right, and what would it serve?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from server.cli.config_file import add_config_file, add_examples
from server.config import ConfigError, default_path, describe, load
from server.presets import table
from server.settings import Channel
from server.upstreams.local_engine import BROKEN_ENGINE, try_engine, what_is_missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "--presets", action="store_true", help="list the presets of kind openai, and what each does"
    )
    parser.add_argument(
        "--no-secrets",
        action="store_true",
        help="let made-up values stand in for variables of keys and addresses that are not set here",
    )
    add_config_file(parser)
    add_examples(
        parser,
        "check",
        "check conf/examples/failover.yaml --no-secrets",
        "check --config /etc/antiphon.yaml",
        status="0 the configuration is right, 2 it is not",
    )


def run(options: argparse.Namespace) -> int:
    """Print what would be served, or every fault with its place."""
    if options.presets:
        print(table())
        return 0
    path = default_path(options.file)
    try:
        loaded = load(path, rehearsal=options.no_secrets)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(loaded.settings, loaded.warnings))
    if loaded.stood_in:
        print(f"\nnot set: {', '.join(loaded.stood_in)}; made-up values stand in, so it cannot be served so")
    for channel in loaded.settings.channels:
        if channel.kind == "local" and channel.enabled and (reason := _why_absent(channel)):
            print(f"\nchannel {channel.name} cannot serve: {reason}")
    return 0


def _why_absent(channel: Channel) -> str | None:
    """What to install, if the embedded model could not be started here; the server starts without it."""
    missing = what_is_missing(Path(channel.path) if channel.path else None)
    return missing or (BROKEN_ENGINE if asyncio.run(try_engine()) else None)
