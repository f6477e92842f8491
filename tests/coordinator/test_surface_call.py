"""What the run of a request beside chats tells, and what it never makes up."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from server.chat import JsonObject
from server.coordinator import answer_surface
from server.deltas import Usage
from server.errors import ServerError, UpstreamCut
from server.routed_surface import RoutedSurface
from server.run_check import check_run
from server.run_log import Run, Runs
from server.settings import Runs as RunsSettings
from server.surfaces import EMBEDDINGS, AnswerHead, JsonRequest, SurfaceRequest
from server.upstreams.base import Call

REQUEST = JsonRequest(EMBEDDINGS, "m", JsonObject(b'{"model":"m"}'))


class Played(RoutedSurface):
    """Answers with ``parts``; an error among them is raised."""

    def __init__(self, *parts: Any) -> None:
        super().__init__("m", "embeddings", [], random.Random(1))
        self.parts = parts

    async def ask(self, request: SurfaceRequest, call: Call) -> AsyncGenerator[AnswerHead | bytes, None]:
        assert call.observer is not None
        call.observer.attempt(1, "c")
        for part in self.parts:
            if isinstance(part, ServerError):
                raise part
            yield part


class Me:
    name = "me"
    admin = False


def started() -> Run:
    return Runs(RunsSettings()).start(model="m", principal=Me())


def told(run: Run) -> list[str]:
    assert check_run(run.all_events()) == []
    return [event.data.type for event in run.all_events()]


async def carry_out(run: Run, model: RoutedSurface, *, parts: int | None = None) -> list[AnswerHead | bytes]:
    got: list[AnswerHead | bytes] = []
    async with aclosing(answer_surface(run, model, REQUEST, Call())) as answer:
        async for part in answer:
            got.append(part)
            if len(got) == parts:
                break
    return got


async def test_an_answer_with_usage_and_one_without() -> None:
    for usage in (Usage(3, 0, 3), None):
        run = started()
        head = AnswerHead(200, "application/json", usage=usage)
        assert await carry_out(run, Played(head, b"{}")) == [head, b"{}"]
        kinds = told(run)
        assert (kinds[0], kinds[-1], run.status) == ("run.created", "run.completed", "completed")
        assert "model.started" in kinds
        assert run.usage == usage, "none is made up"


async def test_an_answer_that_is_cut_is_a_failed_run() -> None:
    run = started()
    with pytest.raises(UpstreamCut):
        await carry_out(run, Played(AnswerHead(200, "audio/mpeg"), b"a", UpstreamCut("x")))
    assert told(run)[-2:] == ["stage.finished", "run.failed"]
    assert run.usage is None


async def test_an_answer_that_is_left_is_a_cancelled_run() -> None:
    run = started()
    await carry_out(run, Played(AnswerHead(200, "audio/mpeg"), b"a", b"b"), parts=2)
    assert told(run)[-1] == "run.cancelled"
    assert run.usage is None
