"""An image is passed on as it is where it fits, and made to fit where it does not."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from server.upstreams.image_fitting import Bounds, Fitted, Unfit, as_it_is, fit
from server.upstreams.image_head import image_type

BOUNDS = Bounds(
    types=frozenset({"image/png", "image/jpeg"}),
    max_bytes=60_000,
    max_side=400,
    max_pixels=90_000,
    min_pixels=100,
)
MANY = 10_000_000


def encoded(form: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(out, form, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_what_fits_is_passed_on_byte_for_byte(form: str) -> None:
    data = encoded(form)
    assert fit(data, BOUNDS, MANY) == as_it_is(data, BOUNDS) == Fitted(f"image/{form.lower()}", data)


def test_what_fits_is_not_decoded_whatever_its_pixels_are() -> None:
    """Its pixels are broken, and too many to be decoded: neither is looked at."""
    data = bytearray(encoded("PNG", (300, 300)))
    data[200:-50] = bytes(len(data) - 250)
    assert fit(bytes(data), msgspec.structs.replace(BOUNDS, max_bytes=400_000), 10).data == bytes(data)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "BMP", "TIFF"])
def test_other_formats_become_png(form: str) -> None:
    got = fit(encoded(form), BOUNDS, MANY)
    assert (got.kind, image_type(got.data), opened(got.data).size) == ("image/png", "image/png", (60, 40))
    assert got.done == f"converted from {form.lower()} to png"


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (30, 30), color) for color in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    data = fit(out.getvalue(), BOUNDS, MANY).data
    assert opened(data).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_an_image_that_lies_on_its_side_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    got = fit(encoded("JPEG", (80, 20), exif=exif), BOUNDS, MANY)
    image = opened(got.data)
    assert (got.kind, image.size, got.done) == ("image/jpeg", (20, 80), "set upright")
    assert image.getexif().get(0x0112, 1) == 1


def test_transparency_is_kept_in_a_png_and_white_in_a_jpeg() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(out, "WEBP")
    data = fit(out.getvalue(), BOUNDS, MANY).data
    assert opened(data).getpixel((1, 1)) == (0, 0, 0, 0)
    only_jpeg = Bounds(types=frozenset({"image/jpeg"}), max_bytes=60_000, max_side=400, max_pixels=90_000)
    got = fit(out.getvalue(), only_jpeg, MANY)
    assert got.kind == "image/jpeg"
    assert opened(got.data).convert("L").getpixel((20, 20)) == 255


@given(width=st.integers(11, 900), height=st.integers(11, 900), form=st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_whatever_its_size_it_ends_within_all_bounds_and_keeps_its_shape(
    width: int, height: int, form: str
) -> None:
    got = fit(encoded(form, (width, height)), BOUNDS, MANY)
    image = opened(got.data)
    assert got.kind in BOUNDS.types
    assert len(got.data) <= BOUNDS.max_bytes
    assert max(image.size) <= BOUNDS.max_side
    assert image.width * image.height <= BOUNDS.max_pixels
    if min(image.size) > 20:
        assert image.width / image.height == pytest.approx(width / height, rel=0.1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encoded("PNG", (4000, 3000)), "too many"),
        (encoded("JPEG")[:-2], "cut off"),
        (encoded("PNG", (9, 9)), "only 9 x 9"),
        (encoded("PNG")[:200], "broken"),
        (encoded("JPEG", (900, 900))[:900], "broken"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "broken"),
        (b"GIF89a", "broken"),
        (b"no image at all", "broken"),
    ],
)
def test_what_cannot_be_made_to_fit_is_told_why(data: bytes, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        fit(data, BOUNDS, MANY)


def test_a_bomb_is_refused_by_its_head() -> None:
    """Nine hundred million pixels, as it says."""
    data = encoded("PNG", mode="1")
    data = data[:16] + struct.pack(">II", 30_000, 30_000) + data[24:]
    with pytest.raises(Unfit, match="30000 x 30000 pixels, which is too many"):
        fit(data, BOUNDS, 50_000_000)


def test_a_photograph_with_more_pixels_than_are_decoded_is_decoded_at_half_its_sides() -> None:
    for progressive in (False, True):
        data = encoded("JPEG", (2000, 1500), progressive=progressive)
        got = fit(
            data, msgspec.structs.replace(BOUNDS, max_bytes=MANY, max_side=1999, max_pixels=MANY), 1_600_000
        )
        assert opened(got.data).size == (1000, 750)
        assert got.done == "scaled from 2000 x 1500 to 1000 x 750 pixels"
    with pytest.raises(Unfit, match="too many"):
        fit(data, BOUNDS, 1_400_000)  # progressive, more than twice as many


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded("JPEG", (900, 900))
    scans = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 100
    with pytest.raises(Unfit, match="101 scans"):
        fit(data[:-2] + scans + data[-2:], BOUNDS, MANY)


def test_a_gif_whose_frame_is_larger_than_its_head_says_is_refused() -> None:
    data = bytearray(encoded("GIF", (60, 40)))
    at = data.index(b"\x2c", 13 + 768)
    data[at + 5 : at + 9] = struct.pack("<HH", 9000, 9000)
    with pytest.raises(Unfit, match=r"9000 x 9000 pixels|broken"):
        fit(bytes(data), BOUNDS, MANY)


# Run in a child, whose memory is then only this conversion's: stdin is the image, stdout its peak in MiB.
PEAK = """
import sys
import PIL.Image
from server.settings import Images
from server.upstreams.image_fitting import Unfit, fit
from server.upstreams.spark import IMAGE_BOUNDS

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

data = sys.stdin.buffer.read()
PIL.Image.init()
before = peak()
try:
    fit(data, IMAGE_BOUNDS, Images().max_pixels)
except Unfit:
    pass
print((peak() - before) // 1024)
"""


def on_its_side() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is told by Linux alone")
@pytest.mark.parametrize("million", [16, 48])
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("WEBP", "RGBA", {"lossless": True}),
        ("PNG", "RGBA", {"exif": on_its_side()}),
        ("PNG", "P", {"exif": on_its_side()}),
        ("GIF", "L", {}),
        ("TIFF", "F", {"compression": "tiff_deflate"}),
        ("JPEG", "RGB", {"exif": on_its_side()}),
        ("JPEG", "CMYK", {"exif": on_its_side(), "progressive": True}),
    ],
)
def test_no_file_takes_much_memory_under_the_default_settings(
    form: str, mode: str, options: dict[str, Any], million: int
) -> None:
    """A few hundred bytes of webp can be a whole canvas: what is decoded at all stays below 300 MiB."""
    side = int((million * 1_000_000) ** 0.5)
    out = io.BytesIO()
    Image.new(mode, (side, side)).save(out, form, **options)
    asked = subprocess.run(
        [sys.executable, "-c", PEAK], input=out.getvalue(), capture_output=True, check=True
    )
    assert int(asked.stdout) < 300


SEEDS = [
    encoded("JPEG", exif=on_its_side()),
    encoded("PNG", exif=on_its_side()),
    encoded("PNG", mode="P"),
    encoded("GIF"),
    encoded("WEBP", mode="RGBA"),
    encoded("WEBP", exif=on_its_side()),
    encoded("BMP"),
    encoded("TIFF", exif=on_its_side()),
    encoded("TIFF", compression="tiff_lzw"),
]
SMALL = Bounds(
    types=frozenset({"image/png", "image/jpeg"}), max_bytes=1500, max_side=30, max_pixels=900, min_pixels=10
)


@settings(max_examples=400)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    end=st.integers(0, 200),
)
def test_no_broken_file_raises_anything_but_unfit(
    seed: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(seed)
    for at, byte in changes:
        data[at % len(data)] = byte
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of much that is odd
        try:
            got = fit(bytes(data[: len(data) - end if end < 100 else None]), SMALL, 100_000)
        except Unfit:
            return
    assert got.kind in SMALL.types
    assert len(got.data) <= SMALL.max_bytes


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
# EXIF blocks that Pillow's own reading of them fails on: a directory beyond the end, a tag of an odd type.
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0II*\0\x08\0\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x06",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
        b"Exif\0\0nothing",
    ],
)
def test_a_broken_exif_block_is_passed_over(exif: bytes) -> None:
    wide = encoded("JPEG", (600, 30), exif=exif)
    assert opened(fit(wide, BOUNDS, MANY).data).size == (400, 20)


def test_one_that_cannot_be_made_small_enough_is_refused() -> None:
    tiny = Bounds(types=frozenset({"image/png"}), max_bytes=50, max_side=400, max_pixels=90_000)
    with pytest.raises(Unfit, match="smaller than 50 bytes"):
        fit(encoded("PNG", (300, 300)), tiny, MANY)
