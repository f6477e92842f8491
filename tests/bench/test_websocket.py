from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.framing import BadFraming
from bench.websocket import TEXT, Frames, handshake, masked_text
from tests.bench.answers import frame


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(0, 1500)))
def test_frames_read_the_same_however_they_are_cut(texts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frame(text) for text in texts)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    frames = Frames()
    found = [one for a, b in pairwise(places) for one in frames.feed(data[a:b])]
    assert found == [(TEXT, text) for text in texts]


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
def test_every_width_of_a_length_is_read(size: int) -> None:
    assert Frames().feed(frame(b"x" * size)) == [(TEXT, b"x" * size)]


@pytest.mark.parametrize("data", [b"\x01\x00", b"\xc1\x00", b"\x81\x80", b"HTTP"])
def test_what_no_server_may_send_here_is_refused(data: bytes) -> None:
    with pytest.raises(BadFraming):
        Frames().feed(data)


@pytest.mark.parametrize("size", [0, 125, 126, 1000])
def test_a_client_s_text_is_masked_and_whole(size: int) -> None:
    sent = masked_text(b"x" * size)
    assert sent[0] == 0x81
    assert sent[1] & 0x80
    assert sent.endswith(b"x" * size)


def test_the_handshake_names_the_subprotocol_and_bears_the_key() -> None:
    lines = handshake("/v1/events", {"host": "x", "authorization": "Bearer k"}).split(b"\r\n")
    assert lines[0] == b"GET /v1/events HTTP/1.1"
    assert b"authorization: Bearer k" in lines
    assert b"sec-websocket-protocol: antiphon.events.v1" in lines
    assert lines[-2:] == [b"", b""]
