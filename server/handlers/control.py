"""What a watcher may do to a run: commands, answered once they took effect."""

from __future__ import annotations

import asyncio
from functools import partial

from server.auth import Principal
from server.errors import NotFound
from server.run_log import Run

EFFECT_S = 10.0
"""How long a command's effect is waited for."""


async def cancel_run(run: Run, principal: Principal) -> bool:
    """End ``run``; False if it had ended. Returns when its last event is told. Idempotent."""
    if run.ended:
        return False
    if not run.is_cancelled():
        run.control("cancel_run", _by(run, principal))
        run.cancel("watcher")
    await _ended(run)
    return True


async def cancel_member(run: Run, principal: Principal, member: str) -> bool:
    """End one call of ``run``; False if it does not run. The only call of a run takes the run with it.

    Raises ``NotFound`` if the run knows of no such member.
    """
    if member not in run.view().members:
        raise NotFound("The run has no such member; its snapshot lists them.", code="member_not_found")
    if run.ended or run.is_cancelled():
        return False
    told = partial(run.control, "cancel_member", _by(run, principal), member)
    if run.steered is not None:
        return run.steered.cancel_member(member, told)
    if run.strategy != "direct":  # it has not begun, or its answer is written already
        return False
    told()
    run.cancel("watcher")
    await _ended(run)
    return True


async def answer_now(run: Run, principal: Principal) -> bool:
    """Have ``run`` answer from what there is; False if nothing is being gathered. Returns when it was ended.

    Idempotent. Raises ``Conflict`` (``nothing_to_answer``) if there is too little; the run then goes on.
    """
    if run.ended or run.steered is None:
        return False
    over = run.steered.answer_now(partial(run.control, "answer_now", _by(run, principal)))
    if over is None:
        return False
    try:
        async with asyncio.timeout(EFFECT_S):
            await over.wait()
    except TimeoutError:
        pass  # told already; the stage still unwinds
    return True


def _by(run: Run, principal: Principal) -> str:
    return principal.name if run.key == principal.name else "admin"


async def _ended(run: Run) -> None:
    try:
        async with asyncio.timeout(EFFECT_S):
            await run.wait_ended()
    except TimeoutError:
        pass  # its writer still unwinds; the status in the answer says so
