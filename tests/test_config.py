"""From files and environment to one snapshot, or to every fault at once; and the files that are shipped."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import msgspec.inspect
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.config import SHIPPED, ConfigError, default_path, describe, load
from server.settings import Settings, Timeouts
from tests.config_files import CHANNEL, Read, faults, reader

ROOT = Path(__file__).parent.parent
DEFAULT = ROOT / "conf" / "config.yaml"
EXAMPLES = sorted((ROOT / "conf" / "examples").glob("*.yaml"))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env of the checkout takes part."""
    monkeypatch.chdir(tmp_path)


def structs(kind: object) -> Iterator[msgspec.inspect.StructType]:
    """Every struct within a type, itself included."""
    if isinstance(kind, msgspec.inspect.StructType):
        yield kind
        for field in kind.fields:
            yield from structs(field.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            yield from structs(option)
    elif isinstance(kind, msgspec.inspect.VarTupleType):
        yield from structs(kind.item_type)
    elif isinstance(kind, msgspec.inspect.DictType):
        yield from structs(kind.value_type)


FIELDS = sorted(
    {field.encode_name for one in structs(msgspec.inspect.type_info(Settings)) for field in one.fields}
)


# ---- what is shipped


def test_the_default_file_runs_as_it_is_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(DEFAULT, {})
    assert loaded.warnings == []
    assert [one.name for one in loaded.settings.combinations] == ["parallel", "direct", "race", "all"]
    assert loaded.settings.default_combination == "parallel"
    assert (loaded.settings.server.host, loaded.settings.server.port) == ("127.0.0.1", 18888)


def test_the_members_of_the_default_panel_differ_in_prompt_and_temperature() -> None:
    parallel = load(DEFAULT, {}).settings.combinations[0]
    assert len({member.system for member in parallel.members}) == 3
    assert len({member.temperature for member in parallel.members}) == 3
    assert parallel.summary is not None
    assert parallel.summary.fallback == ("best_draft",)


@pytest.mark.parametrize("field", FIELDS)
def test_every_key_is_named_in_the_default_file_and_in_the_documentation(field: str) -> None:
    assert re.search(rf"^[ #-]*{field}:|[{{ ]{field}:", DEFAULT.read_text(), re.MULTILINE)
    assert f"| `{field}` |" in (ROOT / "docs" / "config.md").read_text()


def test_the_default_file_holds_no_key_that_is_none() -> None:
    named = set(re.findall(r"^[ #-]*([a-z_]+):(?: |$)", DEFAULT.read_text(), re.MULTILINE))
    assert named <= set(FIELDS)


def test_what_is_commented_out_in_the_default_file_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = (Path(__file__).parent / "localhost.pem").read_text("utf-8")
    for file in ("model.gguf", "ca.pem", "client.pem", "client.key"):
        (tmp_path / file).write_text(pair)
    (tmp_path / "accuracies.json").write_text('{"accuracies": {}}')
    text = re.sub(r"^( *)#(?=- |[a-z_-]+:)", r"\1", DEFAULT.read_text(), flags=re.MULTILINE)
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "k")
    settings = reader(tmp_path)(text, variables).settings
    for section in ("server", "cors", "runs", "events", "logging"):
        assert getattr(settings, section) == getattr(Settings(), section)
    assert settings.channels[1].timeouts.over(Timeouts(connect_s=1)) == Timeouts()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_good_once_its_variables_are_set(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = re.findall(r"\$\{(\w+)", example.read_text())
    wanted = set(names) - set(re.findall(r"\$\{(\w+):-", example.read_text()))
    assert load(example, {name: f"value-of-{name}" for name in wanted}).settings.channels


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_starts_without_its_variables(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is not set"):
        load(example, {})


def test_the_packages_own_file_is_the_default_file() -> None:
    assert SHIPPED.read_bytes() == DEFAULT.read_bytes()


# ---- which file, which variables


def test_the_file_is_the_options_then_the_variables_then_the_folders_then_ours(tmp_path: Path) -> None:
    environ = {"ANTIPHON_CONFIG": "/from/variable.yaml"}
    assert default_path("/from/option.yaml", environ, cwd=tmp_path) == Path("/from/option.yaml")
    assert default_path(None, environ, cwd=tmp_path) == Path("/from/variable.yaml")
    assert default_path(None, {}, cwd=tmp_path) == SHIPPED
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").touch()
    assert default_path(None, {}, cwd=tmp_path) == tmp_path / "conf" / "config.yaml"


def test_a_file_that_is_not_there_is_told_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file"):
        load(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, {})


def test_the_environment_wins_over_env_files_and_the_nearer_one_over_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("A=cwd\nB=cwd\nC=cwd\n")
    (folder / ".env").write_text("A=beside\nB='beside'\nexport D=\"be $ide\" # a note\nE\n")
    text = CHANNEL.replace("[a, b, d]", '["${A}", "${B}", "${C}", "${D}"]')
    loaded = reader(folder)(text, {"A": "real"})
    assert loaded.settings.channels[0].models == ("real", "beside", "cwd", "be $ide")
    assert [file.resolve() for file in loaded.files] == [
        folder / "config.yaml",
        folder / ".env",
        tmp_path / ".env",
    ]


def test_a_folder_called_env_is_not_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert len(read("server: {port: 1}").files) == 1


def test_an_env_file_that_is_not_text_is_told(read: Read, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff")
    assert faults(read, "server: {port: 1}") == [".env: must be UTF-8 text"]


def test_host_and_port_of_the_environment_win(read: Read) -> None:
    server = read("server: {port: 1}", {"ANTIPHON_HOST": "::1", "ANTIPHON_PORT": "8080"}).settings.server
    assert (server.host, server.port) == ("::1", 8080)
    assert read("server: {port: 1}", {"ANTIPHON_HOST": "", "ANTIPHON_PORT": ""}).settings.server.port == 1


def test_a_wrong_variable_is_told_by_its_name(read: Read) -> None:
    assert faults(read, CHANNEL, {"ANTIPHON_PORT": "s3cret"}) == [
        "ANTIPHON_PORT: must be a whole number from 0 to 65535"
    ]
    (found,) = faults(read, CHANNEL, {"ANTIPHON_HOST": "0.0.0.0"})
    assert found.startswith("ANTIPHON_HOST: server.host: refuses to start open")


def test_keys_of_the_environment_stand_beside_those_of_the_file(read: Read) -> None:
    text = "access: {keys: [{name: env-1, key: k1}]}"
    keys = read(text, {"ANTIPHON_KEYS": " k2, ,k1,k3,,k2"}).settings.access.keys
    assert [(key.name, key.key) for key in keys] == [("env-1", "k1"), ("env-2", "k2"), ("env-3", "k3")]


def test_an_empty_list_of_keys_adds_none(read: Read) -> None:
    assert read(CHANNEL, {"ANTIPHON_KEYS": ", ,"}).settings.access.keys == ()


def test_with_a_key_of_the_environment_the_server_may_listen_anywhere(read: Read) -> None:
    loaded = read("server: {host: '::'}", {"ANTIPHON_KEYS": "k"})
    assert loaded.settings.server.host == "::"


def test_a_key_of_the_environment_that_no_header_can_carry_is_refused_and_not_shown(read: Read) -> None:
    assert faults(read, CHANNEL, {"ANTIPHON_KEYS": "s3cret with blanks"}) == [
        "ANTIPHON_KEYS: each key must be printable ASCII without blanks"
    ]


# ---- what would be served


def test_what_would_be_served_is_described_without_a_secret(read: Read) -> None:
    text = """
        access: {keys: [{name: me, key: s3cret}, {name: old, key: s3cret2, disabled: true}]}
        channels:
          - {name: c, kind: openai, base_url: https://x.example/v1, api_key: s3cret, models: [a, b]}
          - {name: spare, kind: local, models: [z], enabled: false}
        aliases: {fast: a}
        combinations:
          - name: p
            members: [{model: a, samples: 2, temperature: 1}, {id: two, model: b}]
            summary: {model: a}
          - {name: q, strategy: direct, model: a, vision_model: b}
    """
    loaded = read(text)
    told = describe(loaded.settings, loaded.warnings)
    assert "s3cret" not in told
    for line in (
        "http://127.0.0.1:18888/v1",
        "me, old (disabled)",
        "c  openai, 2 models",
        "spare  local, 1 model, priority 0  (disabled)",
        "a  by c",
        "p  synthesize",
        "m1 a ×2, two b",
        "a, images: b",
        "fast → a",
        "no members for images",
    ):
        assert line in told
    assert "z  by" not in told


# ---- whatever the file


LINES = DEFAULT.read_text().splitlines()
WORDS = [
    "",
    "yes",
    "~",
    "-1",
    "010",
    "[",
    "{",
    "}",
    "*a",
    "&a",
    "<<: *a",
    "${A}",
    "${",
    "!!x",
    "\t",
    "'",
    '"',
    ":",
    "- ",
    "1e99",
]


def mutated(seed: int, count: int) -> str:
    """The default file with ``count`` random changes of lines, words and letters."""
    chance = random.Random(seed)
    lines = [
        re.sub(r"^( *)#(?=- |[a-z_-]+:)", r"\1", line) if chance.random() < 0.3 else line for line in LINES
    ]
    for _ in range(count):
        at = chance.randrange(len(lines))
        line = lines[at]
        match chance.randrange(6):
            case 0:
                lines.insert(at, chance.choice(lines))
            case 1:
                lines[at] = ""
            case 2:
                lines[at] = line.partition(":")[0] + ": " + chance.choice(WORDS)
            case 3:
                lines[at] = " " * chance.randrange(6) + line.strip()
            case 4:
                cut = chance.randrange(len(line) + 1)
                lines[at] = (
                    line[:cut]
                    + chr(chance.choice([0, 9, 10, 34, 0x85, 0x2028, 0xD7FF, 0x1F600]))
                    + line[cut:]
                )
            case 5:
                cut = chance.randrange(len(line) + 1)
                lines[at] = line[:cut] + chance.choice(WORDS) + line[cut + 1 :]
    return "\n".join(lines)


def only_config_errors(path: Path) -> None:
    try:
        load(path, {"A": "x"})
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        return
    assert lines
    for line in lines:
        assert line.startswith(str(path))
        assert "Expected `" not in line


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 12))
def test_a_changed_default_file_gives_settings_or_faults_and_nothing_else(
    tmp_path: Path, seed: int, count: int
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(mutated(seed, count), encoding="utf-8", newline="")
    only_config_errors(path)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.text(alphabet="abk:-[]{}&*!|>'\"#%@`,?<~$ \n\t01.", max_size=80).map(str.encode),
    )
)
@example(data=b'"\\UFFFFFFFF"')
@example(data=b"%YAML 9999999999999999999999.1\n--- a")
@example(data=b"a: &a\n  <<: *a\n")
@example(data=b"server: {port: 0x" + b"f" * 5000 + b"}")
def test_whatever_bytes_give_settings_or_faults_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(data)
    only_config_errors(path)
