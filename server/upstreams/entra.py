"""Tokens of Microsoft Entra for a channel: read from a file or printed by a command, and kept for a while."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import msgspec

from server.errors import UpstreamAuth

# A command that says nothing for so long has failed. (seconds)
COMMAND_S = 30.0
MAX_TOKEN_BYTES = 64 * 1024


class _Printed(msgspec.Struct, rename={"token": "accessToken", "other": "access_token"}):
    """What ``az account get-access-token`` prints, and what others do."""

    token: str = ""
    other: str = ""


class TokenSource:
    """One channel's token, had anew after ``every_s`` seconds, or as soon as it was refused.

    Whoever comes while it is being had waits for the same.
    """

    def __init__(self, file: str | None, command: tuple[str, ...], every_s: float) -> None:
        self._file, self._command, self._every_s = file, command, every_s
        self._token = ""
        self._until = 0.0
        self._lock = asyncio.Lock()

    def kept(self, now: float) -> str | None:
        """The token, while it is good; ``now`` is the event loop's time."""
        return self._token if self._token and now < self._until else None

    def forget(self) -> None:
        """It was refused: the next call has it anew."""
        self._until = 0.0

    async def get(self) -> str:
        """The token, had anew if need be. Raises UpstreamAuth, which tells the operator what to mend."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if (kept := self.kept(loop.time())) is not None:
                return kept
            token = _token_in(await (self._printed() if self._command else self._read()))
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise UpstreamAuth(
                    "The channel's token file or command holds no token; the operator must mend it."
                )
            self._token, self._until = token, loop.time() + self._every_s
            return token

    async def _read(self) -> bytes:
        try:
            return await asyncio.to_thread(_head, Path(self._file or ""))
        except OSError as error:
            raise UpstreamAuth(
                "The channel's token_file cannot be read; the operator must mend it."
            ) from error

    async def _printed(self) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise UpstreamAuth(
                "The channel's token_command cannot be run; the operator must mend it."
            ) from error
        try:
            async with asyncio.timeout(COMMAND_S):
                printed, _ = await process.communicate()
        except TimeoutError as error:
            raise UpstreamAuth(
                "The channel's token_command does not end; the operator must mend it."
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise UpstreamAuth("The channel's token_command fails; the operator must mend it.")
        return printed


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_TOKEN_BYTES)


def _token_in(data: bytes) -> str:
    text = data.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return text
    try:
        printed = msgspec.json.decode(text, type=_Printed)
    except msgspec.MsgspecError:
        return ""
    return printed.token or printed.other
