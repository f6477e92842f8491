"""A client that sends the bytes it is told to, and reads answers as strictly as a client may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """One response. Header names are lower-case; of a header given twice the values are joined by a comma."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection; every wait fails after ten seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> bytes:
        """The next line with its end; b"" at the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readline()

    async def head(self) -> Answer:
        """The next response's head, its body left unread."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ", 2)
        headers: dict[str, str] = {}
        for line in lines:
            name, value = line.split(":", 1)
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return Answer(version, int(status), headers, b"")

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next response, whole."""
        head = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            if to_head or head.status in (204, 304) or head.status < 200:
                body = b""
            elif head.headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            elif "content-length" in head.headers:
                body = await self.reader.readexactly(int(head.headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(head.version, head.status, head.headers, body)

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; b"" for the last. Raises IncompleteReadError if it is cut."""
        async with asyncio.timeout(PATIENCE_S):
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def _chunks(self) -> bytes:
        body = b""
        while piece := await self.chunk():
            body += piece
        return body

    async def rest(self) -> bytes:
        """All that comes until the server closes. A reset counts as a close."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def connect(host: str, port: int) -> AsyncIterator[RawClient]:
    """A connection, closed at the end."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the server was faster
