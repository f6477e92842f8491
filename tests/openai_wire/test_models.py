"""The list of models, as clients of OpenAI read it."""

from __future__ import annotations

import json

from server.openai_wire import ModelCard, model_body, models_body

CARD = ModelCard("a/b", 5, "vendor", {"vision": True, "id": "never"})


def test_a_card_has_openais_fields_and_what_is_ours_only_adds() -> None:
    assert json.loads(model_body(CARD)) == {
        "id": "a/b",
        "object": "model",
        "created": 5,
        "owned_by": "vendor",
        "vision": True,
    }


def test_the_list_keeps_its_order() -> None:
    other = ModelCard("a", 6, "vendor")
    listed = json.loads(models_body([CARD, other]))
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["a/b", "a"]
