"""A form that passes by: its model is found wherever it stands, and nothing else is kept."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.multipart import (
    MAX_HEAD_BYTES,
    MAX_MODEL_BYTES,
    MAX_PARTS,
    FormScanner,
    boundary_of,
    model_field,
)

Part = tuple[str, bytes]
MODEL: Part = ('name="model"', b"whisper")
FILE: Part = ('name="file"; filename="a.mp3"', b"\r\n--not the end\r\n--x\r")


def form(*parts: Part, boundary: str = "xyz", preamble: bytes = b"", end: bytes = b"--\r\n") -> bytes:
    made = preamble
    for place, (disposition, data) in enumerate(parts):
        made += b"\r\n" * bool(place or preamble) + b"--" + boundary.encode()
        made += f"\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + data
    return made + b"\r\n--" + boundary.encode() + end


def scanned(data: bytes, *cuts: int) -> FormScanner:
    scanner = FormScanner("xyz")
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        scanner.feed(data[start:end])
    scanner.eof()
    return scanner


@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL), (FILE, MODEL, FILE), (MODEL,)])
def test_the_model_is_found_at_any_place_and_byte_by_byte(parts: tuple[Part, ...]) -> None:
    data = form(*parts)
    for cuts in ((), tuple(range(1, len(data)))):
        scanner = scanned(data, *cuts)
        assert scanner.model == "whisper"
        assert scanner.model_at is not None
        start, end = scanner.model_at
        assert data[start:end] == b"whisper"


@given(
    st.lists(st.sampled_from([MODEL, FILE, ('name="language"', b"")]), max_size=4, unique=True),
    st.lists(st.integers(0, 400)),
    st.binary(max_size=60),
)
def test_however_it_is_split_the_same_is_found(parts: list[Part], cuts: list[int], noise: bytes) -> None:
    noise = noise.replace(b"--", b"")
    data = form(*parts, ('name="noise"; filename="n"', noise))
    found = scanned(data, *(cut for cut in cuts if cut < len(data)))
    assert found.model == ("whisper" if MODEL in parts else None)
    assert (found.model, found.model_at) == (scanned(data).model, scanned(data).model_at)


def test_what_stands_before_and_behind_the_form_counts_for_nothing() -> None:
    data = form(MODEL, preamble=b"hello", end=b"-- \r\n" + b'--xyz\r\nname="model"\r\n\r\nother')
    assert scanned(data).model == "whisper"
    assert scanned(form(FILE, MODEL).replace(b"--xyz\r\n", b"--xyz \t\r\n")).model == "whisper"


@pytest.mark.parametrize(
    ("disposition", "found"),
    [
        ("name=model", "whisper"),
        ('NAME="model"', "whisper"),
        ('x="a;name=b" ; name = "model"', "whisper"),
        ('name="model"; filename="m"', None),
        ('filename="; name=\\"model\\""; name="file"', None),
        ('name="Model"', None),
        ('name="models"', None),
    ],
)
def test_a_parts_name_is_read_as_it_is_quoted(disposition: str, found: str | None) -> None:
    assert scanned(form((disposition, b"whisper"))).model == found


def test_an_empty_model_and_one_in_chinese() -> None:
    assert scanned(form(('name="model"', b""))).model == ""
    assert scanned(form(('name="model"', "模型".encode()))).model == "模型"


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", "invalid_form", "ends before its last boundary"),
        (form(MODEL)[:-6], "invalid_form", "ends before"),
        (form(MODEL, end=b"zz\r\n"), "invalid_form", "followed by something else"),
        (form(MODEL, end=b" " * 200 + b"\r\n"), "invalid_form", "followed by something else"),
        (b"--xyz\r\n\r\nx\r\n--xyz--", "invalid_form", "no Content-Disposition"),
        (b"--xyz\r\nA: b\r\n\r\nx\r\n--xyz--", "invalid_form", "no Content-Disposition"),
        (form(('filename="a"', b"x")), "invalid_form", "has no name"),
        (form((f'name="{"a" * MAX_HEAD_BYTES}"', b"")), "invalid_form", "head has more than"),
        (b"--xyz\r\n" + b"a" * (MAX_HEAD_BYTES + 1), "invalid_form", "head has more than"),
        (form(*(('name="a"', b""),) * (MAX_PARTS + 1)), "invalid_form", "more than 1000 parts"),
        (form(MODEL, MODEL), "duplicate_key", "stands twice"),
        (form(('name="model"', b"a" * (MAX_MODEL_BYTES + 1))), "invalid_value", "no model is called so"),
        (form(('name="model"', b"\xff")), "invalid_type", "not UTF-8"),
        (form(MODEL).replace(b"\r\n", b"\n"), "invalid_form", "followed by something else"),
    ],
)
def test_what_is_no_form_is_told_with_its_fault(data: bytes, code: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as raised:
        scanned(data)
    assert raised.value.code == code


def test_a_long_part_leaves_nothing_behind() -> None:
    scanner = FormScanner("xyz")
    scanner.feed(form(FILE, end=b"")[:-8])
    for _ in range(100):
        scanner.feed(b"\r\n--xy" * 1000)
        assert len(scanner._rest) < 10


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('multipart/form-data; charset=utf-8; Boundary="a b:c"', "a b:c"),
        ("multipart/form-data;boundary=----WebKitFormBoundary7MA4", "----WebKitFormBoundary7MA4"),
    ],
)
def test_the_boundary_is_read(content_type: str, boundary: str) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="a "',
        f"multipart/form-data; boundary={'a' * 71}",
    ],
)
def test_what_is_no_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match="names no boundary"):
        boundary_of(content_type)


def test_a_field_that_is_added_is_found() -> None:
    scanner = FormScanner("xyz")
    scanner.feed(model_field(b"xyz", "m") + form(FILE))
    scanner.eof()
    assert scanner.model == "m"


def test_where_the_first_part_begins_is_known() -> None:
    assert scanned(form(FILE)).begins_at == 0
    assert scanned(form(FILE, preamble=b"hello")).begins_at == len(b"hello\r\n")


@pytest.mark.parametrize("odd", ["\u00e9", "\udcff", "\t", "\0"])
def test_a_content_type_that_cannot_go_on_is_refused(odd: str) -> None:
    with pytest.raises(InvalidRequest, match="not plain ASCII"):
        boundary_of(f"multipart/form-data; boundary=x; y={odd}")
