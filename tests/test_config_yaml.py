"""A file's places, keys and aliases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.config import ConfigError, load
from tests.config_files import CHANNEL, Read, faults, reader


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


def test_a_key_that_stands_twice_is_refused_at_its_second_place(read: Read) -> None:
    found = faults(read, "server:\n  port: 1\n  host: ::1\n  port: 2\n")
    assert found == ["4:3: server.port: stands twice; the first is in line 2"]


def test_a_key_that_stands_twice_is_refused_within_free_maps_too(read: Read) -> None:
    member = (
        "combinations: [{name: p, members: [{model: a, params: {x: {y: 1, y: 2}}}], summary: {model: a}}]"
    )
    assert "stands twice" in faults(read, CHANNEL + member)[0]


def test_anchors_aliases_and_merge_keys_work(read: Read) -> None:
    settings = read("""
        channels:
          - &base {name: one, kind: openai, base_url: https://a.example/v1, models: [a], priority: 7}
          - {<<: *base, name: two}
    """).settings
    assert [(one.name, one.priority) for one in settings.channels] == [("one", 7), ("two", 7)]


def test_of_several_merged_maps_the_first_wins_and_what_stands_here_wins_over_all(read: Read) -> None:
    settings = read("""
        runs: &a {keep_s: 1, max_runs: 1}
        logging: {level: info}
        events: {}
        server: {<<: [{port: 1, drain_s: 1}, {port: 2, keepalive_s: 2}], drain_s: 9}
    """).settings.server
    assert (settings.port, settings.drain_s, settings.keepalive_s) == (1, 9, 2)


def test_merging_what_is_no_map_is_refused(read: Read) -> None:
    assert faults(read, "server: {<<: 5}") == ["1:14: server: << takes a map, or a list of maps"]


def test_an_alias_within_its_own_anchor_is_refused(read: Read) -> None:
    found = faults(read, "aliases: &a\n  x: *a\n")
    assert found[0] == "1:10: aliases.x: an alias stands within the very value that it names"


def test_an_alias_bomb_is_refused_before_it_grows(read: Read) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "values, aliases counted" in faults(read, "\n".join(lines))[0]


def test_a_merge_bomb_is_refused_before_it_grows(read: Read) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    assert "values, aliases counted" in faults(read, "\n".join(lines))[0]


def test_a_file_that_is_too_large_is_refused(read: Read) -> None:
    assert "larger than 1024 KiB" in faults(read, "# " + "x" * 1024 * 1024)[0]


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{a: " * 5000, "- " * 2000 + "x"])
def test_a_file_that_is_nested_too_deep_is_refused_with_its_place(read: Read, text: str) -> None:
    (found,) = faults(read, text)
    assert found.startswith("1:")
    assert found.endswith("is nested more than 64 deep")


def test_a_byte_order_mark_is_no_part_of_the_text(read: Read) -> None:
    assert read("\ufeffserver: {port: 5}").settings.server.port == 5


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"server:\n  host: \xff\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:2:9: must be UTF-8 text"):
        load(tmp_path / "config.yaml", {})


def test_a_control_character_is_refused_with_its_place(read: Read) -> None:
    assert faults(read, "server:\n  host: a\0b\n")[0].startswith("2:10: holds a control character")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: b: c\n", "1:5: a second ':'"),
        ("server:\n\tport: 1\n", "2:1: a tab stands"),
        ("a: *nothing\n", "an alias names an anchor that stands nowhere"),
        ("a: 1\n---\nb: 2\n", "holds a second document"),
        ("server: {port: ${PORT}}\n", "a variable wants quotes"),
        ("a: 'open\n", "quotes"),
        ("a: [1, 2\nb: 3\n", "not valid YAML here"),
        ("server: !!python/object:os.system {}\n", "YAML tags"),
        ("server: !secret-looking\n", "YAML tags"),
        ("server: {on: 1}\n", "a key must be text"),
        ("? [a]\n: b\n", "a key must be text"),
    ],
)
def test_broken_yaml_is_told_in_words_with_its_place(read: Read, text: str, words: str) -> None:
    found = faults(read, text)
    assert words in found[0]
    assert found[0][0].isdigit()


def test_no_text_of_a_broken_line_is_repeated(read: Read) -> None:
    for text in (
        "api_key: *s3cret\n",
        "api_key: !s3cret\n",
        "api_key: @s3cret\n",
        "a: b: s3cret\n",
        "a: 's3cret",
    ):
        assert "s3cret" not in "\n".join(faults(read, text))


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_refused_with_what_is_missing(read: Read, text: str) -> None:
    (found,) = faults(read, text)
    assert "is empty; it has to name at least one channel" in found


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_secret_in_a_file_that_others_can_read_is_a_warning(read: Read, tmp_path: Path) -> None:
    read("access: {keys: [{name: a, key: s3cret-a}, {name: b, key: '${B}'}]}", {"B": "s3cret-b"})
    (tmp_path / "config.yaml").chmod(0o644)
    loaded = load(tmp_path / "config.yaml", {"B": "s3cret-b"})
    (key,) = [warning.key for warning in loaded.warnings if "secret" in warning.message]
    assert key == "access.keys[0].key"
    assert "s3cret" not in "".join(map(str, loaded.warnings))
