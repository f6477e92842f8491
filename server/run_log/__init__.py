"""Runs and their logs: one writer appends numbered events, many watchers read, each from its own place."""

from server.run_log.lane import Lane
from server.run_log.run import Nap, Run, is_included
from server.run_log.runs import Runs, Viewer, new_run_id

__all__ = ["Lane", "Nap", "Run", "Runs", "Viewer", "is_included", "new_run_id"]
