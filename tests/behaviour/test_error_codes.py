"""Every code of an error that a client may be sent stands in the table of docs/behaviour.md, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from server import errors

ROOT = Path(__file__).resolve().parents[2]
NOT_SENT = frozenset({"cancelled"})
"""Of a call within a run: told in events, never as an answer's error."""
CLOCKS = ("connect", "first_token", "idle", "total")


def families(kind: type[errors.ServerError] = errors.ServerError) -> Iterator[type[errors.ServerError]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from families(derived)


def written_codes() -> Iterator[str]:
    """What the code gives as ``code=`` to a call, as a class's ``code``, or to an error's ``code``."""
    for path in sorted((ROOT / "server").rglob("*.py")):
        if "simulators" in path.parts:  # they play upstreams, whose words are not ours
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                values = [word.value for word in node.keywords if word.arg == "code"]
                if isinstance(node.func, ast.Name) and node.func.id == "Kind":  # Spark's table
                    values += node.args[2:3]
            elif isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Attribute) and target.attr == "code" for target in node.targets
            ):
                values = [node.value]
            for value in values:
                parts = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
                for part in parts:
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def sent() -> set[str]:
    codes = {kind.code for kind in families() if kind.__module__.startswith("server.")}
    return {*codes, *written_codes(), *(f"upstream_timeout_{clock}" for clock in CLOCKS)} - NOT_SENT


def documented() -> set[str]:
    text = (ROOT / "docs" / "behaviour.md").read_text()
    table = text.partition("| case | status | type | code |")[2].partition("\n\n")[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| ") and "---" not in row]
    return {code for row in rows for code in re.findall(r"`([a-z0-9_]+)`", row[-1])}


def test_the_table_has_every_code_that_is_sent() -> None:
    assert sorted(sent() - documented()) == []


def test_the_table_has_no_code_that_is_never_sent() -> None:
    everything = "\n".join(
        path.read_text() for path in (ROOT / "server").rglob("*.py") if "simulators" not in path.parts
    )
    made = {f"upstream_timeout_{clock}" for clock in CLOCKS}
    assert sorted(code for code in documented() - made if f'"{code}"' not in everything) == []
