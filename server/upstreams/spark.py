"""Kind ``spark``: iFlytek Spark over its signed websocket, one connection for each chat.

What the frames mean is ``spark_ws``'s; here they are fetched. Each dial signs its own URL. A refusal for our
clock teaches us Spark's, and the dial is repeated once with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from server.chat import ChatRequest
from server.deltas import Batch, Delta, has_content
from server.errors import AuthenticationError, ServerError, UpstreamInvalid, UpstreamTimeout
from server.openai_wire import clean, narrowed, retry_after
from server.settings import Channel, ParamRules, Timeouts
from server.spark.conversation import MAX_IMAGE_BYTES
from server.spark_ws import (
    MAX_FRAME_BYTES,
    Credentials,
    SparkModel,
    SparkOptions,
    SparkProtocol,
    clock_offset,
    end_user_id,
    find_model,
    handshake_error,
    is_clock_refusal,
    request_frame,
    signed_url,
    with_overrides,
)
from server.tasks import TaskOwner
from server.upstreams.base import Call, OwnTimeouts
from server.upstreams.clocks import Clocks, Patrol
from server.upstreams.http import tls_context, unanswered, unreachable
from server.upstreams.image_fitting import Bounds
from server.upstreams.image_source import ImageSource
from server.upstreams.params import Params

log = logging.getLogger("antiphon.upstream")

# So long a closing handshake may take; a call that was cancelled is gone within 50 ms. (seconds)
CLOSE_S = 0.02
# At debug the library writes the signed URL.
_SOCKET_LOG = logging.getLogger("antiphon.upstream.socket")
_SOCKET_LOG.setLevel(logging.WARNING)

# Of image understanding: jpg or png of 4 MB, a side of 12800, 50 x 50 to 6000 x 6000 pixels in all.
IMAGE_BOUNDS = Bounds(
    types=frozenset({"image/jpeg", "image/png"}),
    max_bytes=MAX_IMAGE_BYTES,
    max_side=12_800,
    max_pixels=6000 * 6000,
    min_pixels=50 * 50,
)


class _Dial(connect):
    """One dial: a redirect is a refusal, for the signature is good for one address only."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Socket(ClientConnection):
    """One connection, which tells of the other side's closing frame as it comes.

    The library tells of a closing only when all is over, a round trip later.
    """

    goodbye: Callable[[], None] | None = None

    def process_event(self, event: Event) -> None:
        """See the library."""
        super().process_event(event)
        if self.goodbye is not None and isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
            self.goodbye()


class SparkUpstream:
    """One channel of kind ``spark``. ``aclose`` ends the connections that are still closing.

    ``images`` gives its requests their images; it belongs to whoever made it.
    """

    def __init__(self, channel: Channel, images: ImageSource) -> None:
        self.name = channel.name
        self._images = images
        self._patrol = Patrol(asyncio.get_running_loop())
        self._channel = channel
        self._timeouts = OwnTimeouts(channel)
        self._names = {name: model.model or name for name, model in channel.served().items()}
        self._models = with_overrides(channel.spark.models)
        self._options = SparkOptions(
            web_search=channel.spark.web_search,
            warned=channel.spark.warned,
            legacy_fields=channel.spark.legacy_fields,
        )
        # Where a warning changes nothing, none is waited for.
        warns = channel.spark.warned == "content_filter"
        self._warning_wait_s = channel.spark.warning_wait_s if warns else 0.0
        self._own = Credentials(channel.app_id or "", channel.api_key or "", channel.api_secret or "")
        self._params = Params(channel.params) if channel.params != ParamRules() else None
        self._skew = timedelta()  # how far Spark's clock is ahead of ours, as far as we were told
        self._closing = TaskOwner()

    @property
    def unavailable(self) -> str | None:
        """Always None: whether Spark answers is only known by asking it."""
        return None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        model = self._model(chat)
        credentials = call.credentials or self._own
        if not credentials.app_id:
            raise AuthenticationError(
                "This model wants your own Spark credentials: send X-APP-ID, X-API-KEY and X-API-SECRET.",
                code="missing_api_key",
            )
        call_id = secrets.token_hex(8)
        timeouts = self._timeouts.of(call)
        deadline = _deadline(timeouts, call)
        told: tuple[str, ...] = ()
        if model.vision:
            chat, told = await self._with_image(chat, call, deadline)
        if chat.wide:
            chat, foreign = narrowed(chat, keep=("thinking",))
            told += foreign
        request = request_frame(
            chat if self._params is None else chat.edit(self._params.changes(chat)),
            model,
            credentials,
            uid=end_user_id(chat.fields.user, call_id),
            options=self._options,
        )
        if told := told + request.warnings:
            call.adapted(self.name, told)
            log.info("channel %s: adapted: %s", self.name, "; ".join(told))
        protocol = SparkProtocol.answering(
            request, answer_id=call_id, callers_own=credentials.callers_own, options=self._options
        )
        # Spark always streams, so its silence is told even where the client waits for a whole answer.
        clocks = Clocks(self._patrol, timeouts, plain=False, deadline=deadline)
        socket: _Socket | None = None
        try:
            async with asyncio.timeout_at(clocks.head_by):
                socket = await self._open(model, credentials, timeouts.connect_s)
                await _send(socket, request.data)
            reading = _Reading(socket, protocol, clocks, self._warning_wait_s)
            if chat.stream:
                while batch := await reading.next():
                    clocks.pause()
                    yield batch
                    clocks.heard()
            else:
                whole: list[Delta] = []
                while batch := await reading.next():
                    whole += batch
                yield whole
        except ServerError as error:
            names = {self._names.get(chat.model, chat.model): chat.model}
            error.message = clean(error.message, secrets=_secrets(credentials), names=names)
            raise
        except TimeoutError as error:
            raise clocks.error() from error
        finally:
            clocks.stop()
            if socket is not None:
                self._close(socket)

    async def aclose(self) -> None:
        """End what is still closing."""
        self._patrol.stop()
        await self._closing.aclose()

    async def _with_image(
        self, chat: ChatRequest, call: Call, deadline: float | None
    ) -> tuple[ChatRequest, tuple[str, ...]]:
        """The request with its image inside, and what was done to the images."""
        if call.inlined is None or not call.inlined.suits(chat, IMAGE_BOUNDS):
            call.inlined = await self._images.inline(
                chat, IMAGE_BOUNDS, deadline=deadline, shared=call.images
            )
        told: tuple[str, ...] = (call.inlined.warning,) if call.inlined.warning else ()
        if (older := sum(len(message.images) for message in chat.messages) - 1) > 0:
            told += (f"{older} older image{'s were' if older > 1 else ' was'} left out",)
        return call.inlined.chat, told

    def _model(self, chat: ChatRequest) -> SparkModel:
        raw = chat.json.raw("version") if chat.model == "spark-api" else None
        version = msgspec.json.decode(raw) if raw is not None else None
        text = None if version is None else str(version)
        model = find_model(self._names.get(chat.model, chat.model), text, self._models)
        if self._channel.base_url is None:
            return model
        origin, path = urlsplit(self._channel.base_url), urlsplit(model.url).path
        url = urlunsplit((origin.scheme, origin.netloc, origin.path.rstrip("/") + path, "", ""))
        return msgspec.structs.replace(model, url=url)

    async def _open(self, model: SparkModel, credentials: Credentials, connect_s: float) -> _Socket:
        """A connection; where our clock is refused, once more by Spark's own."""
        try:
            return await self._dial(model, credentials, connect_s)
        except InvalidStatus as refusal:
            learned = self._learn_clock(refusal)
            if not learned:
                raise _refused(refusal, credentials) from refusal
        try:
            return await self._dial(model, credentials, connect_s)
        except InvalidStatus as refusal:
            raise _refused(refusal, credentials) from refusal

    async def _dial(self, model: SparkModel, credentials: Credentials, connect_s: float) -> _Socket:
        """One dial. Raises ``InvalidStatus`` if it was refused in good order, else one of our errors."""
        secure: dict[str, Any] = {}  # the library refuses the word for ws://, even with None
        if model.url.startswith("wss:"):
            secure["ssl"] = tls_context(self._channel.tls)
        try:
            url = signed_url(model.url, credentials, datetime.now(UTC) + self._skew)
            made = await _Dial(
                url,
                create_connection=_Socket,
                open_timeout=connect_s or None,
                close_timeout=CLOSE_S,
                ping_interval=None,  # Spark ends a socket that only pings; our clocks notice a silent one
                compression=None,
                max_size=MAX_FRAME_BYTES,
                proxy=self._channel.proxy,
                user_agent_header="antiphon",
                logger=_SOCKET_LOG,
                **secure,
            )
            return cast(_Socket, made)
        except InvalidStatus:
            raise
        except (InvalidURI, InvalidProxy, ValueError):  # their words hold the signed URL, or a password
            raise unreachable() from None
        except ProxyError as error:
            raise unreachable() from error
        except InvalidMessage as error:
            raise unanswered() from error
        except InvalidHandshake as error:
            raise UpstreamInvalid("Spark's address speaks no websocket; check the url.") from error
        except TimeoutError as error:  # before OSError, which it is a kind of
            raise UpstreamTimeout("connect", connect_s) from error
        except OSError as error:
            raise unreachable() from error

    def _learn_clock(self, refusal: InvalidStatus) -> bool:
        """Was it refused for our clock, and do we know better now?"""
        response = refusal.response
        if not is_clock_refusal(response.status_code, bytes(response.body or b"")):
            return False
        offset = clock_offset(_headers(refusal).get("date"), datetime.now(UTC))
        if offset is not None:
            self._skew = offset
        return offset is not None

    def _close(self, socket: ClientConnection) -> None:
        """Close it beside the caller, who does not wait for Spark's part in it."""
        try:
            self._closing.create(_close(socket), name=f"close:{self.name}")
        except RuntimeError:  # the owner is closed: the server ends
            socket.transport.abort()


class _Reading:
    """Reads one answer. A clock that runs out ends it.

    ``warning_wait_s``: so long is listened behind the last frame for what moderation has to say, unless Spark
    closes before. What had already come by then is read in any case.
    """

    def __init__(
        self, socket: _Socket, protocol: SparkProtocol, clocks: Clocks, warning_wait_s: float
    ) -> None:
        self._socket = socket
        self._protocol = protocol
        self._clocks = clocks
        self._warning_wait_s = warning_wait_s
        self._expired: UpstreamTimeout | None = None
        self._spoken = False
        clocks.watch(self._expire)

    async def next(self) -> Batch:
        """The next deltas; none when the answer is whole. Raises a ``ServerError`` where it is not."""
        protocol = self._protocol
        while not (protocol.done or protocol.complete):
            try:
                frame = await self._socket.recv(decode=False)
            except ConnectionClosed as closed:
                if self._expired is not None:
                    raise self._expired from None
                if closed.sent is not None and closed.sent.code == 1009:  # message too big
                    raise UpstreamInvalid("Spark sent a frame that is far too long.") from closed
                return protocol.closed()
            if deltas := protocol.receive(frame):
                if not self._spoken and has_content(deltas):
                    self._spoken = True
                    self._clocks.spoken()
                self._clocks.heard()
                return deltas
            self._clocks.heard()
        return protocol.closed() if protocol.done else await self._end()

    async def _end(self) -> Batch:
        """The end of a complete answer, as soon as nothing more can come, or need be waited for."""
        socket, protocol = self._socket, self._protocol
        late: list[Delta] = []
        try:
            async with asyncio.timeout(self._warning_wait_s) as waiting:
                socket.goodbye = partial(_expire_now, waiting)
                if socket.state is not State.OPEN:  # it has said goodbye already
                    socket.goodbye()
                while not protocol.done:
                    late += protocol.receive(await socket.recv(decode=False))
        except (TimeoutError, ConnectionClosed):
            pass  # all was said before
        finally:
            socket.goodbye = None
        return [*late, *protocol.closed()]

    def _expire(self, error: UpstreamTimeout) -> None:
        self._expired = error
        self._socket.transport.abort()


def _expire_now(timeout: asyncio.Timeout) -> None:
    if not timeout.expired():  # else it cannot be set any more
        timeout.reschedule(asyncio.get_running_loop().time())


async def _close(socket: ClientConnection) -> None:
    """Say goodbye, and be gone in time whatever the other side does.

    The library's own limit does not hold where what was sent before fills the socket.
    """
    try:
        async with asyncio.timeout(CLOSE_S):
            await socket.close()
    except TimeoutError:
        pass  # it had its chance
    finally:
        socket.transport.abort()


async def _send(socket: ClientConnection, data: bytes) -> None:
    try:
        await socket.send(data, text=True)
    except ConnectionClosed as error:
        raise unanswered() from error


def _deadline(timeouts: Timeouts, call: Call) -> float | None:
    """When the attempt must be over, the fetching of its image included (event loop time, seconds)."""
    if not timeouts.total_s:
        return call.deadline
    total_by = asyncio.get_running_loop().time() + timeouts.total_s
    return total_by if call.deadline is None else min(total_by, call.deadline)


def _secrets(own: Credentials) -> tuple[str, ...]:
    return tuple(filter(None, (own.api_secret, own.api_key, own.app_id)))


def _refused(refusal: InvalidStatus, credentials: Credentials) -> ServerError:
    status, body = refusal.response.status_code, bytes(refusal.response.body or b"")
    wait_s = retry_after(_headers(refusal), now=time.time)
    return handshake_error(status, body, callers_own=credentials.callers_own, wait_s=wait_s)


def _headers(refusal: InvalidStatus) -> dict[str, str]:
    """By names in small letters; where one comes twice, which the library does not bear, the last counts."""
    return {name.lower(): value for name, value in refusal.response.headers.raw_items()}
