"""The names of a chat's fields → those of the request that it was made of: errors speak of the latter."""

from __future__ import annotations

import re

_FUNCTION = re.compile(r"(tools\[\d{1,9}\])\.function(.*)", re.DOTALL)
_NAMES = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "response_format": "text.format",
}


def own_param(param: str) -> str:
    """The client's name for a field of the chat that was made of its request.

    One turn may be made of many items, and of earlier responses: they are all of the input.
    """
    if param.startswith("messages"):
        return "input"
    if (function := _FUNCTION.fullmatch(param)) is not None:
        return function[1] + function[2]
    name, _, _ = param.partition(".")
    return _NAMES.get(name, param)
