"""What Spark cannot do as asked is told to who asked."""

from __future__ import annotations

from tests.behaviour.asking import post
from tests.behaviour.kinds import kind_of
from tests.behaviour.running import ask

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


async def test_fields_that_were_left_out_or_clamped_stand_in_the_header() -> None:
    async with kind_of("spark") as kind:
        for stream in (True, False):
            body = ask(kind.model, seed=31337, temperature=1.9, stream=stream)
            told = (await post(kind.server, body)).headers["x-antiphon-warnings"]
            assert told == "temperature was brought into the range of the model; seed was left out"
        assert "x-antiphon-warnings" not in (await post(kind.server, ask(kind.model))).headers


async def test_the_one_tool_that_must_be_called_is_named_to_spark() -> None:
    async with kind_of("spark") as kind:
        await post(kind.server, ask("spark-ultra", tools=[TOOL], tool_choice="required"))
        assert kind.sent()["parameter"]["chat"]["function_choice"] == "look"
