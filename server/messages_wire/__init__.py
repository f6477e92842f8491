"""Anthropic's Messages as its clients speak them: a request → a chat, deltas → events and messages.

No socket, no task, no clock. The other side of the dialect, which asks the service, is ``anthropic_wire``.
Source: the vendor's API reference and the types of its SDK.
"""

from __future__ import annotations

from server.messages_wire.asked import Asked, parse_messages
from server.messages_wire.encoder import PING, MessagesEncoder
from server.messages_wire.errors import error_body
from server.messages_wire.message import MessageCollector
from server.messages_wire.models import model_body, models_body
from server.messages_wire.places import own_param

__all__ = [
    "PING",
    "Asked",
    "MessageCollector",
    "MessagesEncoder",
    "error_body",
    "model_body",
    "models_body",
    "own_param",
    "parse_messages",
]
