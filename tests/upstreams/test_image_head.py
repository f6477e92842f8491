"""Heads of images agree with what a decoder would say, and no bytes break their reading."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from server.upstreams.image_head import Head, image_type, jpeg_scans, orientation_in, read_head


def encoded(form: str, size: tuple[int, int] = (61, 43), mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 77 if len(mode) == 1 else None).save(out, form, **options)
    return out.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


EVERY_KIND: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "RGB", {}),
    ("PNG", "1", {}),
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {"progressive": True}),
    ("JPEG", "CMYK", {}),
    ("GIF", "L", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"exif": turned(6)}),
    ("BMP", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"big_tiff": False}),
]


@pytest.mark.parametrize(("form", "mode", "options"), EVERY_KIND)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_kind_and_size_are_those_that_were_encoded(
    form: str, mode: str, options: dict[str, Any], width: int, height: int
) -> None:
    head = read_head(encoded(form, (width, height), mode, **options))
    assert head is not None
    assert (head.kind, head.width, head.height) == (f"image/{form.lower()}", width, height)
    assert head.whole
    assert head.orientation == 1


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_told_how_an_image_lies(form: str, orientation: int) -> None:
    head = read_head(encoded(form, exif=turned(orientation)))
    assert head is not None
    assert head.orientation == orientation


def test_an_orientation_that_is_none_counts_as_upright() -> None:
    for number in (0, 9, 65535):
        tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, number, 0)
        assert orientation_in(b"Exif\0\0" + tiff) == 1
    assert orientation_in(b"") == 1


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_one_that_was_cut_off_is_not_whole(form: str) -> None:
    head = read_head(encoded(form)[:-4])
    assert head is not None
    assert not head.whole


def test_a_bitmap_may_stand_on_its_head_or_be_of_the_oldest_kind() -> None:
    plain = encoded("BMP", (5, 7))
    upside_down = plain[:22] + struct.pack("<i", -7) + plain[26:]
    oldest = plain[:14] + struct.pack("<IHH", 12, 5, 7) + bytes(20)
    assert read_head(upside_down) == read_head(oldest) == Head("image/bmp", 5, 7)


def test_the_scans_of_a_jpeg_are_counted() -> None:
    for progressive, scans in ((False, 1), (True, 10)):
        data = encoded("JPEG", progressive=progressive)
        head = read_head(data)
        assert head is not None
        assert jpeg_scans(data, head.pixels_at) == scans


@given(
    st.sampled_from([encoded(form, mode=mode, **options) for form, mode, options in EVERY_KIND]),
    st.integers(0, 3000),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=8),
)
def test_no_bytes_break_it(seed: bytes, end: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(seed)
    for at, byte in changes:
        data[at % len(data)] = byte
    head = read_head(bytes(data[:end]))
    assert head is None or head.pixels > 0


@given(st.binary(max_size=60))
def test_what_has_no_known_beginning_has_no_head(data: bytes) -> None:
    assert image_type(data) or read_head(data) is None


def test_a_jpeg_of_endless_parts_is_given_up() -> None:
    assert read_head(b"\xff\xd8" + b"\xff\xe0\0\x02" * 100_000) is None
    assert read_head(b"\xff\xd8" + b"\xff" * 400_000) is None
