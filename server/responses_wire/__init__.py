"""OpenAI's Responses as its clients speak them: a request → a chat, deltas → events and responses.

No socket, no task, no clock. Source: the vendor's API reference and the types of its SDK.
"""

from __future__ import annotations

from server.responses_wire.asked import Asked, Recall, parse_response
from server.responses_wire.encoder import ResponseCollector, ResponseEncoder
from server.responses_wire.places import own_param
from server.responses_wire.response import Head, Whole, begun

__all__ = [
    "Asked",
    "Head",
    "Recall",
    "ResponseCollector",
    "ResponseEncoder",
    "Whole",
    "begun",
    "own_param",
    "parse_response",
]
