"""The list of models as Anthropic's clients read it, with OpenAI's fields beside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from server.openai_wire import ModelCard


def model_body(card: ModelCard) -> bytes:
    """The body of ``GET /v1/models/{id}``."""
    return msgspec.json.encode(_fields(card))


def models_body(cards: Sequence[ModelCard]) -> bytes:
    """The body of ``GET /v1/models``, in the order given; there is one page."""
    page = {
        "object": "list",
        "data": [_fields(card) for card in cards],
        "has_more": False,
        "first_id": cards[0].id if cards else None,
        "last_id": cards[-1].id if cards else None,
    }
    return msgspec.json.encode(page)


def _fields(card: ModelCard) -> dict[str, Any]:
    created = datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return card.fields() | {"type": "model", "display_name": card.id, "created_at": created}
