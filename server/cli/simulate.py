"""``antiphon simulate KIND``: play an upstream on this machine."""

from __future__ import annotations

import argparse
import asyncio

from server.serving import CannotListen
from server.serving import run as run_loop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    from server.simulators import openai

    parser.epilog = openai.HELP
    parser.add_argument("kind", choices=["openai"], help="whose dialect to speak")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9100, help="port to listen on (default: %(default)s)")
    parser.add_argument("--api-key", help="refuse requests that do not bring this key")


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from server.simulators import openai

    try:
        run_loop(openai.run(options.host, options.port, api_key=options.api_key))
    except (CannotListen, OSError) as error:
        raise SystemExit(f"antiphon simulate: {error}") from error
    except asyncio.CancelledError:
        return 0
    return 0
