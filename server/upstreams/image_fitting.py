"""Making an image fit an upstream's bounds: another format, fewer pixels, upright. Synchronous, for a thread.

Pillow is the extra ``images``: decoding four formats, and scaling well, is nothing to write anew.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import msgspec

from server.upstreams.image_fetch import image_type

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
# What is tried to come below a size in bytes: the quality of a JPEG, and how much smaller its sides are.
_ATTEMPTS = ((90, 1.0), (80, 0.8), (70, 0.6), (60, 0.4), (50, 0.25))
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


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
        return f"{kinds} of at most {self.max_bytes} bytes"


class Unfit(ValueError):
    """The image cannot be made to fit; the text goes on after 'The image'."""


@functools.cache
def can_convert() -> bool:
    """Is Pillow there?"""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return False
    return True


def fit(data: bytes, bounds: Bounds, max_pixels: int) -> tuple[str, bytes]:
    """Media type and bytes of the image within ``bounds``; unchanged if it is already.

    An animated one gives its first frame. Raises ``Unfit`` for what is broken, smaller than the bounds, or
    has more than ``max_pixels`` pixels, which its head tells before anything is decoded.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # we look ourselves, before decoding; Pillow would only warn
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Unfit(f"has {width} x {height} pixels, which is too many; send a smaller one")
            if width * height < bounds.min_pixels:
                raise Unfit(f"has only {width} x {height} pixels; send a larger one")
            kind = image_type(data) or ""
            within = (
                kind in bounds.types
                and len(data) <= bounds.max_bytes
                and max(width, height) <= bounds.max_side
                and width * height <= bounds.max_pixels
                and image.getexif().get(_ORIENTATION, 1) == 1
            )
            if within:
                image.load()  # a broken one is refused here, with a better word than the upstream's
                return kind, data
            return _converted(image, kind, bounds)
    except Unfit:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise Unfit("cannot be read; it is broken or cut off") from error


def _converted(image: Image.Image, kind: str, bounds: Bounds) -> tuple[str, bytes]:
    from PIL import Image, ImageOps

    image.seek(0)
    upright = ImageOps.exif_transpose(image)
    clear = "A" in upright.getbands() or "transparency" in upright.info
    plain = upright.convert("RGBA" if clear else "RGB")
    plain.thumbnail((bounds.max_side, bounds.max_side), Image.Resampling.LANCZOS)
    if (pixels := plain.width * plain.height) > bounds.max_pixels:
        _shrink(plain, (bounds.max_pixels / pixels) ** 0.5)
    if kind != "image/jpeg" and "image/png" in bounds.types:
        encoded = io.BytesIO()
        plain.save(encoded, "PNG")
        if encoded.tell() <= bounds.max_bytes:
            return "image/png", encoded.getvalue()
    if clear:  # a JPEG has no transparency: white shows through, as on paper
        paper = Image.new("RGB", plain.size, "white")
        paper.paste(plain, mask=plain.getchannel("A"))
        plain = paper
    for quality, scale in _ATTEMPTS:
        smaller = plain.copy()
        _shrink(smaller, scale)
        encoded = io.BytesIO()
        smaller.save(encoded, "JPEG", quality=quality)
        if encoded.tell() <= bounds.max_bytes:
            return "image/jpeg", encoded.getvalue()
    raise Unfit(f"cannot be made smaller than {bounds.max_bytes} bytes; send a smaller one")


def _shrink(image: Image.Image, scale: float) -> None:
    from PIL import Image

    if scale < 1:
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        image.thumbnail(size, Image.Resampling.LANCZOS)
