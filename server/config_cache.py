"""What the types cannot say about the response cache: whose answers it is to keep."""

from __future__ import annotations

from collections.abc import Iterable

from server.cache_settings import named
from server.config_checks import Findings
from server.config_types import nearest
from server.config_yaml import printable
from server.settings import AUTO


def check_cache(found: Findings) -> None:
    """Each name, or pattern, of ``cache`` is to stand for something that is configured."""
    settings = found.settings
    rules = settings.cache
    served = sorted({name for channel in settings.channels for name in channel.served()})
    panels = [one.name for one in settings.combinations]
    listed = any(channel.models == AUTO for channel in settings.channels) or found.broken(("channels",))
    for section, names in (("models", rules.models), ("single_flight", rules.single_flight)):
        for at, name in enumerate(names):
            if listed or _stands_for_some(name, served):
                continue
            message = f"no channel serves a model {printable(name)}{nearest(name, served)}"
            if _stands_for_some(name, panels):
                message = f"{printable(name)} is a combination, of which drafts alone are kept: cache.drafts"
            found.wrong(("cache", section, at), message)
    for at, name in enumerate(rules.drafts):
        if not (found.broken(("combinations",)) or _stands_for_some(name, panels)):
            message = f"there is no combination {printable(name)}{nearest(name, panels)}"
            found.wrong(("cache", "drafts", at), message)
    if rules.max_answer_bytes > rules.max_bytes and found.given(("cache", "max_answer_bytes")):
        found.doubt(("cache", "max_answer_bytes"), "is above max_bytes, which is the bound then")


def _stands_for_some(pattern: str, names: Iterable[str]) -> bool:
    return any(named(name, (pattern,)) for name in names)
