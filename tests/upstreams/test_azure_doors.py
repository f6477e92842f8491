"""The doors of an Azure resource: addresses, keys and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.errors import UpstreamAuth, UpstreamError
from server.settings import Channel
from server.upstreams.azure_doors import AzureDoors


def doors(**azure: Any) -> AzureDoors:
    known = {"name": "a", "kind": "azure", "base_url": "https://r.example.com/", "api_key": "key-0123456789"}
    return AzureDoors(msgspec.convert({**known, "models": ["m"], "azure": azure}, Channel))


@pytest.mark.parametrize(
    ("version", "url"),
    [
        (None, "https://r.example.com/openai/v1/audio/speech"),
        (
            "2024-10-21",
            "https://r.example.com/openai/deployments/a%2Fb/audio/speech?api-version=2024-10-21",
        ),
    ],
)
async def test_an_endpoint_is_behind_either_door(version: str | None, url: str) -> None:
    assert str(doors(api_version=version).url("a/b", "/audio/speech")) == url


async def test_a_key_needs_no_unlocking() -> None:
    made = doors()
    assert (made.locked, made.headers()) == (False, {"api-key": "key-0123456789"})
    await made.unlock()
    assert (made.token_number, made.secrets) == (0, ("key-0123456789",))


async def test_tokens_come_and_go(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t0")
    made = doors(auth="bearer", token_file=str(file))
    before = made.locked
    await made.unlock()
    assert (before, made.locked, made.token_number, made.headers()) == (
        True,
        False,
        1,
        {"Authorization": "Bearer t0"},
    )
    made.heed(UpstreamError("other"))
    assert not made.locked
    made.heed(UpstreamAuth("refused"))
    await made.unlock()
    assert made.token_number == 1, "it is the same token"
    made.heed(UpstreamAuth("refused"))
    file.write_text("t1")
    await made.unlock()
    assert (made.token_number, made.secrets) == (2, ("t1", "t0", "key-0123456789"))
