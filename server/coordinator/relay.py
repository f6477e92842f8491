"""One model's answer as a run: the batches pass as they came, and the run tells what happened.

Every plain model and the strategy ``direct`` go this way, so it adds as little as it can to each batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.coordinator.one_call import OneCall
from server.deltas import Batch
from server.upstreams.base import Call, Upstream, whole


async def relay(one: OneCall, upstream: Upstream, call: Call) -> AsyncGenerator[Batch, None]:
    """Yield ``upstream``'s batches; the run ends with the stream, however that ends.

    Raises what the upstream raises.
    """
    _observe(one, call)
    take, request = one.take, one.request
    if one.run.background and not request.stream:
        request = request.with_values(stream=True)  # nobody waits for the whole, and watchers see it grow
    try:
        async with aclosing(upstream.stream(request, call)) as batches:
            async for batch in batches:
                take(batch)
                yield batch
    except (Exception, asyncio.CancelledError, GeneratorExit) as error:
        one.broke_off(error)
        raise
    one.complete(call)


async def relay_whole(one: OneCall, upstream: Upstream, call: Call) -> Batch:
    """``upstream``'s plain answer as one batch; else as ``relay``."""
    _observe(one, call)
    try:
        batch = await whole(upstream)(one.request, call)
        one.take(batch)
    except (Exception, asyncio.CancelledError) as error:
        one.broke_off(error)
        raise
    one.complete(call)
    return batch


def _observe(one: OneCall, call: Call) -> None:
    call.observer = one
    call.run = one.run
