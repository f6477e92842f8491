"""How a run ends that its writer left open."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from server import errors
from server.events import (
    ErrorInfo,
    MemberRef,
    ModelCancelled,
    RunCancelled,
    RunCreated,
    RunFailed,
    StageFinished,
    StageRef,
    SummaryFailed,
    Timings,
    token_usage,
)

if TYPE_CHECKING:
    from server.run_log.run import Run

log = logging.getLogger("antiphon.runs")


def close_open(run: Run, reason: str) -> None:
    """Tell the end of every stage and call that is still open, as cancelled for ``reason``."""
    view = run.view()
    now = run.elapsed_ms
    if view.summary is not None and not view.summary.ended:
        stage = next((one for one in view.stages.values() if one.ended_by is None), None)
        where = StageRef(stage.id, stage.name, stage.round) if stage is not None else None
        chars = run.lanes["summary"].chars["text"] if "summary" in run.lanes else 0
        run.tell(SummaryFailed("cancelled", None, False, chars), stage=where)
    for stage in list(view.stages.values()):
        if stage.ended_by is not None:
            continue
        where = StageRef(stage.id, stage.name, stage.round)
        for name in list(stage.open):
            call = view.members.get(name)
            if call is None:
                continue
            lane = run.lanes.get(name)
            run.tell(
                ModelCancelled(
                    reason=reason,
                    chars=lane.chars["text"] if lane is not None else 0,
                    latency_ms=0 if call.began_ms is None else now - call.began_ms,
                ),
                stage=where,
                member=MemberRef(call.id, call.model, attempt=call.attempt),
            )
        run.tell(StageFinished(ended_by="cancelled", duration_ms=now - stage.began_ms), stage=where)


def close(run: Run, error: BaseException | None = None) -> None:
    """The safety net: a run whose writer went without a word ends here, by ``error`` if there is one."""
    if run.ended:
        return
    if run.head == 0:
        run.tell(RunCreated(response_id=run.response_id, model=run.model, strategy="", stream=False))
    timings = Timings(total_ms=run.elapsed_ms)
    usage = token_usage(run.usage)
    gone = isinstance(error, (asyncio.CancelledError, GeneratorExit, ConnectionError))
    if run.is_cancelled() or gone:
        by = run.cancelled_by or "client"
        run.close_open(by)
        run.tell(RunCancelled(by=by, usage=usage, timings=timings))
        return
    run.close_open("failed")
    if not isinstance(error, errors.ServerError):
        if error is None:
            log.error("%s was left without an end", run.id)
        error = errors.ServerError("The server failed; try again, or report the x-request-id.")
    told = ErrorInfo(error.message, error.type, error.param, error.code)
    run.tell(RunFailed(error=told, usage=usage, timings=timings))
