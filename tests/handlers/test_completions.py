"""The route of text completions; what the official client makes of it is in tests/behaviour."""

from __future__ import annotations

import json

from tests.behaviour.asking import data_lines, error_of, post
from tests.behaviour.kinds import kind_of


async def test_a_model_may_be_left_out_where_chats_may_leave_it_out() -> None:
    async with kind_of("panel", default_combination="panel", unknown_model="default") as kind:
        answer = await post(kind.server, {"prompt": "hi"}, path="/v1/completions")
        assert answer.json()["model"] == "panel"
    async with kind_of("panel") as kind:
        refused = await post(kind.server, {"prompt": "hi"}, path="/v1/completions")
        assert error_of(refused, 400)["param"] == "model"


async def test_how_a_combination_came_to_it_stands_beside_the_usage() -> None:
    async with kind_of("panel") as kind:
        asked = {"model": "panel", "prompt": "hi", "stream": True, "stream_options": {"include_usage": True}}
        *_, last, done = data_lines((await post(kind.server, asked, path="/v1/completions")).body)
        assert done == b"[DONE]"
        assert json.loads(last)["antiphon"]["strategy"] == "synthesize"
