"""The list of models in Anthropic's shape."""

from __future__ import annotations

import json

from server.messages_wire import model_body, models_body
from server.openai_wire import ModelCard

CARD = ModelCard("m", 86_400, "me", {"vision": True})


def test_a_model_has_the_fields_of_both_dialects() -> None:
    told = json.loads(model_body(CARD))
    assert told == {
        "id": "m",
        "object": "model",
        "created": 86_400,
        "owned_by": "me",
        "vision": True,
        "type": "model",
        "display_name": "m",
        "created_at": "1970-01-02T00:00:00Z",
    }


def test_a_list_is_one_page() -> None:
    told = json.loads(models_body([CARD, ModelCard("n", 1, "me")]))
    assert (told["first_id"], told["last_id"], told["has_more"]) == ("m", "n", False)
    assert json.loads(models_body([]))["first_id"] is None
