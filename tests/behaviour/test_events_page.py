"""``docs/events.md`` says what is so: every type with its fields, and a client that works."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import msgspec
import pytest

from server.events import DATA_TYPES
from tests.scripted_runs import site

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)`(?:\\\*)? \| (.*) \|$", PAGE, re.MULTILINE))


def test_every_type_stands_in_the_table_and_no_other() -> None:
    assert set(TABLE) == set(DATA_TYPES)


@pytest.mark.parametrize("name", sorted(set(DATA_TYPES) - {"run.incomplete"}))
def test_every_field_stands_in_the_table(name: str) -> None:
    fields = msgspec.structs.fields(DATA_TYPES[name])
    assert [one.name for one in fields if f"`{one.name}`" not in TABLE[name]] == []


def test_an_incomplete_run_has_the_fields_of_a_completed_one_and_a_reason() -> None:
    completed, incomplete = (
        {one.name for one in msgspec.structs.fields(DATA_TYPES[name])}
        for name in ("run.completed", "run.incomplete")
    )
    assert incomplete == completed | {"reason"}


async def test_the_client_on_the_page_works() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    async with site() as shown:
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program.replace(":18888", f":{shown.port}")),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            await _until(client, "'subscribed'")
            run = shown.script().whole()
            assert (await _until(client, "run.completed")).startswith(run.id)
        finally:
            client.kill()
            await client.wait()


async def _until(client: asyncio.subprocess.Process, words: str) -> str:
    """The first line that the client prints with these words."""
    assert client.stdout is not None
    async with asyncio.timeout(30):
        while line := (await client.stdout.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"the client ended without {words}")
