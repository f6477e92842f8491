"""Deltas → the items of a response, and the events that tell of them.

One state machine for the stream and for the whole response, so the two cannot differ. An item ends when the
next begins, but for a call whose arguments are not whole yet: where an upstream sends the pieces of several
calls in turns, these items are open side by side.
"""

from __future__ import annotations

from typing import Any, assert_never

from server.deltas import (
    Batch,
    Delta,
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import UpstreamInvalid
from server.openai_wire import Details, Kept, LeftOut, kept_in, sealed
from server.responses_wire.parts import Item, annotation_of, is_whole, part_of, picture_of
from server.responses_wire.response import status_of

Event = dict[str, Any]
"""An event without its number."""


_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "image_generation_call": "ig"}


class Output:
    """One answer as items, whose ids begin with the response's own ``stem``.

    What must come back as it is, signed thoughts and what a vendor puts beside a call, is sealed in the
    ``encrypted_content`` of an item of reasoning. ``summaries``: thoughts are told as their summary, which is
    what clients of the vendor's models see.
    ``reason`` and ``usage`` are known after the last batch, as is what was ``left`` out.
    """

    def __init__(self, stem: str, *, summaries: bool) -> None:
        self.reason = "stop"
        self.usage: Usage | None = None
        self.left = LeftOut()
        self._stem = stem
        self._summaries = summaries
        self._items: list[Item] = []
        self._open: Item | None = None  # the message or the thoughts under way
        self._calls: dict[int, Item] = {}
        self._told_whole = False  # have the thoughts come whole, before any of their pieces?
        self._sources: list[dict[str, Any]] = []  # that wait for their text
        self._length = 0  # of the text, in characters
        self._before = 0  # of that what stands before the part under way
        self._extras: dict[int, Any] = {}  # by position, of calls that have not begun
        self._details = Details()
        self._call: Item | None = None  # the one that came last, while nothing came behind it

    def say(self, batch: Batch) -> list[Event]:
        """The events of a batch. Only the first choice is heard: no other can be asked for."""
        events: list[Event] = []
        for delta in batch:
            original = delta.original
            if original is not None and original.data and (kept := kept_in(original.data)) is not None:
                self._take_kept(kept, events, whole=original.form == "openai.completion")
            if type(delta) in (TextDelta, ToolCallDelta, Finished) and (details := self._details.take()):
                self._keep([{"reasoning_details": details}], events)
            self._take(delta, events)
            if self._sources:
                self._cite(events)
        return events

    def end(self) -> list[Event]:
        """The answer is complete: what is still open ends."""
        events: list[Event] = []
        status = status_of(self.reason)
        if self._sources:
            self.left.note(["annotations"])
        if self._details.lost:
            self.left.note(["reasoning_details"])
        for item in self._items:
            if not item.ended:
                self._finish(item, events, status)
        return events

    def items(self) -> list[dict[str, Any]]:
        """All items as they stand; of those that have not ended, what there is."""
        return [item.fields or self._fields(item, "incomplete") for item in self._items]

    def _take(self, delta: Delta, events: list[Event]) -> None:
        match delta:
            case TextDelta(text, 0):
                if text:
                    self._words("output_text", text, events)
            case RefusalDelta(text, 0):
                if text:
                    self._words("refusal", text, events)
            case ReasoningDelta(text, 0):
                if text and not self._told_whole:
                    self._think(text, events)
            case ToolCallDelta() if delta.index == 0:
                self._take_call(delta, events)
            case Finished(reason, 0):
                self.reason = reason
            case UsageDelta(usage):
                self.usage = usage
            case Finished():
                self.left.note(["choices"], "but the first were left out")
            case Extra() | Opening() | TextDelta() | RefusalDelta() | ReasoningDelta() | ToolCallDelta():
                pass
            case _ as never:
                assert_never(never)

    def _take_kept(self, kept: Kept, events: list[Event], *, whole: bool) -> None:
        """What stands beside the deltas. ``whole``: all of the answer has come at once."""
        self.left.note(kept.left)
        self._extras |= kept.extras
        self._sources += kept.sources
        if kept.blocks:
            self._keep(kept.blocks, events, whole=whole)
            kinds = [str(block.get("type")) for block in kept.blocks]
            self.left.note(
                [kind for kind in kinds if not kind.endswith("thinking")], "is in encrypted_content alone"
            )
        self._details.add(kept.details)
        if kept.thought:
            self._take(ReasoningDelta(kept.thought), events)
        if kept.transcript:
            self._words("output_text", kept.transcript, events)
        for call in kept.calls:
            self._take_call(call, events)
        for uri in kept.images:
            self._show(uri, events)
        if kept.extra:
            self._keep([{"extra_content": kept.extra}], events)

    def _show(self, uri: str, events: list[Event]) -> None:
        """A picture: an item of its own, or by its link within the text."""
        picture = picture_of(uri)
        if picture is None:
            self._words("output_text", f"![image]({uri})", events)
            return
        format, data = picture
        item = self._begin("image_generation_call", events, name=format)
        place = {"item_id": item.id, "output_index": item.index}
        events.append({"type": "response.image_generation_call.in_progress", **place})
        item.pieces.append([data])
        self._finish(item, events, "completed")

    # What is said

    def _words(self, kind: str, text: str, events: list[Event]) -> None:
        item = self._open
        if item is None or item.kind != "message":
            item = self._open = self._begin("message", events)
        if not item.parts or item.parts[-1] != kind:
            if item.parts:
                self._finish_part(item, events)
            item.parts.append(kind)
            self._before = self._length
            item.pieces.append([])
            part = part_of(kind, "", [])
            events.append(self._within(item, "response.content_part.added", part=part))
        item.pieces[-1].append(text)
        self._length += len(text)
        event = self._within(item, f"response.{kind}.delta", delta=text)
        if kind == "output_text":
            event["logprobs"] = []
        events.append(event)

    def _finish_part(self, item: Item, events: list[Event]) -> None:
        kind, text, sources = item.parts[-1], item.text(-1), item.sources.get(len(item.parts) - 1, [])
        if kind == "output_text":
            events.append(self._within(item, "response.output_text.done", text=text, logprobs=[]))
        else:
            events.append(self._within(item, "response.refusal.done", refusal=text))
        events.append(self._within(item, "response.content_part.done", part=part_of(kind, text, sources)))

    def _cite(self, events: list[Event]) -> None:
        """Sources belong to the text under way; those that come before it wait for it."""
        item = self._open
        if item is None or item.kind != "message" or item.parts[-1] != "output_text":
            return
        sources, self._sources = self._sources, []
        known = item.sources.setdefault(len(item.parts) - 1, [])
        for source in (annotation_of(source, self._before) for source in sources):
            if source in known:
                continue  # some say all of them with each piece of the text
            place = {"annotation_index": len(known), "annotation": source}
            events.append(self._within(item, "response.output_text.annotation.added", **place))
            known.append(source)

    # What is thought

    def _thoughts(self, events: list[Event]) -> Item:
        item = self._open
        if item is None or item.kind != "reasoning":
            item = self._open = self._begin("reasoning", events)
        return item

    def _think(self, text: str, events: list[Event]) -> None:
        item = self._thoughts(events)
        if not item.pieces:
            item.pieces.append([])
            events.append(self._thought(item, "part.added", part=self._thought_part("")))
        item.pieces[0].append(text)
        events.append(self._thought(item, "text.delta", delta=text))

    def _keep(self, blocks: list[dict[str, Any]], events: list[Event], *, whole: bool = False) -> None:
        """Thoughts that must come back as they are; with them the item ends. ``whole``: they come at once."""
        item = self._thoughts(events)
        if whole:
            self._told_whole = True
            for text in (block.get("thinking") for block in blocks):
                if isinstance(text, str) and text:
                    self._think(text, events)
        item.blocks += blocks
        self._close(events)

    def _finish_thoughts(self, item: Item, events: list[Event]) -> None:
        if item.pieces:
            text = item.text()
            events.append(self._thought(item, "text.done", text=text))
            events.append(self._thought(item, "part.done", part=self._thought_part(text)))

    def _thought(self, item: Item, what: str, **fields: Any) -> Event:
        if self._summaries:
            name, place = f"response.reasoning_summary_{what}", "summary_index"
        elif what.startswith("part"):
            name, place = f"response.content_{what}", "content_index"
        else:
            name, place = f"response.reasoning_{what}", "content_index"
        return {"type": name, "item_id": item.id, "output_index": item.index, place: 0, **fields}

    def _thought_part(self, text: str) -> dict[str, str]:
        return {"type": "summary_text" if self._summaries else "reasoning_text", "text": text}

    # What is called

    def _take_call(self, delta: ToolCallDelta, events: list[Event]) -> None:
        item = self._calls.get(delta.position)
        if item is None:
            id = delta.id or f"call_{delta.position}"
            if (extra := self._extras.pop(delta.position, None)) is not None:
                self._keep([{"call": id, "extra_content": extra}], events)
            item = self._begin("function_call", events, call_id=id, name=delta.name or "")
            self._open = None
            self._calls[delta.position] = self._call = item
        if not delta.arguments:
            return
        if item.ended:
            raise UpstreamInvalid("The upstream went on with a call that was whole; try again.")
        item.pieces[0].append(delta.arguments)
        name = "response.function_call_arguments.delta"
        events.append(
            {"type": name, "item_id": item.id, "output_index": item.index, "delta": delta.arguments}
        )

    # Items

    def _begin(self, kind: str, events: list[Event], *, call_id: str = "", name: str = "") -> Item:
        self._close(events)
        index = len(self._items)
        prefix = _PREFIXES[kind]
        item = Item(kind, f"{prefix}_{self._stem}_{index}", index)
        item.call_id, item.name = call_id, name
        if kind == "function_call":
            item.pieces.append([])
        self._items.append(item)
        fields = self._fields(item, "in_progress")
        events.append({"type": "response.output_item.added", "output_index": index, "item": fields})
        return item

    def _close(self, events: list[Event]) -> None:
        """Something else begins: end what is under way, or a call that is whole."""
        if self._open is not None:
            self._finish(self._open, events, "completed")
            self._open = None
        if self._call is not None:
            if is_whole(self._call.text()):
                self._finish(self._call, events, "completed")
            self._call = None

    def _finish(self, item: Item, events: list[Event], status: str) -> None:
        item.ended = True
        if item.kind == "message":
            self._finish_part(item, events)
        elif item.kind == "reasoning":
            self._finish_thoughts(item, events)
        elif item.kind == "image_generation_call":
            place = {"item_id": item.id, "output_index": item.index}
            events.append({"type": "response.image_generation_call.completed", **place})
        else:
            name = "response.function_call_arguments.done"
            place = {"item_id": item.id, "output_index": item.index}
            events.append({"type": name, **place, "name": item.name, "arguments": item.text()})
        item.fields = self._fields(item, status)
        events.append({"type": "response.output_item.done", "output_index": item.index, "item": item.fields})

    def _within(self, item: Item, name: str, **fields: Any) -> Event:
        place = {"item_id": item.id, "output_index": item.index, "content_index": len(item.parts) - 1}
        return {"type": name, **place, **fields}

    def _fields(self, item: Item, status: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"id": item.id, "type": item.kind}
        if item.kind == "function_call":
            call = {"call_id": item.call_id, "name": item.name, "arguments": item.text()}
            return fields | {"status": status} | call
        if item.kind == "image_generation_call":
            return fields | {"status": status, "result": item.text() or None, "output_format": item.name}
        if item.kind == "message":
            content = [
                part_of(kind, item.text(at), item.sources.get(at, [])) for at, kind in enumerate(item.parts)
            ]
            return fields | {"status": status, "role": "assistant", "content": content}
        told = [self._thought_part(item.text())] if item.pieces else []
        fields["summary"] = told if self._summaries else []
        if not self._summaries:
            fields["content"] = told
        if item.blocks:
            fields["encrypted_content"] = sealed(item.blocks)
        return fields
