"""Gemini's native wire: a chat request → generateContent's, its answer → deltas, its errors → ours.

No socket, no task, no clock. ``generate_request`` makes the body, a ``GeminiReader`` takes the bytes of
the answer, ``gemini_error`` reads a refusal. Source: the vendor's API reference (v1beta) and the types of its
SDK.
"""

from __future__ import annotations

from server.gemini_wire.answer import GeminiReader
from server.gemini_wire.conversation import IMAGE_TYPES
from server.gemini_wire.errors import gemini_error
from server.gemini_wire.models import GeminiModel, model_of
from server.gemini_wire.request import generate_request

__all__ = [
    "IMAGE_TYPES",
    "GeminiModel",
    "GeminiReader",
    "gemini_error",
    "generate_request",
    "model_of",
]
