"""What a model can do is what its channels say of it."""

from __future__ import annotations

from typing import Any

import pytest

from server.routing.abilities import Abilities
from server.settings import ChannelModel
from tests.channels import channel


def over(*channels: tuple[dict[str, Any], ChannelModel]) -> Abilities:
    made = Abilities()
    made.channels = [
        (channel(f"c{place}", **settings), model) for place, (settings, model) in enumerate(channels)
    ]
    return made


@pytest.mark.parametrize(
    ("said", "able"),
    [
        ([], None),
        ([None], None),
        ([True, None], True),
        ([True, False], True),
        ([False, None], None),
        ([False, False], False),
    ],
)
async def test_one_channel_that_can_is_enough_and_all_must_say_that_they_cannot(
    said: list[bool | None], able: bool | None
) -> None:
    abilities = over(*(({}, ChannelModel(vision=word, tools=word)) for word in said))
    assert (abilities.vision, abilities.tools) == (able, able)


async def test_the_context_is_the_shortest_that_is_known() -> None:
    lengths = (None, 4000, 1000)
    assert over(*(({}, ChannelModel(context_length=one)) for one in lengths)).context_length == 1000
    assert over(({}, ChannelModel())).context_length is None


@pytest.mark.parametrize(
    ("channels", "known"),
    [
        ([{"preset": "openai"}], True),
        ([{"kind": "ollama"}, {"kind": "gemini"}], True),
        ([{"preset": "openai"}, {}], False),
        ([{"kind": "anthropic"}], False),
        ([], False),
    ],
)
async def test_json_mode_is_known_where_every_channel_has_it(
    channels: list[dict[str, Any]], known: bool
) -> None:
    assert over(*((settings, ChannelModel()) for settings in channels)).json_mode is known
