"""Keeps what is too large for memory while it is under way: in a temporary file that has no name.

The file's bytes are written and read in threads, since a disk may make one wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from typing import BinaryIO

from server.errors import Overloaded, RequestTooLarge
from server.settings import Uploads

log = logging.getLogger("antiphon.uploads")

STEP_BYTES = 1024 * 1024
"""So much is gathered before it is written; what is smaller in all never touches the disk."""
READ_BYTES = 256 * 1024
LASTING = "/var/tmp"


class UploadRoom:
    """How much of the disk the uploads of the process take. (bytes)"""

    def __init__(self) -> None:
        self.taken = 0


class Spool:
    """One upload. ``add`` its bytes, then ``finish``; from then on ``pieces`` gives them, as often as asked.

    Whoever makes it closes it, which removes the file. ``size``: its bytes up to now.
    """

    def __init__(self, limits: Uploads, room: UploadRoom) -> None:
        self.size = 0
        self._limits = limits
        self._room = room
        self._gathered = bytearray()
        self._written = 0
        self._file: BinaryIO | None = None

    async def add(self, data: bytes) -> None:
        """Keep these bytes too.

        Raises ``RequestTooLarge`` beyond what one upload may have, ``Overloaded`` where there is no room.
        """
        self.size += len(data)
        if self.size > self._limits.max_bytes:
            raise RequestTooLarge(f"The form is larger than the limit of {self._limits.max_bytes} bytes.")
        self._gathered += data
        if len(self._gathered) >= STEP_BYTES:
            gathered, self._gathered = self._gathered, bytearray()
            await self._write(gathered)

    async def finish(self) -> None:
        """Nothing more comes."""
        if self._file is not None:
            gathered, self._gathered = self._gathered, bytearray()
            await self._write(gathered)

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` to ``end``, in order. Raises ``Overloaded`` if they cannot be read."""
        if self._file is None:
            if end > start:
                yield bytes(self._gathered[start:end])
            return
        while start < end:
            try:
                data = await asyncio.to_thread(self._read, start, min(READ_BYTES, end - start))
            except OSError as error:
                raise _no_room(error) from error
            start += len(data)
            yield data

    def close(self) -> None:
        """Remove what was kept."""
        self._room.taken -= self._written
        self._written = 0
        self._gathered.clear()
        if self._file is not None:
            self._file.close()

    async def _write(self, data: bytearray) -> None:
        if self._room.taken + len(data) > self._limits.all_bytes:
            raise Overloaded("Too much is being uploaded at once; try again later.", retry_after_s=5)
        self._room.taken += len(data)
        self._written += len(data)
        try:
            if self._file is None:
                folder = self._limits.dir or spool_folder()
                self._file = tempfile.TemporaryFile(dir=folder, prefix="antiphon-")  # noqa: SIM115 - see close
            # Not by the file's number: a thread that outlives its upload must not write into another's.
            await asyncio.to_thread(_write_all, self._file, data)
        except OSError as error:
            raise _no_room(error) from error

    def _read(self, at: int, size: int) -> bytes:
        assert self._file is not None
        data = os.pread(self._file.fileno(), size, at)
        if not data:
            raise OSError("the temporary file is shorter than what was written into it")
        return data


def spool_folder() -> str | None:
    """Where temporary files go that nobody has chosen a place for; None: wherever Python puts them.

    Not /tmp, which many systems hold in memory (FHS 5.15: /var/tmp is kept over a restart).
    """
    return LASTING if "TMPDIR" not in os.environ and os.access(LASTING, os.W_OK | os.X_OK) else None


def _write_all(file: BinaryIO, data: bytearray) -> None:
    file.write(data)
    file.flush()


def _no_room(error: OSError) -> Overloaded:
    log.error("an upload cannot be kept: %s; see uploads.dir in the configuration", error)
    return Overloaded("The server cannot keep the upload; try again later.", retry_after_s=30)
