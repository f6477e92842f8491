"""Where a form's ``model`` stands, found while the form passes by; RFC 7578 and 2046. No I/O.

Nothing is kept of the form but what the next bytes may complete: a delimiter, or the head of a part.
"""

from __future__ import annotations

import re

from server.errors import InvalidRequest

MAX_HEAD_BYTES = 16 * 1024
MAX_PARTS = 1000
MAX_MODEL_BYTES = 1000
MAX_BOUNDARY = 70
"""RFC 2046, 5.1.1."""
MAX_BLANKS = 100
"""Between a delimiter and the end of its line."""

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]*)"|([^;\s"]+))', re.IGNORECASE)
_BOUNDARY_CHARS = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]*[0-9A-Za-z'()+_,\-./:=?]")
_DISPOSITION = re.compile(
    rb"(?:^|\r\n)content-disposition:[ \t]*form-data[ \t]*(;[^\r\n]*|)(?=\r\n|$)", re.IGNORECASE
)
_PARAMETER = re.compile(
    rb';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*)[ \t]*'
)


class FormScanner:
    """Reads one form as it passes. ``feed`` its bytes in order, then ``eof``; both raise ``InvalidRequest``.

    ``model`` is the value of the field of that name, None if there was none up to now, and ``model_at`` its
    place: the offsets of its first byte and of the one behind its last. ``boundary`` is the form's, and
    ``begins_at`` where its first part begins.
    """

    def __init__(self, boundary: str) -> None:
        self.boundary = boundary.encode()
        self.model: str | None = None
        self.model_at: tuple[int, int] | None = None
        self.begins_at = 0
        self._delimiter = b"\r\n--" + self.boundary
        self._rest = b"\r\n"  # what stands before the first delimiter need not end a line
        self._at = -2  # the offset of the first byte of the rest
        self._state = self._passing
        self._value: bytearray | None = None  # of the model's field, while it passes
        self._value_at = 0
        self._parts = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._ended:
            return
        self._rest = self._rest + data if self._rest else data
        while self._state():
            pass

    def eof(self) -> None:
        """Note that nothing more comes."""
        if not self._ended:
            raise _broken("it ends before its last boundary")

    def _passing(self) -> bool:
        """Within a part, or before the first one: up to the next delimiter."""
        found = self._rest.find(self._delimiter)
        if found < 0:
            # All but what may be the beginning of a delimiter.
            self._take(max(0, len(self._rest) - len(self._delimiter) + 1))
            return False
        self._take(found)
        if self._value is not None:
            self._model_ends()
        if not self._parts:
            self.begins_at = self._at + 2
        self._drop(len(self._delimiter))
        self._state = self._behind_delimiter
        return True

    def _behind_delimiter(self) -> bool:
        """The end of a delimiter's line: another part follows, or with two hyphens none."""
        if self._rest.startswith(b"--"):
            self._ended = True
            self._rest = b""
            return False
        end = self._rest.find(b"\r\n")
        line = self._rest[: end if end >= 0 else None]
        if line.strip(b" \t\r-") or len(line) > MAX_BLANKS:
            raise _broken("a boundary is followed by something else than the end of its line")
        if end < 0:
            return False
        if line.strip(b" \t"):
            raise _broken("a boundary is followed by something else than the end of its line")
        self._drop(end)  # with the line's end begins the head, which may be empty
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise _broken(f"it has more than {MAX_PARTS} parts")
        self._state = self._head
        return True

    def _head(self) -> bool:
        """The head of a part, with the line's end before it."""
        end = self._rest.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._rest) > MAX_HEAD_BYTES):
            raise _broken(f"a part's head has more than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        name, is_file = _name_of(self._rest[2:end])
        self._drop(end + 4)
        if name == b"model" and not is_file:
            if self.model_at is not None:
                raise InvalidRequest(
                    "The field 'model' stands twice in the form; send it once.",
                    param="model",
                    code="duplicate_key",
                )
            self._value, self._value_at = bytearray(), self._at
        self._state = self._passing
        return True

    def _take(self, count: int) -> None:
        """Pass by bytes of a part's content."""
        if self._value is not None:
            self._value += self._rest[:count]
            if len(self._value) > MAX_MODEL_BYTES:
                raise InvalidRequest(
                    f"The field 'model' has more than {MAX_MODEL_BYTES} bytes; no model is called so.",
                    param="model",
                )
        self._drop(count)

    def _drop(self, count: int) -> None:
        self._rest = self._rest[count:]
        self._at += count

    def _model_ends(self) -> None:
        assert self._value is not None
        value, self._value = bytes(self._value), None
        self.model_at = (self._value_at, self._value_at + len(value))
        try:
            self.model = value.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(
                "The field 'model' is not UTF-8.", param="model", code="invalid_type"
            ) from None


def boundary_of(content_type: str) -> str:
    """The boundary that a form's Content-Type names. Raises ``InvalidRequest``."""
    if not (content_type.isascii() and content_type.isprintable()):
        raise _broken("its Content-Type is not plain ASCII")
    found = _BOUNDARY.search(content_type)
    boundary = (found[1] if found[1] is not None else found[2]) if found else ""
    if len(boundary) > MAX_BOUNDARY or not _BOUNDARY_CHARS.fullmatch(boundary):
        raise _broken("its Content-Type names no boundary that can be one")
    return boundary


def model_field(boundary: bytes, name: str) -> bytes:
    """A part to be put before the first one of a form that names no model."""
    return b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (boundary, name.encode())


def _name_of(head: bytes) -> tuple[bytes, bool]:
    """A part's name, and whether it is a file. Raises ``InvalidRequest``."""
    found = _DISPOSITION.search(head)
    if found is None:
        raise _broken("a part has no Content-Disposition of form-data")
    given: dict[bytes, bytes] = {}
    at = 0
    while parameter := _PARAMETER.match(found[1], at):
        value = parameter[2].strip(b" \t")
        given.setdefault(parameter[1].lower(), value[1:-1] if value.startswith(b'"') else value)
        at = parameter.end()
    if b"name" not in given:
        raise _broken("a part has no name")
    return given[b"name"], b"filename" in given or b"filename*" in given


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The form cannot be read: {why}; send multipart/form-data as clients make it.", code="invalid_form"
    )
