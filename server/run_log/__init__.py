"""Runs and their logs: one writer appends numbered events, many watchers read, each from its own place."""

from server.run_log.lane import Lane, is_included
from server.run_log.run import Run
from server.run_log.runs import Runs, Viewer, new_run_id
from server.run_log.scope import Nap
from server.run_log.story import Steered, Told

__all__ = ["Lane", "Nap", "Run", "Runs", "Steered", "Told", "Viewer", "is_included", "new_run_id"]
