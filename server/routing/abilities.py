"""What a model can do, from what its channels' configuration says of it."""

from __future__ import annotations

from collections.abc import Sequence

from server.presets import takes_json
from server.routing.channel import ChannelState
from server.settings import ChannelModel


class Abilities:
    """Over ``channels``: each that serves the model, and how."""

    channels: Sequence[tuple[ChannelState, ChannelModel]]

    @property
    def vision(self) -> bool | None:
        """Can it see? None where no channel says."""
        return _said([model.vision for _, model in self.channels])

    @property
    def tools(self) -> bool | None:
        """May it call tools? None where no channel says."""
        return _said([model.tools for _, model in self.channels])

    @property
    def json_mode(self) -> bool:
        """Is every channel's vendor known to take ``response_format`` with ``json_object``?"""
        return bool(self.channels) and all(takes_json(state.settings) for state, _ in self.channels)

    @property
    def context_length(self) -> int | None:
        """Tokens of context that every channel offers, if they say so."""
        lengths = [model.context_length for _, model in self.channels if model.context_length]
        return min(lengths) if lengths else None


def _said(words: Sequence[bool | None]) -> bool | None:
    """Is it so for some channel? None where that is not known."""
    return True if True in words else (False if words and None not in words else None)
