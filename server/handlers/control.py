"""What a watcher may do to a run: commands, answered once they took effect."""

from __future__ import annotations

import asyncio

from server.auth import Principal
from server.run_log import Run

EFFECT_S = 10.0
"""How long a command's effect is waited for."""


async def cancel_run(run: Run, principal: Principal) -> bool:
    """End ``run``; False if it had ended. Returns when its last event is told. Idempotent."""
    if run.ended:
        return False
    if not run.is_cancelled():
        run.control("cancel_run", principal.name if run.key == principal.name else "admin")
        run.cancel("watcher")
    try:
        async with asyncio.timeout(EFFECT_S):
            await run.wait_ended()
    except TimeoutError:
        pass  # its writer still unwinds; the status in the answer says so
    return True
