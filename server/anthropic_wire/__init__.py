"""Anthropic's Messages wire: a chat request → its request, its answer → deltas, its errors → ours.

No socket, no task, no clock. ``messages_request`` makes the body, a ``MessagesReader`` takes the bytes of
the answer, ``anthropic_error`` reads a refusal. Source: the vendor's API reference and the types of its SDK.
"""

from __future__ import annotations

from server.anthropic_wire.answer import MessagesReader
from server.anthropic_wire.errors import anthropic_error, limit_reset
from server.anthropic_wire.models import AnthropicModel, model_of
from server.anthropic_wire.request import messages_request

__all__ = [
    "AnthropicModel",
    "MessagesReader",
    "anthropic_error",
    "limit_reset",
    "messages_request",
    "model_of",
]
