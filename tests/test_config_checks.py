"""The listening side, keys and channels: what must hold together."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config_checks import is_loopback
from tests.config_files import CHANNEL, Read, faults, reader, warnings

SPARK = "name: c, kind: spark, app_id: a, api_key: k, api_secret: s"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


def channel(change: str) -> str:
    """A good channel with more keys."""
    return CHANNEL.replace("models:", f"{change}, models:")


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


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://x/v1", "must be a URL that begins with http"),
        ("api.example.com/v1", "must be a URL that begins with http"),
        ("https://", "must be a URL that begins with http"),
        ("https://x:99999/", "must be a URL that begins with http"),
        ("https://[::1/v1", "must be a URL that begins with http"),
        ("https://user:s3cret@x/v1", "must not hold a name or password"),
        ("https://x/v1?key=s3cret", "must not hold a query"),
        ("https://x/v1#a", "must not hold a query"),
        ("https://x/v1/chat/completions", "must end before /chat/completions"),
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused_and_not_shown(read: Read, url: str, message: str) -> None:
    (found,) = faults(read, CHANNEL.replace("https://api.example.com/v1", f'"{url}"'))
    assert f"2:39: channels[0].base_url: {message}" in found
    assert "s3cret" not in found


def test_http_beyond_this_machine_is_a_warning(read: Read) -> None:
    (found,) = warnings(read, CHANNEL.replace("https://api.example.com", "http://192.168.1.2"))
    assert "channels[0].base_url: http:// beyond this machine" in found
    assert warnings(read, CHANNEL.replace("https://api.example.com", "http://127.0.0.1:8080")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("headers: {'bad name': x}", 'headers["bad name"]: is not a header'),
        ('headers: {x-a: "s3cret\\r\\nx-b: y"}', "headers.x-a: must be one line"),
        ("headers: {Host: x}", "headers.Host: is written by the server itself"),
        ('api_key: "s3cret\\n"', "api_key: must be printable ASCII"),
        ("api_key: ''", "api_key: must not be empty"),
        ("proxy: 's3cret:1'", "proxy: must be a proxy's URL"),
        ("proxy: 'socks5://s3cret:1'", "proxy: must be a proxy's URL"),
        ("tls: {ca_file: nowhere.pem}", "tls.ca_file: names no file"),
        ("tls: {cert_file: config.yaml}", "tls: cert_file and key_file go together"),
        ("kind: openia", "kind: stands twice"),
    ],
)
def test_a_wrong_channel_is_refused_without_its_secrets(read: Read, change: str, message: str) -> None:
    (found,) = faults(read, channel(change))
    assert f"channels[0].{message}" in found
    assert "s3cret" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: c, kind: openai, models: [a]}", "channels[0].base_url: is missing"),
        ("{name: c, kind: openai, base_url: https://x}", "channels[0].models: lists no model"),
        (
            "{name: c, kind: openai, base_url: https://x, models: [a, a]}",
            "channels[0].models[1]: this model stands twice",
        ),
        (
            "{name: c, kind: openai, base_url: https://x, models: ['']}",
            "models[0]: a model's name must not be empty",
        ),
        ("{name: c, kind: local, models: [a], base_url: https://x}", "base_url: has no use with kind local"),
        ("{name: c, kind: local, models: [a], path: nowhere.gguf}", "path: names no file"),
        ("{name: ' c', kind: local, models: [a]}", "name: a channel's name must be one line"),
        ("{kind: local, models: [a]}", "channels[0].name: is missing"),
        ("{name: c, models: [a]}", "channels[0].kind: is missing; it must be local, openai or spark"),
        ("{name: c, kind: spark, models: [spark-max], app_id: a, api_key: k}", "api_secret: is missing"),
        (f"{{{SPARK}, models: [spark-9]}}", "models: Spark has no model spark-9; known are spark-lite"),
        (f"{{{SPARK}, models: [spark-max], base_url: https://x}}", "base_url: must begin with wss://"),
        (f"{{{SPARK}, models: [spark-max], base_url: 'wss://h:x'}}", "base_url: must begin with wss://"),
        (f"{{{SPARK}, models: [spark-max], proxy: 'socks5://h'}}", "proxy: must be a proxy's URL"),
        (
            f"{{{SPARK}, models: [spark-max], spark: {{models: {{a: {{like: b}}}}}}}}",
            "spark.models: cannot be used: a: no model 'b' to be like",
        ),
    ],
)
def test_a_channel_has_what_its_kind_wants(read: Read, text: str, message: str) -> None:
    (found,) = faults(read, f"channels: [{text}]")
    assert message in found


def test_two_channels_share_no_name(read: Read) -> None:
    text = "channels:\n- {name: c, kind: local, models: [a]}\n- {name: c, kind: local, models: [a]}\n"
    assert faults(read, text) == [
        "3:10: channels[1].name: this channel's name stands twice: another has it already (line 2)"
    ]


def test_a_spark_channel_serves_present_and_older_names(read: Read) -> None:
    assert warnings(read, f"channels: [{{{SPARK}, models: [spark-max, spark-chat-v2, vision]}}]") == []


def test_a_spark_beyond_this_machine_without_tls_is_a_warning(read: Read) -> None:
    (one,) = warnings(read, f"channels: [{{{SPARK}, models: [spark-max], base_url: 'ws://example.com'}}]")
    assert "travel unencrypted" in one
    assert warnings(read, f"channels: [{{{SPARK}, models: [spark-max], base_url: 'ws://127.0.0.1:1'}}]") == []


def test_a_retired_spark_model_is_a_warning(read: Read) -> None:
    (one,) = warnings(read, f"channels: [{{{SPARK}, models: {{old: {{model: spark-v2}}}}}}]")
    assert "spark-v2: The vendor no longer documents Spark 2.0; use spark-pro." in one


def test_what_a_kind_does_not_use_is_a_warning(read: Read) -> None:
    (one,) = warnings(read, channel("slots: 3"))
    assert "channels[0].slots: is not used: it is for kind local" in one
    (one,) = warnings(read, "channels: [{name: c, kind: local, models: [a], proxy: 'http://x:1'}]")
    assert "channels[0].proxy: is not used: it is for kind openai" in one


def test_unchecked_certificates_are_a_warning(read: Read) -> None:
    assert "certificates are not checked" in warnings(read, channel("tls: {verify: false}"))[0]


def test_no_channel_is_a_warning(read: Read) -> None:
    assert warnings(read, "server: {port: 1}") == [
        "1:1: channels: no channel is enabled, so there is no model to ask"
    ]
