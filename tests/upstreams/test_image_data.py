"""Images in data URIs, well and badly encoded."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.upstreams.image_data import decode_data_uri

PNG = b"\x89PNG\r\n\x1a\n"


def decoded(uri: str, max_bytes: int = 1000) -> bytes:
    return decode_data_uri(uri, max_bytes=max_bytes, param="messages[0].content[0].image_url")


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.booleans())
def test_every_spelling_of_base64_gives_the_same_bytes(
    tail: bytes, safe: bool, bare: bool, blank: bool
) -> None:
    data = PNG + tail
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    text = text.rstrip("=") if bare else text
    text = "\r\n ".join(text[at : at + 5] for at in range(0, len(text), 5)) if blank else text
    assert decoded(f"data:image/png;base64,{text}") == data


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("image/x-png", PNG),
        ("IMAGE/PNG", PNG),
        ("image/jpg", b"\xff\xd8\xff\xe0"),
        ("image/pjpeg", b"\xff\xd8\xff\xe0"),
        ("image/x-ms-bmp", b"BM" + bytes(30)),
        ("image/png;charset=utf-8", PNG),
        ("", PNG),
    ],
)
def test_the_types_other_names_are_known(declared: str, data: bytes) -> None:
    assert decoded(f"data:{declared};base64,{base64.b64encode(data).decode()}") == data


@given(st.integers(990, 1010), st.booleans())
def test_the_limit_is_that_of_the_bytes_and_blanks_do_not_count(size: int, blank: bool) -> None:
    text = base64.b64encode(PNG + bytes(size - len(PNG))).decode()
    uri = "data:image/png;base64," + ("\r\n".join(text) if blank else text)
    if size <= 1000:
        assert len(decoded(uri)) == size
    else:
        with pytest.raises(InvalidRequest, match="larger than 1000 bytes"):
            decoded(uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64", "base64"),
        ("data:image/png;base64,iVBORw0KGgo!", "not valid base64"),
        ("data:image/png;base64,iVBOR", "not valid base64"),
        ("data:image/png;base64,é", "not valid base64"),
        ("data:image/png;base64,\ud800", "not valid base64"),
        ("data:image/png;base64,", "no format"),
        ("data:image/png;base64,PGh0bWw+", "no format"),
        ("data:image/jpeg;base64,iVBORw0KGgo=", "image/png by its first bytes"),
        ("data:image/png;base64," + "A" * 4000, "larger"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(uri: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        decoded(uri)
    assert (caught.value.code, caught.value.param) == (
        "invalid_image_url",
        "messages[0].content[0].image_url",
    )
