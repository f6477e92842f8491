"""The list of models, as ``GET /v1/models`` gives it."""

from __future__ import annotations

from typing import Any

import msgspec


class ModelCard(msgspec.Struct, frozen=True):
    """One model or combination. ``created`` is Unix seconds and survives restarts; ``extra`` only adds."""

    id: str
    created: int
    owned_by: str
    extra: dict[str, Any] = {}

    def fields(self) -> dict[str, Any]:
        """The object as OpenAI shapes it, then what is ours."""
        known = {"id": self.id, "object": "model", "created": self.created, "owned_by": self.owned_by}
        return known | {key: value for key, value in self.extra.items() if key not in known}


def model_body(card: ModelCard) -> bytes:
    """The body of ``GET /v1/models/{id}``."""
    return msgspec.json.encode(card.fields())


def models_body(cards: list[ModelCard]) -> bytes:
    """The body of ``GET /v1/models``, in the order given."""
    return msgspec.json.encode({"object": "list", "data": [card.fields() for card in cards]})
