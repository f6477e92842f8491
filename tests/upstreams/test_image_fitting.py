"""An image is passed on as it is where it fits, and made to fit where it does not."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from server.upstreams.image_fetch import image_type
from server.upstreams.image_fitting import Bounds, Unfit, fit

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
    assert fit(data, BOUNDS, MANY) == (f"image/{form.lower()}", data)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "BMP", "TIFF"])
def test_other_formats_become_png(form: str) -> None:
    kind, data = fit(encoded(form), BOUNDS, MANY)
    assert (kind, image_type(data), opened(data).size) == ("image/png", "image/png", (60, 40))


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (30, 30), color) for color in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    _, data = fit(out.getvalue(), BOUNDS, MANY)
    assert opened(data).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_an_image_that_lies_on_its_side_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    kind, data = fit(encoded("JPEG", (80, 20), exif=exif), BOUNDS, MANY)
    image = opened(data)
    assert (kind, image.size) == ("image/jpeg", (20, 80))
    assert image.getexif().get(0x0112, 1) == 1


def test_transparency_is_kept_in_a_png_and_white_in_a_jpeg() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(out, "WEBP")
    _, data = fit(out.getvalue(), BOUNDS, MANY)
    assert opened(data).getpixel((1, 1)) == (0, 0, 0, 0)
    only_jpeg = Bounds(types=frozenset({"image/jpeg"}), max_bytes=60_000, max_side=400, max_pixels=90_000)
    kind, data = fit(out.getvalue(), only_jpeg, MANY)
    assert kind == "image/jpeg"
    assert opened(data).convert("L").getpixel((20, 20)) == 255


@given(width=st.integers(11, 900), height=st.integers(11, 900), form=st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_whatever_its_size_it_ends_within_all_bounds_and_keeps_its_shape(
    width: int, height: int, form: str
) -> None:
    kind, data = fit(encoded(form, (width, height)), BOUNDS, MANY)
    image = opened(data)
    assert kind in BOUNDS.types
    assert len(data) <= BOUNDS.max_bytes
    assert max(image.size) <= BOUNDS.max_side
    assert image.width * image.height <= BOUNDS.max_pixels
    if min(image.size) > 20:
        assert image.width / image.height == pytest.approx(width / height, rel=0.1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encoded("PNG", (4000, 3000)), "too many"),
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
    """30,000 x 30,000 white pixels in a few hundred kilobytes: nine hundred million once decoded."""
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000), 1).save(out, "PNG")
    with pytest.raises(Unfit, match="too many"):
        fit(out.getvalue(), BOUNDS, 50_000_000)


def test_one_that_cannot_be_made_small_enough_is_refused() -> None:
    tiny = Bounds(types=frozenset({"image/png"}), max_bytes=50, max_side=400, max_pixels=90_000)
    with pytest.raises(Unfit, match="smaller than 50 bytes"):
        fit(encoded("PNG", (300, 300)), tiny, MANY)
