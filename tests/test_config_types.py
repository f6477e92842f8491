"""Types, unknown keys and YAML's traps, each told in words at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import CHANNEL, Read, faults, reader


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("serever: {}", "1:1: serever: unknown key, did you mean server?"),
        ("server:\n  Port: 1", "2:3: server.Port: unknown key, did you mean port?"),
        ("server: {drain: 1}", "1:10: server.drain: unknown key, did you mean drain_s?"),
        ("port: 1", "1:1: port: unknown key here; it belongs in server"),
        ("server: {metrics: {zzz: 1}}", "1:10: server.metrics: unknown key, did you mean metrics_open?"),
        ("cors: {zzz: 1}", "1:8: cors.zzz: unknown key; known here: origins"),
        ("server: {'a.b c': 1}", '1:10: server["a.b c"]: unknown key; known here: host'),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_spelling(read: Read, text: str, found: str) -> None:
    (told,) = faults(read, text)
    assert told.startswith(found)


def test_all_faults_are_told_at_once_in_the_order_of_the_file(read: Read) -> None:
    found = faults(
        read,
        """\
        server: {port: x, prot: 1}
        channels:
          - {name: c, kind: openai, base_url: "ftp://x", models: [a], weight: -1}
        combinations:
          - {name: p, strategy: direct, model: b}
        logging: {level: loud}
        """,
    )
    assert [one.split(": ")[1] for one in found] == [
        "server.port",
        "server.prot",
        "channels[0].base_url",
        "channels[0].weight",
        "combinations[0].model",
        "logging.level",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {drain_s: soon}", "server.drain_s: must be a number of seconds, 0 or more"),
        ("server: {drain_s: -1}", "server.drain_s: must be a number of seconds, 0 or more"),
        ("server: {ping_s: 1}\nevents: {ping_s: 0}", "events.ping_s: must be a number of seconds above 0"),
        ("server: {drain_s: .nan}", "server.drain_s: must be a number of seconds, 0 or more"),
        ("server: {drain_s: .inf}", "server.drain_s: must be a number of seconds, 0 or more"),
        ("server: {drain_s: 1e999}", "server.drain_s: must be a number of seconds, 0 or more"),
        ("server: {drain_s: true}", "server.drain_s: must be a number of seconds, 0 or more"),
        ("server: {port: 70000}", "server.port: must be a whole number from 0 to 65535"),
        ("server: {port: 1.5}", "server.port: must be a whole number from 0 to 65535"),
        ("images: {max_pixels: 900000000}", "images.max_pixels: must be a whole number from 1 to 50000000"),
        (
            "images: {max_bytes: 2000000000}",
            "images.max_bytes: must be a whole number of bytes from 1 to 100000000",
        ),
        ("images: {total_s: 1000}", "images.total_s: must be a number of seconds above 0, at most 300"),
        ("images: {max_redirects: 50}", "images.max_redirects: must be a whole number from 0 to 20"),
        ("images: {at_once: 0}", "images.at_once: must be a whole number from 1 to 1000"),
        ("server: {port: '80'}", "server.port: must be a whole number from 0 to 65535, without quotes"),
        ("server: {port: [80]}", "server.port: must be a whole number from 0 to 65535"),
        ("server: {port: 22:30}", "server.port: must be a whole number from 0 to 65535"),
        ("server: {port: }", "server.port: is empty; give it a value"),
        ("server: {metrics_open: 1}", "server.metrics_open: must be true or false"),
        ("server: {metrics_open: 'yes'}", "server.metrics_open: must be true or false"),
        ("server: {host: [a]}", "server.host: must be text"),
        ("server: {host: on}", "server.host: must be text: YAML reads a bare on as true or false"),
        ("server: {allowed_hosts: a}", "server.allowed_hosts: must be a list"),
        ("server: {allowed_hosts: [a, no]}", "server.allowed_hosts[1]: must be text: YAML reads a bare no"),
        ("server: 5", "server: must be a map of keys"),
        ("server: [a]", "server: must be a map of keys"),
        ("aliases: [a]", "aliases: must be a map, name: value"),
        ("channels: {a: 1}", "channels: must be a list"),
        ("channels: [a]", "channels[0]: must be a map of keys"),
        ("access: {keys: [{key: k}]}", "access.keys[0].name: is missing; it must be text"),
        ("logging: {level: warn}", "debug, error, info or warning; did you mean warning?"),
        ("logging: {format: on}", "logging.format: must be json or text: YAML reads a bare on"),
        ("runs: {max_runs: 99999999999999999999999}", "runs.max_runs: must be a whole number, 1 or more"),
        (f"runs: {{max_runs: {'9' * 5000}}}", "runs.max_runs: must be a whole number, 1 or more"),
    ],
)
def test_a_wrong_value_is_told_in_words(read: Read, text: str, message: str) -> None:
    assert any(message in found for found in faults(read, text))


def test_a_leading_zero_is_refused_since_yaml_would_read_another_number(read: Read) -> None:
    (found,) = faults(read, "server: {port: 010}")
    assert found.endswith("without the leading 0 (which YAML reads as octal)")


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("0.5", 0.5), ("1e1", 10), ("1_000", 1000), (".5", 0.5), ("2.", 2), ("0", 0)],
)
def test_numbers_are_read_as_people_write_them(read: Read, text: str, value: float) -> None:
    assert read(f"server: {{drain_s: {text}}}").settings.server.drain_s == value


def test_a_number_where_text_is_wanted_is_the_text_that_was_written(read: Read) -> None:
    settings = read("access: {keys: [{name: 007, key: 1_2}]}").settings
    assert (settings.access.keys[0].name, settings.access.keys[0].key) == ("007", "1_2")


def test_a_section_whose_keys_are_commented_out_has_its_defaults(read: Read) -> None:
    settings = read("server:\n  #port: 1\naccess:\nchannels:\naliases:\ncors:\n").settings
    assert (settings.server.port, settings.channels, settings.aliases) == (18888, (), {})


def test_null_means_none_where_none_is_lawful(read: Read) -> None:
    assert read("default_combination: ~").settings.default_combination is None


def test_models_are_a_list_or_a_map(read: Read) -> None:
    text = CHANNEL.replace("[a, b, d]", "{a: , b: {model: x}}")
    models = read(text).settings.channels[0].served()
    assert [(name, one.model) for name, one in models.items()] == [("a", None), ("b", "x")]
    (found,) = faults(read, CHANNEL.replace("[a, b, d]", "5"))
    assert "must be a list, [a, b] or one '- …' a line or a map, name: value" in found


PANEL = (
    CHANNEL
    + """\
combinations:
  - name: p
    members: [{model: a}, {model: b}, {model: d, params: %s}]
    summary: {model: a, history: %s}
"""
)


@pytest.mark.parametrize(("text", "value"), [("all", "all"), ("last", "last"), ("3", 3)])
def test_a_word_or_a_number_is_read_as_what_it_is(read: Read, text: str, value: str | int) -> None:
    summary = read(PANEL % ("{}", text)).settings.combinations[0].summary
    assert summary is not None
    assert summary.history == value


@pytest.mark.parametrize("text", ["some", "0", "-1", "1.5", "[1]"])
def test_what_is_neither_the_word_nor_the_number_is_refused(read: Read, text: str) -> None:
    (found,) = faults(read, PANEL % ("{}", text))
    assert "summary.history: must be " in found


def test_params_are_json_of_any_shape(read: Read) -> None:
    text = "{a: 1, b: [1.5, null, true, yes], c: {d: text, e: 2026-01-01}}"
    params = read(PANEL % (text, "all")).settings.combinations[0].members[2].params
    assert params == {"a": 1, "b": [1.5, None, True, True], "c": {"d": "text", "e": "2026-01-01"}}


def test_params_hold_no_number_that_json_does_not_know(read: Read) -> None:
    (found,) = faults(read, PANEL % ("{a: .nan}", "all"))
    assert "members[2].params.a: must be a number" in found


def test_a_fault_in_a_name_does_not_make_its_users_faulty_too(read: Read) -> None:
    found = faults(read, (PANEL % ("{}", "all")).replace("models:", "modles:"))
    assert found == ["2:67: channels[0].modles: unknown key, did you mean models?"]


def test_a_fault_elsewhere_hides_no_wrong_name(read: Read) -> None:
    text = (PANEL % ("{}", "all")).replace("kind:", "weight: x, kind:").replace("model: b", "model: bb")
    assert [found.split(": ")[1] for found in faults(read, text)] == [
        "channels[0].weight",
        "combinations[0].members[1].model",
    ]
