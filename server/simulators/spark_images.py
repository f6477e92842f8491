"""What a simulated Spark checks of a picture: its encoding, its size, its sides."""

from __future__ import annotations

import base64
import binascii
import struct

from server.simulators.spark_errors import SparkFault

MAX_IMAGE_BYTES = 4 * 1024 * 1024
IMAGE_TOKENS = 273
_MAX_SIDE = 12800
_MIN_PIXELS, _MAX_PIXELS = 50 * 50, 6000 * 6000
# Start-of-frame markers of JPEG; the others of that range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_image(content: str) -> None:
    """Raise SparkFault unless ``content`` is the plain base64 of a PNG or JPEG that Spark takes."""
    try:
        image = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SparkFault(10003, "image content is not base64") from error
    if len(image) > MAX_IMAGE_BYTES:
        raise SparkFault(10003, "image is larger than 4M")
    size = _png_size(image) or _jpeg_size(image)
    if size is None:
        raise SparkFault(10003, "image format is not jpg, jpeg or png")
    if max(size) > _MAX_SIDE:
        raise SparkFault(10029)
    if not _MIN_PIXELS <= size[0] * size[1] <= _MAX_PIXELS:
        raise SparkFault(10041)


def _png_size(image: bytes) -> tuple[int, int] | None:
    if image[:8] != b"\x89PNG\r\n\x1a\n" or image[12:16] != b"IHDR" or len(image) < 24:
        return None
    width, height = struct.unpack(">II", image[16:24])
    return width, height


def _jpeg_size(image: bytes) -> tuple[int, int] | None:
    if image[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 <= len(image) and image[at] == 0xFF:
        marker = image[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", image[at + 5 : at + 9])
            return width, height
        (length,) = struct.unpack(">H", image[at + 2 : at + 4])
        at += 2 + length
    return None
