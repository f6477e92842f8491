"""One connection of the status channel: who it is, what it asks for, and how it ends.

Two tasks: one reads commands, the writer writes. Whatever ends one ends the connection, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Callable
from typing import Any, assert_never

import msgspec

from server.auth import Principal
from server.bus import ALL, topic_of
from server.errors import AuthenticationError, NotAllowed, NotFound, RateLimited, ServerError
from server.handlers import control
from server.handlers.status_audience import Audiences
from server.handlers.status_feed import (
    RunFeed,
    TopicFeed,
    chosen_includes,
    chosen_types,
    conversation_in,
    topic_snapshot,
)
from server.handlers.status_messages import (
    MAX_MESSAGE,
    Complete,
    Control,
    Init,
    Malformed,
    Message,
    Ping,
    Pong,
    Refresh,
    Subscribe,
    decode_message,
    encode_message,
)
from server.handlers.status_writer import Stop, Writer
from server.handlers.websocket import Closed, WebSocket
from server.run_log import Run, Runs
from server.settings import Events
from server.tickets import Ticket
from server.watchers import Watchers

log = logging.getLogger("antiphon.status")

COMMANDS_A_S, COMMANDS_AT_ONCE = 20.0, 128
"""Commands may come so fast; a client that comes back may subscribe to all that it had at once."""

MAX_CONTROLS = 16
"""Commands of one connection that wait for their effect."""

ACTIVE_RUNS = 100
"""Runs under way that the snapshot of a topic tells of."""

_OFFSET = re.compile(r"[0-9]{1,15}")


class Session:
    """``principal`` is who the handshake's key or ticket stands for, None if it brought none.

    ``authenticate`` looks a token up and raises ``AuthenticationError`` or ``NotAllowed``.
    """

    def __init__(
        self,
        socket: WebSocket,
        *,
        runs: Runs,
        watchers: Watchers,
        audiences: Audiences,
        settings: Events,
        authenticate: Callable[[str | None], Principal],
        principal: Principal | None,
        token: str | None,
        ticket: Ticket | None = None,
    ) -> None:
        self._socket = socket
        self._runs = runs
        self._watchers = watchers
        self._settings = settings
        self._authenticate = authenticate
        self._principal = principal
        self._token = token
        self._ticket = ticket
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(socket, settings, audiences, self._check_key)
        self._group: asyncio.TaskGroup
        self._controls: set[asyncio.Task[None]] = set()
        self._expected: dict[str, Callable[[], None]] = {}  # by subscription: what ends the waiting for a run
        self._budget = float(COMMANDS_AT_ONCE)
        self._budget_at = self._loop.time()

    async def run(self) -> None:
        """Serve the connection until it is over. Raises nothing but cancellation."""
        try:
            await self._begin()
            async with asyncio.TaskGroup() as self._group:
                writer = self._group.create_task(self._writer.run(), name="status writer")
                try:
                    await self._read()
                except Closed:
                    pass
                except Stop as stop:
                    self._writer.stop(stop)
                finally:
                    writer.cancel()
                    for task in self._controls:
                        task.cancel()
        except Closed:
            pass
        except Stop as stop:
            self._socket.close(stop.code, stop.reason)
        except asyncio.CancelledError:  # the server ends at once
            self._socket.close(1001, "shutdown")
            raise
        except Exception:  # the edge: a bug costs this connection, and nothing else
            log.exception("a status connection failed")
            self._socket.close(1011, "internal error")
        finally:
            self._watchers.remove(self)
            for end in self._expected.values():
                end()
            self._writer.close()
        await self._socket.wait_gone()

    def go_away(self) -> None:
        """The server ends: tell what there still is to tell, say so, and close."""
        after_ms = random.randrange(1000, 5000)  # not all at once
        farewell = encode_message("goaway", reason="shutdown", reconnect_after_ms=after_ms)
        self._writer.leave(farewell, Stop(1001, "shutdown"))

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(self._settings.init_timeout_s):
                message = self._decode(await self._socket.recv())
        except TimeoutError:
            raise Stop(4408, "no connection_init in time") from None
        if not isinstance(message, Init):
            raise Stop(4400, "connection_init comes first")
        if self._principal is None:
            self._token = message.token
            self._principal = self._look_up(message.token)
        try:
            self._watchers.add(self, self._principal.name, self._settings.max_connections)
        except RateLimited:
            raise Stop(4429, "too many connections") from None
        self._writer.reply(
            encode_message(
                "connection_ack",
                connection_id=f"c_{os.urandom(8).hex()}",
                epoch=self._runs.bus.epoch,
                ping_interval_ms=int(self._settings.idle_ping_s * 1000),
                limits={
                    "subscriptions": self._settings.max_subscriptions,
                    "inbound_bytes": MAX_MESSAGE,
                    "commands_per_second": int(COMMANDS_A_S),
                },
            )
        )

    async def _read(self) -> None:
        while True:
            message = self._decode(await self._socket.recv())
            now = self._loop.time()
            self._budget = min(COMMANDS_AT_ONCE, self._budget + (now - self._budget_at) * COMMANDS_A_S)
            self._budget_at = now
            self._budget -= 1
            if self._budget < 0:
                raise Stop(4429, "too many commands")
            self._carry_out(message)

    def _decode(self, text: str | bytes) -> Message:
        try:
            return decode_message(text)
        except Malformed as error:
            raise Stop(4400, f"malformed message: {error}"[:80]) from error

    def _carry_out(self, message: Message) -> None:
        match message:
            case Subscribe():
                self._subscribe(message)
            case Control():
                self._control(message)
            case Complete():
                self._expect_no_more(message.id)
                self._writer.remove(message.id)
            case Ping():
                self._writer.reply(encode_message("pong"))
            case Pong():
                pass  # that something came is noted where it came
            case Refresh():
                self._refresh(message)
            case Init():
                raise Stop(4400, "connection_init comes once")
            case _:
                assert_never(message)

    def _look_up(self, token: str | None) -> Principal:
        try:
            return self._authenticate(token)
        except AuthenticationError as error:
            raise Stop(4401, error.code) from None
        except NotAllowed as error:
            raise Stop(4403, error.code) from None

    def _check_key(self) -> Principal:
        """Look at the key again: it may have been taken back, or the configuration reloaded."""
        self._principal = self._look_up(self._token)
        return self._principal

    def _refresh(self, message: Refresh) -> None:
        fresh = self._look_up(message.token)
        if self._principal is None or fresh.name != self._principal.name:
            raise Stop(4403, "a fresh token has to be of the same key")
        self._principal, self._token = fresh, message.token

    def _subscribe(self, asked: Subscribe) -> None:
        if asked.id in self._writer.subscriptions or asked.id in self._expected:
            raise Stop(4409, "this id is in use")
        principal = self._check_key()
        if len(self._writer.subscriptions) + len(self._expected) >= self._settings.max_subscriptions:
            self._refuse(
                asked.id, "too_many_subscriptions", "End another subscription first.", retryable=True
            )
            return
        try:
            types = chosen_types(asked.types)
            include = chosen_includes(asked.include, admin=principal.admin)
            if (ticket := self._ticket) is not None:
                types = types if types is not None else ticket.types
                if not ticket.opens(asked.topic, types, include):
                    raise NotAllowed("The ticket was made for something else.", code="not_allowed")
            kind, _, name = asked.topic.partition(":")
            if kind == "run" and name:
                if asked.wait and asked.starting_after is None:  # it may have begun in between
                    asked = msgspec.structs.replace(asked, starting_after=0)
                try:
                    run = self._runs.get(name, principal)
                except NotFound:
                    if not asked.wait:
                        raise
                    self._expect(asked, name, include, types)
                else:
                    self._subscribe_to_run(asked, run, include, types)
            elif (
                asked.topic == "self"
                or conversation_in(asked.topic)
                or (asked.topic == ALL and principal.admin)
            ):
                self._subscribe_to_topic(asked, principal, include, types)
            elif asked.topic == ALL:
                self._refuse(asked.id, "not_allowed", "Only an admin's key may watch all runs.")
            else:
                self._refuse(
                    asked.id, "unknown_topic", "Topics are run:<id>, conversation:<id>, self and all."
                )
        except NotFound:
            self._writer.reply(encode_message("complete", asked.id, reason="not_found"))
        except ServerError as error:
            self._refuse(asked.id, error.code, error.message)

    def _expect(
        self, asked: Subscribe, run_id: str, include: frozenset[str], types: frozenset[str] | None
    ) -> None:
        """Subscribe when the run begins; say that there is none if it does not. A foreign run is none."""

        from_first = msgspec.structs.replace(asked, starting_after=0, cursors=None, epoch=None)

        def begun(run: Run) -> None:
            if self._principal is not None and (self._principal.admin or run.key == self._principal.name):
                self._expect_no_more(asked.id)
                self._subscribe_to_run(from_first, run, include, types)

        def waited() -> None:
            self._expect_no_more(asked.id)
            self._writer.reply(encode_message("complete", asked.id, reason="not_found"))

        end = self._runs.expect(run_id, begun)
        timer = self._loop.call_later(self._settings.expect_s, waited)

        def end_both() -> None:
            timer.cancel()
            end()

        self._expected[asked.id] = end_both

    def _expect_no_more(self, id: str) -> None:
        if (end := self._expected.pop(id, None)) is not None:
            end()

    def _subscribe_to_run(
        self, asked: Subscribe, run: Run, include: frozenset[str], types: frozenset[str] | None
    ) -> None:
        resuming = asked.starting_after is not None
        place = asked.starting_after if asked.starting_after is not None else run.head
        same_epoch = asked.epoch is None or asked.epoch == self._runs.bus.epoch
        recovered = resuming and same_epoch and run.first - 1 <= place <= run.head
        if not recovered:
            place = run.head
        # The feed first: it makes the run keep its texts, which the snapshot then tells of.
        cursors = (asked.cursors or {}) if recovered else None
        feed = RunFeed(run, place, include=include, types=types, cursors=cursors)
        fields: dict[str, Any] = {"head": run.head, "recovered": recovered, "was_recovering": resuming}
        if not recovered:
            fields["snapshot"] = run.snapshot(include)
        self._writer.reply(encode_message("subscribed", asked.id, **fields))
        self._writer.add(asked.id, feed)

    def _subscribe_to_topic(
        self,
        asked: Subscribe,
        principal: Principal,
        include: frozenset[str],
        types: frozenset[str] | None,
    ) -> None:
        everyone = asked.topic == ALL
        topic = self._runs.bus.topic(ALL if everyone else topic_of(principal.name))
        talk = conversation_in(asked.topic)
        active = self._runs.active(principal, everyone=everyone, limit=ACTIVE_RUNS, conversation_id=talk)
        place = int(asked.offset) if asked.offset is not None and _OFFSET.fullmatch(asked.offset) else -1
        resuming = asked.offset is not None
        same_epoch = asked.epoch == self._runs.bus.epoch
        recovered = resuming and same_epoch and topic.first - 1 <= place <= topic.head
        if not recovered:
            place = topic.head
        feed = TopicFeed(
            topic,
            self._runs,
            place,
            include=include,
            types=types,
            under_way=active,
            cursors=asked.cursors if recovered else None,
            conversation_id=talk,
        )
        fields: dict[str, Any] = {"head": str(topic.head), "recovered": recovered, "was_recovering": resuming}
        if not recovered:
            fields["snapshot"] = topic_snapshot(active, include)
        self._writer.reply(encode_message("subscribed", asked.id, **fields))
        self._writer.add(asked.id, feed)

    def _control(self, asked: Control) -> None:
        if asked.verb not in ("cancel_run", "cancel_member", "answer_now"):
            raise Stop(4400, "unknown verb")
        if asked.verb == "cancel_member" and asked.member is None:
            self._refuse(asked.id, "invalid_value", "Say which member is to be cancelled.")
            return
        principal = self._check_key()
        if self._ticket is not None:
            self._refuse(asked.id, "not_allowed", "A ticket is for watching; bring a key.")
            return
        try:
            run = self._runs.get(asked.run_id, principal)
        except NotFound as error:
            self._refuse(asked.id, error.code, error.message)
            return
        if len(self._controls) >= MAX_CONTROLS:
            self._refuse(asked.id, "too_many_commands", "Wait for a result first.", retryable=True)
            return
        task = self._group.create_task(self._steer(asked, run, principal), name="control")
        self._controls.add(task)
        task.add_done_callback(self._controls.discard)

    async def _steer(self, asked: Control, run: Run, principal: Principal) -> None:
        try:
            if asked.verb == "cancel_run":
                took_effect = await control.cancel_run(run, principal)
            elif asked.verb == "cancel_member":
                took_effect = await control.cancel_member(run, principal, asked.member or "")
            else:
                took_effect = await control.answer_now(run, principal)
        except ServerError as error:
            self._refuse(asked.id, error.code, error.message, retryable=error.status == 409)
            return
        self._writer.reply(
            encode_message(
                "result", asked.id, verb=asked.verb, run_id=run.id, effect=took_effect, status=run.status
            )
        )

    def _refuse(self, id: str, code: str, message: str, *, retryable: bool = False) -> None:
        self._writer.reply(encode_message("error", id, code=code, message=message, retryable=retryable))
