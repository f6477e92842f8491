"""Strategies ``race`` and ``fallback``: one member's answer goes out live, and nothing is glued to it.

What a member says is held until it has proved healthy. From then on it is the answer, whatever becomes of it:
a failure after that is the client's to see. The others are given up at that moment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Sequence

from server.coordinator.coordinator import Answer, Coordinator
from server.coordinator.member import MemberCall
from server.coordinator.outcomes import Draft, Failure, Gathered, told_failures
from server.coordinator.summary import is_of_the_call
from server.deltas import Batch, Delta, Finished, TextDelta, ToolCallDelta, has_content
from server.errors import ContentFiltered, ServerError, UpstreamInvalid
from server.events import DecisionMade, StageDeadlineReached

# Some servers tell of their failures in the text of an answer.
_ERROR = re.compile(r'\s*(?:\{\s*"error"\s*:|Error: )')
# Failures after which strategy fallback goes on only where it was told to.
_BY_CODE = {"content_filter": "content_filter", "context_length_exceeded": "context_length"}


class _Course:
    """Hears the members of one race, holds what they say, and lets the winner's answer out."""

    def __init__(self, run: Coordinator, *, chars: int, after_s: float, spoke: Callable[[int], None]) -> None:
        self.winner: int | None = None
        self._run = run
        self._chars = chars
        self._after_s = after_s
        self._spoke = spoke
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, list[Delta]] = {}
        self._text: dict[int, str] = {}
        self._sound: dict[int, float] = {}  # place → when it first said something
        self._sending = asyncio.Lock()  # what was held leaves before what comes

    async def hear(self, place: int, batch: Batch) -> None:
        """See ``Live``."""
        batch = [delta for delta in batch if not is_of_the_call(delta)]
        if self.winner == place:
            if batch:
                await self._send(batch)
            return
        if self.winner is not None:
            return
        self._held.setdefault(place, []).extend(batch)
        text = "".join(one.text for one in batch if type(one) is TextDelta)
        self._text[place] = text = self._text.get(place, "") + text
        if _ERROR.match(text):
            raise UpstreamInvalid("The model answered with the text of an error.")
        if not has_content([one for one in batch if type(one) is not Finished]) and place not in self._sound:
            return
        if place not in self._sound:
            self._sound[place] = self._loop.time()
            self._spoke(place)
        calls_tool = any(type(one) is ToolCallDelta for one in self._held[place])
        if len(text) >= self._chars or calls_tool or self._loop.time() - self._sound[place] >= self._after_s:
            self.let_win(place)
            await self.flush()

    def end(self, place: int, reason: str) -> None:
        """See ``Live``: the member has ended. If it is no winner by then, its draft may still make it one."""

    def has_spoken(self, place: int) -> bool:
        """Has the member said anything yet?"""
        return place in self._sound

    def let_win(self, place: int) -> None:
        """This member's answer goes out; ``flush`` lets it."""
        self.winner = place
        self._spoke(place)

    async def flush(self) -> None:
        """Send what was held of the winner."""
        assert self.winner is not None
        held = self._held.pop(self.winner, [])
        self._held.clear()
        if held:
            await self._send(held)

    def next_proof(self, places: Collection[int]) -> tuple[float, int] | None:
        """When, and who, will have said something for long enough; None if nobody speaks."""
        times = [(at + self._after_s, place) for place, at in self._sound.items() if place in places]
        return min(times, default=None)

    async def _send(self, batch: Sequence[Delta]) -> None:
        if any(type(delta) is TextDelta for delta in batch):
            self._run.book.text_began()
        async with self._sending:
            await self._run.answer.send(batch)


class _Race:
    """One draft stage in which the first healthy member wins; the next starts when the last is too slow.

    ``start_after`` gives the seconds that a member may be silent before the next one starts: 0 starts them
    all at once, None waits for its failure. ``moves_on`` says whether another may be asked after a failure.
    """

    def __init__(
        self,
        run: Coordinator,
        *,
        chars: int,
        confirm_s: float,
        start_after: Callable[[str], float] | None,
        moves_on: Callable[[Failure], bool],
        method: str,
    ) -> None:
        self._method = method
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._start_after = start_after
        self._moves_on = moves_on
        self._course = _Course(run, chars=chars, after_s=confirm_s, spoke=self._note)
        self._scatter = run.scatter(
            "draft", [(one, run.request(one)) for one in run.plan.calls], live=self._course
        )
        self._began: dict[int, float] = {}
        self._hedged_s = 0.0
        self._next_at: float | None = None

    async def run(self) -> tuple[MemberCall | None, Gathered]:
        """The winner, when it has ended; None if there is none. The stage has ended too."""
        scatter, run = self._scatter, self._run
        try:
            ended_by, winner = await self._until_won()
            if winner is not None:
                scatter.gathers = False
                winner.log.becomes_answer()
                run.book.run.tell(
                    DecisionMade(method=self._method, winner=winner.planned.id), stage=scatter.stage
                )
                for loser in scatter.members:
                    if loser is not winner:
                        loser.skip("not_needed")
                        loser.give_up("lost_race")
                await self._course.flush()
                while winner.outcome is None:
                    await scatter.change(None)
        except asyncio.CancelledError:
            scatter.end(scatter.why(), "cancelled")
            raise
        for member in scatter.members:
            member.skip("not_needed")
        scatter.end(ended_by, "winner" if winner is not None else ended_by)
        run.book.drafts_ms = run.book.run.elapsed_ms
        return winner, Gathered(run.plan, scatter.stage, scatter.outcomes, ended_by)

    @property
    def refused(self) -> ServerError | None:
        """The failure after which nobody else was asked, though there were others."""
        errors = [one.error for one in self._scatter.members if one.error is not None]
        spared = any(one.log.state == "skipped" and one.error is None for one in self._scatter.members)
        return errors[-1] if spared and errors else None

    async def _until_won(self) -> tuple[str, MemberCall | None]:
        """What ended the waiting, and who won."""
        scatter, course = self._scatter, self._course
        self._start_next()
        while course.winner is None:
            if (won := self._finished()) is not None:
                course.let_win(won.planned.place)
                break
            if not scatter.running:
                failed = [one.outcome for one in scatter.members if isinstance(one.outcome, Failure)]
                if not scatter.waiting or not (failed and self._moves_on(failed[-1])):
                    return "all", None
                self._start_next()
                continue
            until, proof = self._run.deadline, course.next_proof({m.planned.place for m in scatter.running})
            if scatter.hurried:
                if proof is None:
                    return "answer_now", None
                course.let_win(proof[1])  # whoever speaks, instead of the beginning of what is said
                break
            times = [time for time in (until, self._next_at, proof and proof[0]) if time is not None]
            if await scatter.change(min(times)):
                continue
            now = self._loop.time()
            if proof is not None and now >= proof[0]:
                course.let_win(proof[1])
            elif self._next_at is not None and now >= self._next_at:
                self._hedge()
            elif now >= until:
                data = StageDeadlineReached(scatter.complete, len(scatter.members))
                self._run.book.run.tell(data, stage=scatter.stage)
                return "deadline", None
        return "winner", next(one for one in scatter.members if one.planned.place == course.winner)

    def _finished(self) -> MemberCall | None:
        """A member whose whole answer is there, however short it is."""
        return next(
            (one for one in self._scatter.members if isinstance(one.outcome, Draft) and one.outcome.complete),
            None,
        )

    def _start_next(self) -> None:
        """Start the next member, or with no delay between them all that are left."""
        self._next_at = None
        for member in self._scatter.waiting:
            self._began[member.planned.place] = self._loop.time()
            self._scatter.start(member)
            if self._start_after is None:
                return
            wait_s = self._start_after(member.planned.model)
            if wait_s:
                self._hedged_s = wait_s
                self._next_at = self._loop.time() + wait_s if self._scatter.waiting else None
                return

    def _hedge(self) -> None:
        """The last member has been silent for too long: tell, and start the next one beside it."""
        self._next_at = None
        last = self._scatter.running[-1]
        if self._course.has_spoken(last.planned.place):
            return
        after = self._scatter.waiting[0].planned
        last.log.hedged(round(self._hedged_s * 1000), after.id)
        self._start_next()

    def _note(self, place: int) -> None:
        """A member has said its first word, or won."""
        began = self._began.pop(place, None)
        if began is not None:
            model = self._run.plan.calls[place].model
            self._run.patience.note(model, self._loop.time() - began)
        self._scatter.note()


async def race(run: Coordinator) -> Answer:
    """The first member whose content proves healthy is the answer; the others are cancelled."""
    settings = run.plan.settings.race
    after = settings.hedge_after
    contest = _Race(
        run,
        chars=settings.confirm_chars,
        confirm_s=settings.confirm_ms / 1000,
        start_after=run.patience.p95 if isinstance(after, str) else lambda _: after / 1000,
        moves_on=lambda _: True,
        method="race",
    )
    return await _answer(run, contest)


async def fallback(run: Coordinator) -> Answer:
    """The members in order; the next one is asked when one fails before its first word."""
    on = run.plan.settings.fallback.move_on_after
    contest = _Race(
        run,
        chars=1,
        confirm_s=0,
        start_after=None,
        moves_on=lambda failure: _class_of(failure) in on,
        method="accept",
    )
    return await _answer(run, contest)


async def _answer(run: Coordinator, contest: _Race) -> Answer:
    winner, gathered = await contest.run()
    book = run.book
    # Who was not needed, or lost, did not fail.
    spared = ("not_needed",) if gathered.ended_by == "deadline" else ("not_needed", "cancelled")
    failed = [one for one in gathered.failures if one.code not in spared]
    book.failures = told_failures(failed)
    if winner is None:
        # At the deadline others were not asked for lack of time, whatever the last failure was.
        refused = contest.refused if gathered.ended_by == "all" else None
        if refused is not None:
            raise refused
        usable = Gathered(run.plan, gathered.stage, (*gathered.drafts, *failed), gathered.ended_by)
        usable.require()
        book.degrade("partial", usable.reason, [one.call.id for one in usable.failures])
        return await run.send_draft(usable.drafts[0])
    error = winner.error
    if error is not None and not isinstance(error, ContentFiltered):
        raise error  # it was the answer already
    if failed := [one for one in failed if one.call is not winner.planned]:
        book.degrade("quorum", "failed", [one.call.id for one in failed])
    id = winner.planned.id
    return Answer(id, winner.log.finish_reason or "stop", (id,))


def _class_of(failure: Failure) -> str:
    if failure.code in _BY_CODE:
        return _BY_CODE[failure.code]
    # The request itself is at fault: others would refuse it too. A 404 is of one model, or one address.
    return "upstream" if failure.http_status not in (400, 413, 422) else "request"
