"""Ollama's native wire: a chat request → /api/chat, its lines → deltas, its errors → ours.

No socket, no task, no clock. ``chat_request`` makes the body, an ``OllamaReader`` takes the bytes of the
answer, ``ollama_error`` reads a refusal. Source: docs/api.md of the project.
"""

from __future__ import annotations

from server.ollama_wire.answer import MAX_ANSWER_BYTES, OllamaReader
from server.ollama_wire.errors import ollama_error
from server.ollama_wire.request import chat_request

__all__ = ["MAX_ANSWER_BYTES", "OllamaReader", "chat_request", "ollama_error"]
