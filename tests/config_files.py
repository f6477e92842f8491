"""Writes configuration files for tests, and reads what ``load`` says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from server.config import ConfigError, Loaded, load

CHANNEL = """\
channels:
  - {name: c, kind: openai, base_url: https://api.example.com/v1, models: [a, b, d]}
"""

Read = Callable[..., Loaded]


def channel(change: str) -> str:
    """A good channel with more keys."""
    return CHANNEL.replace("models:", f"{change}, models:")


def reader(folder: Path) -> Read:
    """A function that loads a text as ``folder/config.yaml``, with no variables but those given."""

    def read(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
        path = folder / "config.yaml"
        path.touch(mode=0o600)
        path.write_text(dedent(text), encoding="utf-8")
        return load(path, environ or {})

    return read


def faults(read: Read, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Each fault as ``line:column: key: message``, or as it is where it has no place in the file."""
    with pytest.raises(ConfigError) as raised:
        read(text, environ)
    return [str(fault).rpartition("config.yaml:")[2] for fault in raised.value.faults]


def warnings(read: Read, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Each warning of a good file as ``line:column: key: message``."""
    return [str(warning).rpartition("config.yaml:")[2] for warning in read(text, environ).warnings]
