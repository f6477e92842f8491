"""``antiphon replay FILE``: carry out a recorded run again, and show its events and its answer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from server.cli.config_file import add_examples
from server.cli.event_lines import event_line
from server.cli.lanes import clean_json, clean_lines
from server.cli.terminal import make_do
from server.coordinator.replaying import BadRecording, Replayed, replay
from server.deltas import TextDelta
from server.events import encode
from server.handlers.telling import antiphon_field
from server.openai_wire import Completion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", type=Path, help="a recording: run_….jsonl in the folder runs.record_to")
    parser.add_argument("--json", action="store_true", help="events and answer as JSON, one a line")
    add_examples(
        parser,
        "replay recordings/run_5f0c7a9be1d24c6f8a3b90d17e42c6aa.jsonl",
        "replay --json recordings/run_5f0c7a9be1d24c6f8a3b90d17e42c6aa.jsonl",
        status="0 the run succeeded, 1 it failed, as it had then, 2 wrong usage, or no whole recording",
    )


def run(options: argparse.Namespace) -> int:
    """Print the events, then the answer; 1 if the run failed, 2 for what is no recording."""
    try:
        told = replay(options.file.read_bytes())
    except OSError as error:
        print(f"{options.file}: {error.strerror}", file=sys.stderr)
        return 2
    except BadRecording as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    make_do()
    for event in told.run.events_after(0):
        print(clean_json(encode(event).decode()) if options.json else event_line(event))
    if told.error is not None:
        return 1
    print(clean_json(_body(told).decode()) if options.json else f"\n{clean_lines(_text(told))}")
    return 0


def _body(told: Replayed) -> bytes:
    """The answer as a plain request gets it."""
    info, run = told.call.answer, told.run
    own = run.strategy != "direct"
    made = Completion(model=run.model, id=run.response_id, created=int(run.created_at), own_identity=own)
    made.add(told.deltas)
    return made.encode(run.usage, antiphon_field(run.id, info) if own and info is not None else None)


def _text(told: Replayed) -> str:
    return "".join(delta.text for delta in told.deltas if isinstance(delta, TextDelta) and not delta.index)
