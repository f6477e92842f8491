"""Channels whose vendors take images only inside the request: those on the web are fetched first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from server.chat import ChatRequest
from server.deltas import Batch
from server.foreign import NativeRequest
from server.openai_wire import narrowed
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.http import HttpClient
from server.upstreams.http_upstream import HttpUpstream
from server.upstreams.image_fitting import Bounds
from server.upstreams.image_source import ImageSource


class InliningUpstream(HttpUpstream):
    """See ``HttpUpstream``. ``images`` belongs to whoever made it.

    A subclass puts a request into its dialect (``in_dialect``). ``bounds`` is what an image must fit;
    ``held`` tells which URLs the vendor finds by itself, ``knows`` names fields of Anthropic's dialect that
    are put into it, too.
    """

    bounds: Bounds
    knows: tuple[str, ...] = ()

    def __init__(
        self, channel: Channel, client: HttpClient, images: ImageSource, held: Callable[[str], bool]
    ) -> None:
        super().__init__(channel, client)
        self._images = images
        self._held = held

    @abstractmethod
    def in_dialect(self, chat: ChatRequest) -> NativeRequest:
        """The request in the vendor's dialect; its images are inside, and no other dialect's fields."""

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """What is sent for ``chat``. What had to be adapted is told, in names of fields alone."""
        done = self._done_to_images(chat, call)
        foreign: tuple[str, ...] = ()
        if chat.wide:
            chat, foreign = narrowed(chat, keep=self.knows)
        if self._params is not None:
            chat = chat.edit(self._params.changes(chat))
        request = self.in_dialect(chat)
        if warnings := (*done, *foreign, *request.warnings):
            self._tell_adapted(call, warnings)
        return request.body

    def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        if _shows(chat):
            return self._stream_of_shown(chat, call)
        return super().stream(chat, call)

    async def whole(self, chat: ChatRequest, call: Call) -> Batch:
        """The answer to a plain request, as one batch; see ``upstreams.base.whole``."""
        if _shows(chat):
            chat = await self._with_images(chat, call)
        return await super().whole(chat, call)

    async def _stream_of_shown(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        inlined = await self._with_images(chat, call)
        async with aclosing(super().stream(inlined, call)) as batches:
            async for batch in batches:
                yield batch

    async def _with_images(self, chat: ChatRequest, call: Call) -> ChatRequest:
        """The request with its images inside; the next attempt of the same call uses them again."""
        made = call.inlined
        if made is not None and made.chat is chat:
            return chat
        if made is None or not made.suits(chat, self.bounds):
            made = await self._images.inline_all(
                chat, self.bounds, self._held, deadline=call.deadline, shared=call.images
            )
            call.inlined = made
        return made.chat

    def _done_to_images(self, chat: ChatRequest, call: Call) -> tuple[str, ...]:
        """A warning, if the images of the request had to be made to fit."""
        made = call.inlined
        return (made.warning,) if made is not None and made.chat is chat and made.warning else ()


def _shows(chat: ChatRequest) -> bool:
    """Are there images in it that may have to be fetched or converted?"""
    return any(message.images for message in chat.messages)
