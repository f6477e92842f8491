from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.framing import BadFraming, ChunkedBody, content_length, is_chunked, status_of


def chunked(contents: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*contents, b""])


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400)))
def test_chunks_read_the_same_however_they_are_cut(contents: list[bytes], cuts: list[int]) -> None:
    data = chunked(contents)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    body = ChunkedBody()
    found = b"".join(body.feed(data[a:b]) for a, b in pairwise(places))
    assert found == b"".join(contents)
    assert body.over


def test_a_body_without_its_last_chunk_is_not_over() -> None:
    body = ChunkedBody()
    assert body.feed(b"3\r\nabc\r\n0\r\n") == b"abc"
    assert not body.over


@pytest.mark.parametrize("data", [b"3\r\nabcd\r\n", b"x\r\n", b"-3\r\n", b"0\r\n\r\nmore", b"1" * 5000])
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(BadFraming):
        ChunkedBody().feed(data)


def test_a_head_is_read_whatever_its_case() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-LENGTH:  12 \r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"
    assert (status_of(head), content_length(head), is_chunked(head)) == (200, 12, True)


def test_a_head_without_a_length_has_none() -> None:
    head = b"HTTP/1.0 404 Not Found\r\nx-content-length: 4\r\n\r\n"
    assert (status_of(head), content_length(head), is_chunked(head)) == (404, None, False)


def test_a_line_that_is_no_status_line_is_refused() -> None:
    with pytest.raises(BadFraming):
        status_of(b"SSH-2.0\r\n\r\n")
