"""Making an image fit an upstream's bounds: another format, fewer pixels, upright. Synchronous, for a thread.

Pillow is the extra ``images``: decoding six formats, and scaling well, is nothing to write anew. What it is
given has been judged by its head before, and of a picture's pixels there is one copy at a time.
"""

from __future__ import annotations

import base64
import io
import logging
from typing import TYPE_CHECKING

import msgspec

from server.upstreams.image_head import Head, jpeg_scans, orientation_in, read_head

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger("antiphon.upstream")

# What is tried to come below a size in bytes: the quality of a JPEG, and how much smaller its sides are.
_ATTEMPTS = ((90, 1.0), (80, 0.8), (70, 0.6), (60, 0.4), (50, 0.25))
# So many times more pixels than are decoded may a JPEG have, for its decoder can halve the sides. One of
# several scans is held as a whole meanwhile, at up to six bytes a pixel.
_HALVED, _HALVED_IN_SCANS = 4, 2
# An encoder writes ten or so. Each is worked through for the whole picture, and may be a few bytes long.
_MOST_SCANS = 64
# Modes that are scaled well as they are; the others become RGB first.
_SCALED = frozenset({"L", "RGB", "RGBA", "CMYK"})
# EXIF's orientations, by Pillow's names of what sets them upright.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class Bounds(msgspec.Struct, frozen=True):
    """What an upstream takes: media types, bytes, the longer side, and pixels in all."""

    types: frozenset[str]
    max_bytes: int
    max_side: int
    max_pixels: int
    min_pixels: int = 1

    def said(self) -> str:
        """In words."""
        kinds = " or ".join(sorted(kind.removeprefix("image/") for kind in self.types))
        return f"{kinds} of at most {self.max_bytes} bytes and {self.max_pixels} pixels"


class Fitted(msgspec.Struct, frozen=True):
    """An image within its bounds. ``done`` says in ASCII words what was done to it; "": nothing."""

    kind: str
    data: bytes
    done: str = ""

    @property
    def uri(self) -> str:
        """As a data URI."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode()}"


class Unfit(ValueError):
    """The image cannot be made to fit; the text goes on after 'The image'."""


class NoPillow(Unfit):
    """It could be, but what it takes is not installed."""


class _TooLong(Exception):
    """More was written than may be."""


class _Limited(io.BytesIO):
    """Takes so many bytes, so that an encoder is stopped early."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, data: object) -> int:
        written = super().write(data)  # type: ignore[arg-type]
        if self.tell() > self._limit:
            raise _TooLong
        return written


def as_it_is(data: bytes, bounds: Bounds) -> Fitted | None:
    """The image if it is within ``bounds`` by its head, None if it must be converted.

    Quick enough for the event loop. Raises ``Unfit`` for what no conversion helps: it is broken, cut off or
    smaller than the bounds.
    """
    head = _judged(data, bounds)
    within = (
        head.kind in bounds.types
        and len(data) <= bounds.max_bytes
        and max(head.width, head.height) <= bounds.max_side
        and head.pixels <= bounds.max_pixels
        and head.orientation == 1
    )
    return Fitted(head.kind, data) if within else None


def fit(data: bytes, bounds: Bounds, max_pixels: int) -> Fitted:
    """The image within ``bounds``; unchanged if it is already, an animated one as its first frame.

    No more than ``max_pixels`` pixels are decoded, at up to twenty bytes each (webp; others take ten).
    Raises ``Unfit`` for what is broken, smaller than the bounds, or has too many pixels, which its head
    tells; ``NoPillow`` where it would have to be converted and cannot.
    """
    if fitting := as_it_is(data, bounds):
        return fitting
    head = _judged(data, bounds)
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise NoPillow(
            f"would have to be converted, and this server cannot (the extra 'images' is not installed); "
            f"send {bounds.said()}, upright"
        ) from None
    _refuse_many(head, data, max_pixels)
    try:
        picture = _decoded(data, head, bounds, max_pixels)
        fitted = _encoded(picture, head, bounds)
    except Unfit:
        raise
    except Exception as error:  # a decoder's: OSError, struct.error, SyntaxError, TypeError, MemoryError, …
        log.info("an image (%s) could not be converted: %s", head.kind, type(error).__name__)
        raise Unfit("cannot be read; it is broken or cut off") from error
    return fitted


def _judged(data: bytes, bounds: Bounds) -> Head:
    head = read_head(data)
    if head is None or not head.whole:
        raise Unfit("cannot be read; it is broken or cut off")
    if head.pixels < bounds.min_pixels:
        raise Unfit(f"has only {head.width} x {head.height} pixels; send a larger one")
    return head


def _refuse_many(head: Head, data: bytes, max_pixels: int) -> None:
    most = max_pixels
    if head.kind == "image/jpeg":
        scans = jpeg_scans(data, head.pixels_at)
        if scans > _MOST_SCANS:
            raise Unfit(f"is a jpeg of {scans} scans; save it anew with fewer")
        most *= _HALVED if scans == 1 else _HALVED_IN_SCANS
    if head.pixels > most:
        raise _too_many(head.width, head.height)


def _too_many(width: int, height: int) -> Unfit:
    return Unfit(f"has {width} x {height} pixels, which is too many; send a smaller one")


def _decoded(data: bytes, head: Head, bounds: Bounds, max_pixels: int) -> Image.Image:
    """The first frame, upright, within the bounds' pixels, as RGB or RGBA; nothing of the decoder is left."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=(head.kind.removeprefix("image/").upper(),)) as image:
        if head.pixels > max_pixels:  # a jpeg
            width, height = _room(head.width, head.height, bounds)
            image.draft(None, (min(2 * width, head.width // 2) or 1, min(2 * height, head.height // 2) or 1))
        if image.width * image.height > max_pixels:  # a gif's frame may be larger than its head says
            raise _too_many(*image.size)
        # Pillow turns a tiff itself.
        turn = 1 if head.kind == "image/tiff" else orientation_in(image.info.get("exif", b"")[:65_536])
        mode = "RGBA" if image.has_transparency_data else "RGB"
        picture: Image.Image = image if image.mode in _SCALED else image.convert(mode)
        picture.thumbnail(_room(*picture.size, bounds), Image.Resampling.LANCZOS)
        if turn != 1:
            picture = picture.transpose(Image.Transpose[_TURNS[turn]])
        if picture.mode != mode:
            picture = picture.convert(mode)
            picture.info.pop("icc_profile", None)  # it described the other mode
        return picture.copy() if picture is image else picture


def _room(width: int, height: int, bounds: Bounds) -> tuple[int, int]:
    """The size within the bounds' side and pixels, of the same shape."""
    scale = min(1.0, bounds.max_side / max(width, height), (bounds.max_pixels / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _encoded(picture: Image.Image, head: Head, bounds: Bounds) -> Fitted:
    """No more bytes than the bounds allow. ``picture`` is scaled in place."""
    from PIL import Image

    if head.kind != "image/jpeg" and "image/png" in bounds.types:
        try:
            return _fitted(head, picture, _saved(picture, "PNG", bounds.max_bytes), "image/png")
        except _TooLong:
            pass  # as a JPEG it is smaller
    if picture.mode == "RGBA":  # a JPEG has no transparency: white shows through, as on paper
        paper = Image.new("RGB", picture.size, "white")
        paper.paste(picture, mask=picture.getchannel("A"))
        picture = paper
    width, height = picture.size
    for quality, scale in _ATTEMPTS:
        smaller = max(1, int(width * scale)), max(1, int(height * scale))
        picture.thumbnail(smaller, Image.Resampling.LANCZOS)
        try:
            data = _saved(picture, "JPEG", bounds.max_bytes, quality=quality)
            return _fitted(head, picture, data, "image/jpeg")
        except _TooLong:
            continue
    raise Unfit(f"cannot be made smaller than {bounds.max_bytes} bytes; send a smaller one")


def _saved(picture: Image.Image, form: str, max_bytes: int, **options: int) -> bytes:
    out = _Limited(max_bytes)
    picture.save(out, form, **options)
    return out.getvalue()


def _fitted(head: Head, picture: Image.Image, data: bytes, kind: str) -> Fitted:
    done = []
    if kind != head.kind:
        done.append(f"converted from {head.kind.removeprefix('image/')} to {kind.removeprefix('image/')}")
    if sorted(picture.size) != sorted((head.width, head.height)):
        sizes = f"{head.width} x {head.height} to {picture.width} x {picture.height}"
        done.append(f"scaled from {sizes} pixels")
    if head.orientation != 1:
        done.append("set upright")
    return Fitted(kind, data, ", ".join(done) or "encoded anew")
