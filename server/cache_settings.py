"""Which answers are kept to be given again, and who shares a call, as frozen data."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import msgspec
from msgspec import Meta


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The response cache. All three lists hold names or patterns such as ``gpt-*``; empty: nobody."""

    models: tuple[str, ...] = ()  # whose answers are kept
    drafts: tuple[str, ...] = ()  # combinations whose members' drafts are kept
    single_flight: tuple[str, ...] = ()  # models of which equal requests at once share one call
    ttl_s: Annotated[float, Meta(gt=0)] = 3600
    max_entries: Annotated[int, Meta(ge=1)] = 1000
    max_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024 * 1024
    max_answer_bytes: Annotated[int, Meta(ge=1)] = 1024 * 1024
    across_keys: bool = False  # may one key be given what another has asked for?
    sampled: bool = False  # requests too that ask for chance: temperature, several choices
    tools: bool = False  # requests with tools too

    @property
    def on(self) -> bool:
        """Is there anything to do?"""
        return bool(self.models or self.drafts or self.single_flight)

    def keeps(self, model: str) -> bool:
        """Are answers of ``model`` kept?"""
        return named(model, self.models)

    def keeps_drafts(self, combination: str) -> bool:
        """Are drafts of ``combination`` kept?"""
        return named(combination, self.drafts)

    def shares(self, model: str) -> bool:
        """Do equal requests to ``model`` share one call?"""
        return named(model, self.single_flight)


def named(name: str, patterns: tuple[str, ...]) -> bool:
    """Is ``name`` one of these names or patterns?"""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
