"""Chats and credentials for the tests of Spark's wire."""

from __future__ import annotations

import json
from typing import Any

from server.chat import ChatRequest
from server.openai_wire import parse_chat
from server.spark.signing import Credentials

CREDENTIALS = Credentials("a1b2c3d4", "test-key-0123456789abcdef0123456", "test-secret-ABCDEFGHIJKLMNOPQRST")
USER = {"role": "user", "content": "ping"}


def chat(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    """A chat as a client's bytes make it."""
    return parse_chat(json.dumps({"model": "m", "messages": messages or [USER], **fields}).encode())
