"""One model's answer as a run: the batches pass as they came, and the run tells what happened.

Every plain model and the strategy ``direct`` go this way, so it adds as little as it can to each batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.chat import ChatRequest
from server.coordinator.call_log import BUG, ModelLog
from server.coordinator.run_book import RunBook
from server.deltas import Batch
from server.errors import ServerError
from server.events import MemberFailure, MemberRef, StageRef
from server.upstreams.base import Call, Upstream

MEMBER = "m1"


async def relay(
    book: RunBook, upstream: Upstream, chat: ChatRequest, call: Call
) -> AsyncGenerator[Batch, None]:
    """Yield ``upstream``'s batches; the run ends with the stream, however that ends.

    Raises what the upstream raises.
    """
    book.begin()
    stage = book.begin_stage("draft", (MEMBER,))
    log = ModelLog(book.run, stage, MemberRef(MEMBER, upstream.name), chat)
    log.becomes_answer()
    book.calls.append(log)
    call.observer = log
    call.run = book.run
    take = log.take
    try:
        async with aclosing(upstream.stream(chat, call)) as batches:
            async for batch in batches:
                take(batch)
                yield batch
    except ServerError as error:
        _fail(book, stage, log, error)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        log.cancelled(book.cancelled_by)
        book.end_stage(stage, "cancelled", drafts=0, partial=0, failed=0, cancelled=1)
        book.cancel()
        raise
    except Exception:
        _fail(book, stage, log, ServerError(BUG))
        raise
    log.finished()
    book.first_text_ms = log.first_text_ms
    book.end_stage(stage, "all", drafts=1, partial=0, failed=0, cancelled=0)
    book.complete(call, MEMBER, log.finish_reason or "stop", (MEMBER,))


def _fail(book: RunBook, stage: StageRef, log: ModelLog, error: ServerError) -> None:
    log.failed(error)
    book.end_stage(stage, "all", drafts=0, partial=0, failed=1, cancelled=0)
    book.failures = (MemberFailure(MEMBER, error.code, error.upstream_status, error.retryable),)
    book.fail(error)
