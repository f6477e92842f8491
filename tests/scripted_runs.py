"""Runs that are told by hand, and a server that shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from server.app import create_app
from server.app_keys import RUNS
from server.auth import ANONYMOUS
from server.events import (
    MemberRef,
    ModelFinished,
    ModelFirstToken,
    ModelStarted,
    PlannedMember,
    RunCompleted,
    RunCreated,
    RunInProgress,
    StageFinished,
    StageRef,
    StageStarted,
    SummaryFinished,
    SummaryFirstToken,
    SummaryStarted,
)
from server.run_log import Run, Runs, Viewer
from server.settings import Access, AccessKey, Events, Settings
from tests.raw_http import PATIENCE_S
from tests.served import served

DRAFT = StageRef("draft.1", "draft")
SUMMARY = StageRef("summary.1", "summary")
M1 = MemberRef("m1", "deepseek-flash")
M2 = MemberRef("m2", "spark-max")

KEYS = Access(
    keys=(
        AccessKey(name="ann", key="key-of-ann"),
        AccessKey(name="bob", key="key-of-bob"),
        AccessKey(name="root", key="key-of-root", admin=True),
    )
)


class Script:
    """Tells a run with two drafts and a summary, step by step."""

    def __init__(
        self,
        runs: Runs,
        viewer: Viewer = ANONYMOUS,
        run_id: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        self.run = runs.start(
            model="parallel", principal=viewer, run_id=run_id, conversation_id=conversation_id
        )

    def begin(self) -> Run:
        run = self.run
        members = tuple(PlannedMember(one.id, one.model) for one in (M1, M2))
        run.tell(
            RunCreated(
                response_id=run.response_id,
                model="parallel",
                strategy="synthesize",
                stream=True,
                members=members,
                summary="spark-ultra",
            )
        )
        run.tell(RunInProgress())
        run.tell(StageStarted(("m1", "m2")), stage=DRAFT)
        for member in (M1, M2):
            run.lane(member.id, stage=DRAFT, member=member).keep()
            run.tell(ModelStarted(channel="secret-channel"), stage=DRAFT, member=member)
        return run

    def say(self, member: MemberRef, text: str) -> None:
        lane = self.run.lane(member.id)
        if not lane.chars["text"]:
            self.run.tell(ModelFirstToken(5), stage=DRAFT, member=member)
        lane.add("text", text)

    def finish(self, member: MemberRef) -> None:
        chars = self.run.lane(member.id).chars["text"]
        self.run.tell(ModelFinished("stop", chars, 9), stage=DRAFT, member=member)

    def begin_summary(self) -> None:
        self.run.tell(StageFinished(ended_by="all", duration_ms=9), stage=DRAFT)
        self.run.tell(StageStarted(("summary",)), stage=SUMMARY)
        self.run.tell(SummaryStarted("spark-ultra"), stage=SUMMARY)
        self.run.lane("summary", stage=SUMMARY, answer=True)

    def summarise(self, text: str) -> None:
        lane = self.run.lane("summary")
        if not lane.chars["text"]:
            self.run.tell(SummaryFirstToken(5), stage=SUMMARY)
        lane.add("text", text)

    def end(self) -> None:
        chars = self.run.lane("summary").chars["text"]
        self.run.tell(SummaryFinished("stop", chars, 9), stage=SUMMARY)
        self.run.tell(StageFinished(ended_by="all", duration_ms=9), stage=SUMMARY)
        self.run.tell(RunCompleted(answer_by="summary", finish_reason="stop", used=("m1", "m2")))

    def whole(self) -> Run:
        """The whole run at once."""
        self.begin()
        for member in (M1, M2):
            self.say(member, f"draft of {member.id}")
            self.finish(member)
        self.begin_summary()
        self.summarise("the answer")
        self.end()
        return self.run


class Site:
    """A server that is running. Runs are told into ``runs``."""

    def __init__(self, app: web.Application, port: int) -> None:
        self.app = app
        self.port = port
        self.runs: Runs = app[RUNS]

    def script(
        self,
        viewer: Viewer = ANONYMOUS,
        run_id: str | None = None,
        conversation_id: str | None = None,
    ) -> Script:
        return Script(self.runs, viewer, run_id, conversation_id)


@asynccontextmanager
async def site(
    settings: Settings | None = None, *, patience_s: float = PATIENCE_S, **events: object
) -> AsyncIterator[Site]:
    """Serve the application, for ``patience_s`` at most; ``events`` are settings of the status channel."""
    settings = settings or Settings()
    if events:
        settings = msgspec.structs.replace(settings, events=Events(**events))  # type: ignore[arg-type]
    app = create_app(settings)
    async with served(app, patience_s=patience_s) as port:
        yield Site(app, port)
