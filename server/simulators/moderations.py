"""What OpenAI's moderations route is asked, and what it answers."""

from __future__ import annotations

from typing import Any

import orjson

from server.simulators.asked import read_object
from server.simulators.errors import Fault, Refused

DEFAULT_MODEL = "omni-moderation-latest"
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def read_moderation_input(body: bytes) -> tuple[list[str], str]:
    """A moderations request: the text of each result that is wanted, and the model. Raises Refused.

    A list of parts, as for text with images, is one input; a list of texts is as many as it holds.
    """
    asked = read_object(body)
    model = asked.get("model", DEFAULT_MODEL)
    if not isinstance(model, str) or not model:
        raise Refused(Fault(400, "Invalid type for 'model': expected a string.", param="model"))
    given = asked.get("input")
    if isinstance(given, str):
        return [given], model
    if isinstance(given, list) and given:
        if all(isinstance(item, str) for item in given):
            return given, model
        if all(isinstance(item, dict) for item in given):
            return ["\n".join(str(item.get("text", "")) for item in given)], model
    raise Refused(Fault(400, "Invalid value for 'input': expected a string or a list.", param="input"))


def moderations_body(texts: list[str], model: str, number: int) -> bytes:
    """A verdict for each text: flagged for the categories whose names stand in it, and for no other."""
    results = [_verdict(text) for text in texts]
    return orjson.dumps({"id": f"modr-sim{number}", "model": model, "results": results})


def _verdict(text: str) -> dict[str, Any]:
    categories = {name: name in text for name in CATEGORIES}
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": {name: 0.9 if found else 0.001 for name, found in categories.items()},
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
