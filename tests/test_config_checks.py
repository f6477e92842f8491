"""The listening side, keys and channels: what must hold together."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import describe
from server.config_checks import is_loopback
from tests.config_files import CHANNEL, Read, faults, reader, warnings


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


def key(change: str) -> str:
    return CHANNEL + f"access: {{keys: [{{name: me, key: k3y, {change}}}]}}"


def test_an_open_server_refuses_to_listen_beyond_loopback(read: Read) -> None:
    (found,) = faults(read, "server: {host: 0.0.0.0}")
    assert found.startswith("1:16: server.host: refuses to start open on another address than loopback")
    assert "access.keys" in found
    assert "ANTIPHON_KEYS" in found


def test_with_a_key_it_may_listen_anywhere(read: Read) -> None:
    assert read("server: {host: 0.0.0.0}\n" + key("models: []")).settings.server.host == "0.0.0.0"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "LOCALHOST"])
def test_loopback_has_many_names(read: Read, host: str) -> None:
    assert is_loopback(host)
    assert read(f"server: {{host: '{host}'}}").settings.server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org"])
def test_everything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["''", "a b", "http://x", "1.2.3.4/8"])
def test_a_host_that_is_none_is_refused(read: Read, host: str) -> None:
    assert any(
        "server.host: must be an address" in found for found in faults(read, f"server: {{host: {host}}}")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("addresses: [10.0.0.0/33]", "addresses[0]: must be an address or a network"),
        ("addresses: [10.0.0.1/8]", "addresses[0]: must be an address or a network"),
        ("addresses: [nowhere]", "addresses[0]: must be an address or a network"),
        ("expires: tomorrow", "expires: must be a date"),
        ("expires: '2026-01-01T10:00:00'", "expires: must be a date, or a time with its offset"),
        ("expires: 2026-02-30", "expires: must be a date"),
        ("models: [aa]", "models[0]: no model or combination is called aa"),
    ],
)
def test_a_wrong_key_is_refused(read: Read, change: str, message: str) -> None:
    (found,) = faults(read, key(change))
    assert f"access.keys[0].{message}" in found


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-01", "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T10:00:00Z", "2027-01-01T10:00:00+00:00"),
        ("'2027-01-01T10:00:00+08:00'", "2027-01-01T10:00:00+08:00"),
    ],
)
def test_a_key_expires_at_a_time_that_is_unmistakable(read: Read, text: str, moment: str) -> None:
    assert read(key(f"expires: {text}")).settings.access.keys[0].expires == moment


@pytest.mark.parametrize("secret", ["'s3cret with blanks'", '"s3cret\\n"', "s3crét"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(read: Read, secret: str) -> None:
    (found,) = faults(read, f"access: {{keys: [{{name: a, key: {secret}}}]}}")
    assert "access.keys[0].key: must be printable ASCII" in found
    assert "s3cr" not in found


def test_an_empty_key_is_refused_even_from_a_variable(read: Read) -> None:
    (found,) = faults(read, "access: {keys: [{name: a, key: '${K}'}]}", {"K": ""})
    assert "access.keys[0].key: must not be empty" in found


def test_two_keys_share_neither_name_nor_secret(read: Read) -> None:
    found = faults(read, "access:\n  keys:\n  - {name: a, key: s3cret}\n  - {name: a, key: s3cret}\n")
    assert found == [
        "4:12: access.keys[1].name: this key's name stands twice: another has it already (line 3)",
        "4:20: access.keys[1].key: this key stands twice: another has it already (line 3)",
    ]


def test_only_disabled_keys_are_a_warning(read: Read) -> None:
    assert any("nobody gets in" in one for one in warnings(read, key("disabled: true")))


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "https://a.example/x", "a.example", "https://u@a.example"]
)
def test_an_origin_is_scheme_and_host_alone(read: Read, origin: str) -> None:
    assert "cors.origins[0]: must be an origin" in faults(read, f"cors: {{origins: ['{origin}']}}")[0]


@pytest.mark.parametrize(
    "origin", ["https://a.example", "http://localhost:3000", "tauri://localhost", "null"]
)
def test_lawful_origins_pass(read: Read, origin: str) -> None:
    assert read(f"cors: {{origins: ['{origin}']}}").settings.cors.origins == (origin,)


def test_a_star_is_no_origin(read: Read) -> None:
    assert "an empty list allows every one" in faults(read, "events: {origins: ['*']}")[0]


LENDING = """\
channels: [{name: c, kind: spark, models: [spark-max], spark: {client_credentials: true}}]
"""


def test_callers_credentials_in_place_of_keys_let_a_server_listen_anywhere(read: Read) -> None:
    loaded = read("server: {host: 0.0.0.0}\naccess: {byok: true}\n" + LENDING)
    assert loaded.settings.access.byok
    assert "callers' own Spark credentials" in describe(loaded.settings)


def test_callers_credentials_want_a_channel_that_takes_them(read: Read) -> None:
    (found,) = faults(read, CHANNEL + "access: {byok: true}")
    assert "access.byok: wants a channel of kind spark with spark.client_credentials: true" in found


def test_uploads_have_a_folder_and_room_for_one_of_them(read: Read, tmp_path: Path) -> None:
    assert read(CHANNEL + f"uploads: {{dir: {tmp_path}}}").settings.uploads.dir == str(tmp_path)
    (found,) = faults(read, CHANNEL + "uploads: {dir: nowhere}")
    assert "uploads.dir: names no folder that can be written to" in found
    (found,) = faults(read, CHANNEL + "uploads: {max_bytes: 10, all_bytes: 9}")
    assert "uploads.all_bytes: must be at least max_bytes" in found
