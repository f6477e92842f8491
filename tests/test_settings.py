"""Settings are frozen snapshots that keep their secrets to themselves."""

from __future__ import annotations

import msgspec
import pytest

from server.settings import (
    Access,
    AccessKey,
    Channel,
    ChannelModel,
    Server,
    Settings,
    Timeouts,
    TimeoutsPatch,
)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().server.port = 1  # type: ignore[misc]


def test_everything_has_a_default_but_what_names_things() -> None:
    assert Settings().server == Server(host="127.0.0.1", port=18888)


def test_the_defaults_are_lawful_by_their_own_bounds() -> None:
    assert msgspec.convert(msgspec.to_builtins(Settings()), Settings) == Settings()


def test_no_secret_stands_in_a_repr() -> None:
    settings = Settings(
        access=Access(keys=(AccessKey(name="me", key="s3cret-a"),)),
        channels=(
            Channel(
                name="c",
                kind="openai",
                api_key="s3cret-b",
                headers={"authorization": "s3cret-c"},
                proxy="http://user:s3cret-d@proxy:1",
            ),
        ),
    )
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_a_patch_changes_only_the_clocks_it_sets() -> None:
    assert TimeoutsPatch(idle_s=1).over(Timeouts()) == Timeouts(idle_s=1)


def test_a_patch_can_switch_a_clock_off() -> None:
    assert TimeoutsPatch(total_s=0).over(Timeouts()).total_s == 0


def test_an_empty_patch_changes_nothing() -> None:
    base = Timeouts(connect_s=3)
    assert TimeoutsPatch().over(base) is base


def test_a_list_of_models_serves_each_under_its_own_name() -> None:
    channel = Channel(name="c", kind="openai", models=("a", "b"))
    assert channel.served() == {"a": ChannelModel(), "b": ChannelModel()}


def test_a_map_of_models_keeps_its_order() -> None:
    models = {"z": ChannelModel(model="x"), "a": ChannelModel()}
    assert list(Channel(name="c", kind="openai", models=models).served()) == ["z", "a"]
