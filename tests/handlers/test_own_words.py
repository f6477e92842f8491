"""Errors blame what the client has sent, in its own names."""

from __future__ import annotations

import pytest

from server.errors import InvalidRequest, ServerError, UpstreamError, UpstreamRefused
from server.handlers.own_words import in_own_words


def own(param: str) -> str:
    return param.replace("theirs", "mine")


@pytest.mark.parametrize("kind", [InvalidRequest, UpstreamRefused])
def test_field_and_words_are_told_anew(kind: type[ServerError]) -> None:
    with pytest.raises(kind) as raised, in_own_words(own):
        raise kind("theirs.x is odd.", param="theirs.x")
    assert (raised.value.param, raised.value.message) == ("mine.x", "mine.x is odd.")


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("messages[1].content[0].image_url.url", "input (image_url.url) is odd."),
        ("messages[1].tool_calls[0].function.arguments", "input (arguments) is odd."),
        ("messages[1].content", "input (content) is odd."),
        ("messages[1]", "input is odd."),
        ("reasoning_effort", "input is odd."),
    ],
)
def test_what_within_a_turn_is_meant_is_told(param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as raised, in_own_words(lambda param: "input"):
        raise InvalidRequest(f"{param} is odd.", param=param)
    assert raised.value.message == words


@pytest.mark.parametrize("error", [InvalidRequest("theirs"), UpstreamError("theirs", param="theirs")])
def test_what_blames_no_field_stays(error: ServerError) -> None:
    with pytest.raises(type(error)) as raised, in_own_words(own):
        raise error
    assert raised.value.message == "theirs"
