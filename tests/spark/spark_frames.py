"""Frames as Spark sends them, and what an answer of them says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.deltas import (
    Delta,
    Usage,
    UsageDelta,
)
from server.openai_wire import Completion
from server.spark_ws import SparkProtocol

SID = "cht000c0de0@dx18f0000000000a0001"
USAGE = {"question_tokens": 1, "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USED = UsageDelta(Usage(3, 2, 5))


def frame(
    *items: dict[str, Any],
    status: int | None = 1,
    own_status: int | None = None,
    usage: dict[str, Any] | None = None,
    code: int = 0,
    message: str = "Success",
) -> str:
    """A frame with choices; ``own_status`` is the header's where it differs."""
    header = {
        "code": code,
        "message": message,
        "sid": SID,
        "status": status if own_status is None else own_status,
    }
    payload: dict[str, Any] = {"choices": {"status": status, "seq": 0, "text": list(items)}}
    if usage:
        payload["usage"] = {"text": usage}
    return json.dumps({"header": header, "payload": payload})


def text(content: str, status: int = 1, **fields: Any) -> str:
    return frame({"content": content, "role": "assistant", "index": 0}, status=status, **fields)


def error(code: int, message: str = "No", status: int = 2) -> str:
    return json.dumps({"header": {"code": code, "message": message, "sid": SID, "status": status}})


LAST = frame({"content": "", "role": "assistant", "index": 0}, status=2, usage=USAGE)


def protocol(**fields: Any) -> SparkProtocol:
    return SparkProtocol(answer_id="a1", **fields)


def said(*frames: str | bytes, **fields: Any) -> list[Delta]:
    """All deltas of an answer that is whole."""
    wire = protocol(**fields)
    deltas = [delta for one in frames for delta in wire.receive(one)]
    deltas += wire.closed()
    assert wire.done
    return deltas


def completion(deltas: Sequence[Delta]) -> dict[str, Any]:
    whole = Completion(model="m", id="i", created=1, own_identity=True)
    whole.add(deltas)
    made: dict[str, Any] = json.loads(whole.encode())
    return made


PLUGIN = json.dumps(
    {
        "header": {"code": 0, "message": "Success", "sid": SID, "status": 1},
        "payload": {
            "plugins": {
                "text": [
                    {
                        "name": "ifly_search",
                        "content": json.dumps(
                            [{"index": 1, "url": "https://a", "title": "甲"}, {"index": 2}, 3]
                        ),
                        "content_type": "text",
                        "content_meta": None,
                        "role": "tool",
                        "status": "finished",
                    }
                ]
            }
        },
    }
)
