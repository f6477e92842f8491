"""Reads a ``multipart/form-data`` body that is all there."""

from __future__ import annotations

import re
from typing import NamedTuple

from server.simulators.errors import Fault, Refused

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'[; ]name="([^"]*)"')
_FILENAME = re.compile(rb'filename="([^"]*)"')


class Field(NamedTuple):
    """One field; a file has a ``filename``."""

    data: bytes
    filename: str | None = None

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


def read_form(body: bytes, content_type: str) -> dict[str, Field]:
    """The fields of a form by name, the last of each name. Raises Refused."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        raise Refused(Fault(415, "Unsupported Media Type: expected multipart/form-data with a boundary."))
    line = b"--" + boundary[1].encode()
    _before, *parts = (b"\r\n" + body).split(b"\r\n" + line)
    if not parts or not parts[-1].startswith(b"--"):
        raise Refused(Fault(400, "Could not parse multipart form."))
    fields = {}
    for part in parts[:-1]:
        head, blank, data = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not blank or name is None:
            raise Refused(Fault(400, "Could not parse multipart form."))
        filename = _FILENAME.search(head)
        fields[name[1].decode()] = Field(data, filename[1].decode() if filename else None)
    return fields
