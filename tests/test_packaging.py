"""What is built and installed: the wheel and the lock files, judged against the tree."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: setuptools leaves a build folder in the tree that it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("server", "conf"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, tree], check=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def pins(lock: str) -> dict[str, str]:
    """Name → version of each package in a lock file."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", (ROOT / lock).read_text(), re.MULTILINE))


def required(option: str) -> set[str]:
    """The names that setup.cfg requires, as a lock file spells them."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    section = "options" if option == "install_requires" else "options.extras_require"
    lines = setup[section][option].split("\n")
    return {re.split(r"[<>=;~ ]", line, maxsplit=1)[0].lower() for line in lines if line.strip()}


def test_the_wheel_holds_every_module_and_page(wheel: zipfile.ZipFile) -> None:
    tree = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "server").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tree <= set(wheel.namelist())


def test_the_wheel_holds_the_default_configuration_word_for_word(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("server/conf/config.yaml") == (ROOT / "conf/config.yaml").read_bytes()


def test_the_wheel_holds_nothing_but_the_server(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == {"server"}


def test_the_wheel_installs_the_antiphon_command(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "antiphon = server.__main__:main" in wheel.read(entry_points).decode()


def test_the_lock_pins_what_setup_cfg_requires() -> None:
    assert required("install_requires") | required("local") <= pins("requirements.lock").keys()
    assert required("dev") <= pins("requirements-dev.lock").keys()


def test_both_locks_agree_on_every_version() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_lock_names_a_host_or_a_folder(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(lock))
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|file:|\s/", text)


def test_the_lock_leaves_out_what_the_embedded_model_does_without() -> None:
    excluded = {"llm", "llama-cpp-python"}
    assert not excluded & pins("requirements-dev.lock").keys()
