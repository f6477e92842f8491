"""The presets as data: what each says holds together, and the page tells the same."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.presets import PRESETS, Preset, base_url_of, preset_at, preset_of, table, timeouts_of, usage_of
from server.settings import Channel, TimeoutsPatch

PAGE = Path(__file__).parents[1] / "docs" / "providers.md"


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_holds_together(preset: Preset) -> None:
    url = urlsplit(preset.base_url)
    at_home = url.hostname == "127.0.0.1"
    assert url.scheme == ("http" if at_home else "https")
    assert not preset.base_url.endswith(("/", "/chat/completions"))
    assert preset.key is not at_home
    for rules in (preset.rules, *preset.models.values()):
        assert rules.path.startswith("/")
        assert not set(rules.drop) & {*rules.refuse, *rules.rename, *rules.clamp}
        assert not rules.only or set(rules.rename.values()) <= set(rules.only)
    for pattern in preset.models:
        re.compile(pattern)
    assert set(preset.finish.values()) <= {"stop", "length", "content_filter", "tool_calls"}


def test_a_channels_own_settings_win() -> None:
    ours = Channel(name="a", kind="openai", preset="mistral")
    theirs = Channel(
        name="a", kind="openai", preset="mistral", base_url="http://127.0.0.1/v9/", stream_usage="ask"
    )
    assert (base_url_of(ours), usage_of(ours)) == ("https://api.mistral.ai/v1", "given")
    assert (base_url_of(theirs), usage_of(theirs)) == ("http://127.0.0.1/v9", "ask")


def test_what_is_said_of_a_channels_clocks_is_its_own_then_its_presets_or_kinds() -> None:
    cold = TimeoutsPatch(first_token_s=300)
    assert timeouts_of(Channel(name="a", kind="openai", preset="lmstudio")) == cold
    assert timeouts_of(Channel(name="a", kind="ollama")) == cold
    own = TimeoutsPatch(first_token_s=9, idle_s=0)
    assert timeouts_of(Channel(name="a", kind="ollama", timeouts=own)) == own
    assert timeouts_of(Channel(name="a", kind="openai")) == TimeoutsPatch(), "nobody says anything"


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.mistral.ai:8443/elsewhere", "mistral"),
        ("https://mistral.example.com/v1", None),
        ("https://[::1/v1", None),
        ("api.mistral.ai", None),
    ],
)
def test_a_vendor_is_known_by_its_host_and_what_is_no_address_is_nobodys(
    base_url: str, name: str | None
) -> None:
    assert preset_at(base_url) == name


def test_without_a_preset_there_are_no_rules() -> None:
    plain = Channel(name="a", kind="openai", base_url="http://127.0.0.1/v1")
    assert preset_of(plain) == Preset(base_url="")
    assert (base_url_of(plain), usage_of(plain)) == ("http://127.0.0.1/v1", "ask")


def test_the_page_has_the_table_that_the_data_make() -> None:
    between = PAGE.read_text("utf-8").partition("<!-- presets -->\n")[2].partition("\n<!-- end -->")[0]
    assert between == table(), "put the output of `antiphon check --presets` into docs/providers.md"
