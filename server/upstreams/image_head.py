"""What an image's first bytes tell: its kind, its size, whether it lies on its side. No pixel is decoded.

So a bomb is known before anything is made of it, and what an upstream can take goes on unread. The formats'
own documents are the source: PNG (ISO 15948), JPEG (T.81), EXIF and TIFF 6.0, GIF89a, the WebP container.
"""

from __future__ import annotations

import struct

import msgspec

_EOI, _SOS = 0xD9, 0xDA
# Start-of-frame markers of JPEG; the others of that range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
# A photograph has some twenty parts before its pixels, and some forty EXIF tags; more are not looked through.
_MOST_PARTS = 2000
_MOST_TAGS = 500
_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"


class Head(msgspec.Struct, frozen=True):
    """``orientation`` is EXIF's (1: upright, to 8), ``whole`` false for what was evidently cut off.

    ``pixels_at`` is where a JPEG's first scan begins; 0 for other kinds.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    whole: bool = True
    pixels_at: int = 0

    @property
    def pixels(self) -> int:
        """In all."""
        return self.width * self.height


def image_type(data: bytes) -> str | None:
    """The media type by the first bytes (png, jpeg, gif, webp, bmp, tiff); None: another."""
    if data.startswith(_PNG):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "image/tiff"
    return "image/bmp" if data.startswith(b"BM") and len(data) > 26 else None


def read_head(data: bytes) -> Head | None:
    """The head, or None where it is of no known kind or broken. Never raises, whatever the bytes."""
    kind = image_type(data)
    try:
        match kind:
            case "image/png":
                head = _png(data)
            case "image/jpeg":
                head = _jpeg(data)
            case "image/gif":
                head = Head(kind, *struct.unpack_from("<HH", data, 6))
            case "image/webp":
                head = _webp(data)
            case "image/bmp":
                head = _bmp(data)
            case "image/tiff":
                tags = _tags(data)
                head = Head(kind, tags[_WIDTH], tags[_HEIGHT])
            case _:
                return None
    except (struct.error, KeyError):  # it ends, or lacks what must be there
        return None
    return head if head is not None and head.pixels > 0 else None


def orientation_in(exif: bytes) -> int:
    """How an image is to be turned, by its EXIF block; 1 (upright) where that does not tell."""
    try:
        found = _tags(exif.removeprefix(b"Exif\0\0")).get(_ORIENTATION, 1)
    except struct.error:
        return 1
    return found if 1 <= found <= 8 else 1


def jpeg_scans(data: bytes, pixels_at: int) -> int:
    """How many scans a JPEG has, from ``pixels_at`` to its end; with several it is decoded as a whole."""
    end = data.find(bytes((0xFF, _EOI)), pixels_at)
    return data.count(bytes((0xFF, _SOS)), pixels_at, end if end > 0 else len(data))


def _png(data: bytes) -> Head | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at = 1, 8
    for _ in range(_MOST_PARTS):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"eXIf":
            orientation = orientation_in(data[at + 8 : at + 8 + length])
        elif name == b"IDAT":
            return Head("image/png", width, height, orientation, data.rfind(_PNG_END) > at)
        at += 12 + length
    return None


def _jpeg(data: bytes) -> Head | None:
    size, orientation, at = (0, 0), 1, 2
    for _ in range(_MOST_PARTS):
        lead, marker = struct.unpack_from("BB", data, at)
        if lead != 0xFF:
            return None
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = width, height
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = orientation_in(data[at + 4 : at + 2 + length])
        elif marker == _SOS:
            return Head("image/jpeg", *size, orientation, data.rfind(bytes((0xFF, _EOI))) > at, at)
        at += 2 + length
    return None


def _webp(data: bytes) -> Head | None:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return Head("image/webp", width & 0x3FFF, height & 0x3FFF)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return Head("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8X":
            low, rest = struct.unpack_from("<IH", data, 24)  # two numbers of 24 bits
            return Head("image/webp", (low & 0xFFFFFF) + 1, (low >> 24 | rest << 8) + 1)
    return None


def _bmp(data: bytes) -> Head:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's
        return Head("image/bmp", *struct.unpack_from("<HH", data, 18))
    width, height = struct.unpack_from("<ii", data, 18)
    return Head("image/bmp", abs(width), abs(height))  # negative: from the top down


def _tags(tiff: bytes) -> dict[int, int]:
    """The plain numbers of the first directory of a TIFF block, by tag."""
    order = "<" if tiff[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    found: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * min(count, _MOST_TAGS), 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if kind in (3, 4):  # SHORT and LONG; a single one stands in the entry itself
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", tiff, entry + 8)
    return found
