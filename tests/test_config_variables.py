"""Variables in a configuration, and what stands in for them in a rehearsal."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ConfigError, load
from tests.config_files import CHANNEL, Read, faults, reader


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


def test_a_variable_is_put_in_alone_and_within_text(read: Read) -> None:
    text = 'aliases: {x: "${A}", y: "${A}-2", z: a}\n' + CHANNEL.replace("[a, b, d]", "[m, m-2, a]")
    assert read(text, {"A": "m"}).settings.aliases == {"x": "m", "y": "m-2", "z": "a"}


def test_a_default_serves_for_a_variable_that_is_not_set_or_empty(read: Read) -> None:
    text = 'server: {port: "${PORT:-81}", host: "${HOST:-::1}"}'
    server = read(text, {"PORT": ""}).settings.server
    assert (server.port, server.host) == (81, "::1")


def test_a_variable_serves_where_a_number_or_a_truth_is_wanted(read: Read) -> None:
    text = 'server: {port: "${P}", drain_s: "${D}", metrics_open: "${M}"}'
    server = read(text, {"P": "8080", "D": "1.5", "M": "yes"}).settings.server
    assert (server.port, server.drain_s, server.metrics_open) == (8080, 1.5, True)


def test_a_variable_that_is_no_number_is_refused_and_not_shown(read: Read) -> None:
    found = faults(read, 'server: {port: "${P}"}', {"P": "s3cret"})
    assert found == ["1:16: server.port: must be a whole number from 0 to 65535"]


def test_a_variable_is_never_read_as_yaml(read: Read) -> None:
    text = "combinations: [{name: p, strategy: direct, model: a, description: '${D}'}]\n" + CHANNEL
    assert read(text, {"D": "{a: *b} ${C}"}).settings.combinations[0].description == "{a: *b} ${C}"


def test_a_variable_that_is_not_set_is_named_with_where_to_put_it(read: Read) -> None:
    text = "access:\n  keys:\n    - {name: me, key: '${MY_KEY}'}\n"
    (found,) = faults(read, text)
    assert found.startswith("3:23: access.keys[0].key: the variable MY_KEY is not set")
    assert "MY_KEY=…" in found
    assert ".env" in found


@pytest.mark.parametrize("value", ["${", "${}", "${A B}", "${A", "${1A}", "${A-b}", "${A:b}"])
def test_a_variable_that_is_written_wrong_is_refused(read: Read, value: str) -> None:
    (found,) = faults(read, f"server: {{host: '{value}'}}", {"A": "x"})
    assert "a variable is written ${NAME} or ${NAME:-default}" in found


@pytest.mark.parametrize(
    ("value", "text"), [("$$", "$"), ("$${A}", "${A}"), ("5$", "5$"), ("$A", "$A"), ("$$$$", "$$")]
)
def test_two_dollars_are_one_and_a_lone_dollar_is_itself(read: Read, value: str, text: str) -> None:
    config = f"combinations: [{{name: p, strategy: direct, model: a, description: '{value}'}}]\n" + CHANNEL
    assert read(config, {"A": "x"}).settings.combinations[0].description == text


OFF = """
channels:
  - name: c
    kind: openai
    enabled: %s
    base_url: https://api.example.com/v1
    api_key: "${NOT_SET}"
    headers: {x-team: "${NOT_SET_EITHER}"}
    models: [a]
"""


@pytest.mark.parametrize("off", ["false", "no", '"${USE:-false}"'])
def test_a_channel_that_is_off_needs_no_variables(read: Read, off: str) -> None:
    (channel,) = read(OFF % off).settings.channels
    assert channel.api_key is None
    assert channel.headers == {}


def test_a_channel_that_is_on_needs_them(read: Read) -> None:
    assert [found.split(": ")[1] for found in faults(read, OFF % "true")] == [
        "channels[0].api_key",
        "channels[0].headers.x-team",
    ]


REHEARSED = """\
access: {keys: [{name: me, key: "${MINE}"}, {name: you, key: "${YOURS}"}]}
channels:
- {name: a, kind: openai, base_url: "${WHERE}", proxy: "${PROXY}", api_keys: ["${K_1}", "x-${K_2}"],
   models: ["${M}"]}
- {name: s, kind: spark, base_url: "${SPARK}", app_id: "${A}", api_key: "${B}", api_secret: "${C}",
   models: [spark-max]}
- {name: spare, enabled: false, kind: openai, base_url: "https://${NOWHERE}/v1", models: [m]}
"""


def test_in_a_rehearsal_something_stands_in_for_what_is_not_set(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(REHEARSED)
    loaded = load(path, {"YOURS": "sk-yours", "B": "sk-b"}, rehearsal=True)
    assert loaded.stood_in == ("K_1", "K_2", "WHERE", "PROXY", "M", "A", "C", "SPARK", "MINE")
    vendor, spark, _ = loaded.settings.channels
    assert vendor.base_url == "https://unset-where.invalid"
    assert (vendor.proxy, vendor.models) == ("http://unset-proxy.invalid", ("unset-m",))
    assert vendor.api_keys == ("unset-k-1", "x-unset-k-2")
    assert (spark.base_url, spark.api_key) == ("wss://unset-spark.invalid", "sk-b")
    assert [key.key for key in loaded.settings.access.keys] == ["unset-mine", "sk-yours"]


def test_in_a_rehearsal_spark_needs_none_of_the_older_gateways_variables(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("channels: [{name: s, kind: spark, models: [spark-max]}]")
    loaded = load(path, {"APP_ID": "mine"}, rehearsal=True)
    assert loaded.stood_in == ("API_KEY", "API_SECRET")
    assert loaded.settings.channels[0].app_id == "mine"
    with pytest.raises(ConfigError, match="kind spark wants all three"):
        load(path, {"APP_ID": "mine"})


@pytest.mark.parametrize(
    "text",
    [
        'server: {port: "${HERE}"}',
        'routing: {attempts: "${HERE}"}',
        'channels: [{name: "${HERE}", kind: local, models: [m]}]',
        'channels: [{name: c, kind: local, models: [m], weight: "${HERE}"}]',
        'channels: "${HERE}"',
    ],
)
def test_in_a_rehearsal_too_what_is_no_key_and_no_address_has_to_be_set(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="the variable HERE is not set"):
        load(path, {}, rehearsal=True)


def test_an_empty_default_is_no_value_where_none_is_needed(read: Read) -> None:
    text = CHANNEL.replace("models", 'api_key: "${KEY:-}", models')
    assert read(text).settings.channels[0].api_key is None
