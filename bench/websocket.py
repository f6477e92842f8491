"""As much of RFC 6455 as a watcher needs: a handshake, masked text out, frames in. No socket."""

from __future__ import annotations

import base64
import struct

from bench.framing import HEAD_END, BadFraming

PROTOCOL = "antiphon.events.v1"
TEXT = 1
_KEY = base64.b64encode(b"the speed rig...").decode()
_MASK = b"\x00\x00\x00\x00"  # the text stays as it is: a mask is there to be undone


def handshake(path: str, headers: dict[str, str]) -> bytes:
    """The request that asks for a websocket. Compression is not offered."""
    lines = {
        **headers,
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": _KEY,
        "sec-websocket-protocol": PROTOCOL,
    }
    text = "\r\n".join([f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())])
    return text.encode() + HEAD_END


def masked_text(text: bytes) -> bytes:
    """A client's text message, up to 64 KiB."""
    size = len(text)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
    return b"\x81" + length + _MASK + text


class Frames:
    """Takes a server's frames apart as they come."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the whole frames that ``data`` completes: opcode and content. Raises BadFraming."""
        data = self._held + data
        frames, at = [], 0
        while len(data) - at >= 2:
            first, size = data[at], data[at + 1]
            begin = at + 2
            if not first & 0x80 or first & 0x70 or size & 0x80:
                raise BadFraming(f"not a server's whole frame: {data[at : at + 20]!r}")
            if size >= 126:
                width = 2 if size == 126 else 8
                if len(data) < begin + width:
                    break
                size = int.from_bytes(data[begin : begin + width], "big")
                begin += width
            if len(data) < begin + size:
                break
            frames.append((first & 0x0F, data[begin : begin + size]))
            at = begin + size
        self._held = data[at:]
        return frames
