"""``antiphon simulate KIND``: play an upstream on this machine."""

from __future__ import annotations

import argparse
import sys

from server.serving import run as run_loop
from server.simulators import openai
from server.simulators.script import HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument("kind", choices=["openai"], help="whose dialect to speak")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=openai.DEFAULT_PORT, help="port to listen on (default: %(default)s)"
    )
    parser.add_argument("--api-key", help="refuse requests that do not bring this key")


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted. Status 2 when the address is taken."""

    def ready(simulator: openai.OpenAISimulator) -> None:
        print(f"An OpenAI upstream at {simulator.base_url} — scripts: {simulator.url}/sim/help", flush=True)

    try:
        run_loop(openai.run(options.host, options.port, api_key=options.api_key, on_ready=ready))
    except OSError as error:
        print(f"antiphon: {options.host}:{options.port} cannot be used: {error.strerror}", file=sys.stderr)
        return 2
    return 0
