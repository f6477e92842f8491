"""Every dialect becomes a chat here; what is wrong with that is told by the client's own names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import InvalidRequest, UpstreamRefused

_INDEX = re.compile(r"\[\d+\]")


@contextmanager
def in_own_words(own_param: Callable[[str], str]) -> Iterator[None]:
    """Errors of the block that blame a field of the chat blame the client's own; ``own_param`` knows it."""
    try:
        yield
    except (InvalidRequest, UpstreamRefused) as error:
        if error.param and (own := own_param(error.param)) != error.param:
            error.message = error.message.replace(error.param, own + _within(error.param))
            error.param = own
        raise


def _within(param: str) -> str:
    """What within a turn of the chat is meant, whose place there tells its client nothing."""
    place, dot, rest = param.partition(".")
    if not dot or not place.startswith("messages"):
        return ""
    return f" ({_INDEX.sub('', rest).removeprefix('content.').rpartition('function.')[2]})"
