from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import ServerError, UpstreamCut, UpstreamInvalid, UpstreamUnreachable
from server.upstreams.http import KEEP_S, MAX_HEAD_BYTES, MAX_HEADERS
from server.upstreams.http_decoder import MAX_INFLATED, AnswerDecoder

LONG = b"x" * 300
GZIPPED = gzip.compress(LONG, mtime=0)
BARE_DEFLATE = zlib.compress(LONG)[2:-4]


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", b""])


def sized(body: bytes, *lines: bytes) -> bytes:
    return head(b"Content-Length: %d" % len(body), *lines) + body


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(b"Transfer-Encoding: chunked") + framed + b"0\r\n" + trailer + b"\r\n"


class Outcome:
    """What became of an answer, however it was split."""

    def __init__(self, decoder: AnswerDecoder) -> None:
        self.body = b""
        self.error: ServerError | None = None
        try:
            while piece := decoder.take():
                self.body += piece
        except ServerError as error:
            self.error = error
        self.error = self.error or decoder.fault
        self.status, self.headers = decoder.status, decoder.headers
        self.complete, self.reusable, self.at_end = decoder.complete, decoder.reusable, decoder.at_end

    def seen(self) -> tuple[object, ...]:
        code = self.error and self.error.code
        return (self.status, self.headers, self.body, code, self.complete, self.reusable, self.at_end)


def decode(*pieces: bytes, eof: bool = False) -> Outcome:
    decoder = AnswerDecoder()
    for piece in pieces:
        decoder.feed(piece)
    if eof:
        decoder.eof(in_order=True)
    return Outcome(decoder)


WHOLE = {
    "length": sized(b"hello"),
    "empty": sized(b""),
    "chunks": chunked(b"he", b"llo"),
    "trailers": chunked(b"hello", trailer=b"X-Sum: 1\r\nX-More: 2\r\n"),
    "chunk extension": head(b"Transfer-Encoding: chunked") + b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "interim": head(status=b"HTTP/1.1 100 Continue")
    + head(b"Link: a", status=b"HTTP/1.1 103 Hints")
    + sized(b"hi"),
    "204": head(status=b"HTTP/1.1 204 No Content"),
    "304": head(b"Content-Length: 5", status=b"HTTP/1.1 304 Not Modified"),
    "http/1.0": head(b"Content-Length: 2", status=b"HTTP/1.0 200 OK") + b"hi",
    "http/1.0 kept": head(b"Content-Length: 2", b"Connection: keep-alive", status=b"HTTP/1.0 200 OK") + b"hi",
    "close": sized(b"hi", b"Connection: close"),
    "given twice": sized(b"hi", b"X-A: 1", b"x-a:  2 ", b"Empty:"),
    "no reason": head(b"Content-Length: 2", status=b"HTTP/1.1 429") + b"hi",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "gzip": sized(GZIPPED, b"Content-Encoding: gzip"),
    "two gzip members": sized(GZIPPED + GZIPPED, b"Content-Encoding: gzip"),
    "deflate": sized(zlib.compress(LONG), b"Content-Encoding: deflate"),
    "bare deflate": sized(BARE_DEFLATE, b"Content-Encoding: deflate"),
    "identity": sized(b"hi", b"Content-Encoding: identity"),
}
BROKEN = {
    "not http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "http/2": b"HTTP/2 200 OK\r\n\r\n",
    "two lengths": head(b"Content-Length: 1", b"Content-Length: 2") + b"hi",
    "length and chunks": head(b"Content-Length: 1", b"Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n\r\n",
    "bad chunk size": head(b"Transfer-Encoding: chunked") + b"2\r\nhi\r\nzz\r\nhi\r\n0\r\n\r\n",
    "bad chunk end": head(b"Transfer-Encoding: chunked") + b"2\r\nhixx2\r\nhi\r\n",
    "upgrade": head(b"Upgrade: websocket", b"Connection: upgrade", status=b"HTTP/1.1 101 Switching"),
    "status below 100": head(status=b"HTTP/1.1 099 Odd"),
    "gzip, chunked": head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "unknown encoding": sized(b"hi", b"Content-Encoding: br"),
    "broken gzip": sized(b"no gzip at all", b"Content-Encoding: gzip"),
    "cut gzip": sized(GZIPPED[:-12], b"Content-Encoding: gzip"),
}


def test_a_body_ends_at_its_length() -> None:
    answer = decode(WHOLE["length"])
    assert (answer.status, answer.body, answer.at_end, answer.reusable) == (200, b"hello", True, True)


@pytest.mark.parametrize("name", ["chunks", "trailers", "chunk extension"])
def test_a_body_ends_at_its_last_chunk(name: str) -> None:
    answer = decode(WHOLE[name])
    assert (answer.body, answer.at_end, answer.reusable) == (b"hello", True, True)
    assert "x-sum" not in answer.headers


def test_interim_answers_are_skipped() -> None:
    answer = decode(WHOLE["interim"])
    assert (answer.status, answer.body, answer.headers) == (200, b"hi", {"content-length": "2"})


@pytest.mark.parametrize("name", ["204", "304"])
def test_some_statuses_have_no_body(name: str) -> None:
    answer = decode(WHOLE[name])
    assert (answer.body, answer.at_end, answer.reusable) == (b"", True, True)


def test_header_names_are_lower_case_and_repeated_ones_joined() -> None:
    assert decode(WHOLE["given twice"]).headers == {"content-length": "2", "x-a": "1, 2", "empty": ""}


@pytest.mark.parametrize(
    ("name", "reusable"), [("length", True), ("close", False), ("http/1.0", False), ("http/1.0 kept", True)]
)
def test_the_server_says_whether_another_request_may_follow(name: str, reusable: bool) -> None:
    answer = decode(WHOLE[name])
    assert (answer.body[:1], answer.at_end, answer.reusable) == (b"h", True, reusable)


def test_without_a_length_the_end_of_the_connection_is_the_end_of_the_body() -> None:
    data = head() + b"hello"
    assert not decode(data).complete
    answer = decode(data, eof=True)
    assert (answer.body, answer.at_end, answer.reusable, answer.error) == (b"hello", True, False, None)


def test_a_connection_that_broke_is_no_end_of_a_body() -> None:
    decoder = AnswerDecoder()
    decoder.feed(head() + b"hello")
    decoder.eof(in_order=False)
    assert isinstance(decoder.fault, UpstreamCut)
    assert decoder.take() == b"hello"


@pytest.mark.parametrize("data", [sized(b"hello")[:-1], chunked(b"hello")[:-2], chunked(b"hello")[:-7]])
def test_a_body_that_ends_too_early_is_cut(data: bytes) -> None:
    answer = decode(data, eof=True)
    assert isinstance(answer.error, UpstreamCut)
    assert not answer.complete


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 20", head(b"A: b")[:-2], head(status=b"HTTP/1.1 100 Continue")]
)
def test_a_connection_that_ends_before_the_head_was_whole_is_unreachable(data: bytes) -> None:
    assert isinstance(decode(data, eof=True).error, UpstreamUnreachable)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_broken_is_an_error_of_ours(name: str) -> None:
    answer = decode(BROKEN[name], eof=True)
    late = name in ("bad chunk size", "bad chunk end", "cut gzip")
    assert type(answer.error) is (UpstreamCut if late else UpstreamInvalid)
    assert not answer.at_end


def test_what_came_before_the_fault_can_be_read() -> None:
    assert decode(BROKEN["bad chunk size"]).body == b"hi"


@pytest.mark.parametrize("junk", [b"x", b"HTTP/1.1 200 OK\r\n", b"\0"])
@pytest.mark.parametrize("apart", [True, False])
def test_bytes_behind_an_answer_spoil_the_connection_not_the_answer(junk: bytes, apart: bool) -> None:
    whole = WHOLE["chunks"]
    answer = decode(whole, junk) if apart else decode(whole + junk)
    assert (answer.body, answer.at_end, answer.error) == (b"hello", True, None)
    assert not answer.reusable


def test_a_head_is_bounded_in_bytes() -> None:
    fits = head(b"A: " + b"x" * (MAX_HEAD_BYTES - 200), b"Content-Length: 0")
    assert decode(fits).at_end
    endless = (b"HTTP/1.1 200 OK\r\nA: ", *[b"x" * 5000] * 14)
    assert isinstance(decode(*endless).error, UpstreamInvalid)
    too_long = head(b"A: " + b"x" * MAX_HEAD_BYTES, b"Content-Length: 200000")
    assert isinstance(decode(too_long + b"y" * 200_000).error, UpstreamInvalid)


def test_a_head_is_bounded_in_headers() -> None:
    assert decode(sized(b"", *[b"A: b"] * (MAX_HEADERS - 1))).at_end
    assert isinstance(decode(sized(b"", *[b"A: b"] * MAX_HEADERS)).error, UpstreamInvalid)


def test_interim_answers_without_end_are_refused() -> None:
    interim = head(b"Link: " + b"x" * 1000, status=b"HTTP/1.1 103 Early Hints")
    assert isinstance(decode(*[interim] * 70).error, UpstreamInvalid)


def test_trailers_and_chunk_extensions_without_end_are_refused() -> None:
    start = chunked(b"hi")[:-2]
    assert isinstance(decode(start, *[b"X-Trailer: " + b"x" * 5000 + b"\r\n"] * 14).error, UpstreamCut)
    assert isinstance(decode(start[:-3], b"5;a=", *[b"x" * 5000] * 14).error, UpstreamCut)


def test_a_long_body_is_not_taken_for_a_long_head() -> None:
    body = b"x" * 20_000
    assert (
        decode(*[chunked(*[body] * 20)[at : at + 9000] for at in range(0, 410_000, 9000)]).body == body * 20
    )


@pytest.mark.parametrize(
    ("said", "keep_s"),
    [("timeout=5, max=100", 4), ("timeout=100000", KEEP_S), ("max=3", KEEP_S), ("timeout=1", 0)],
)
def test_the_server_may_say_how_long_an_idle_connection_lives(said: str, keep_s: float) -> None:
    decoder = AnswerDecoder()
    decoder.feed(sized(b"", b"Keep-Alive: " + said.encode()))
    assert decoder.keep_s == keep_s


@pytest.mark.parametrize("name", ["gzip", "two gzip members", "deflate", "bare deflate"])
def test_a_compressed_body_is_inflated_although_none_was_asked_for(name: str) -> None:
    answer = decode(WHOLE[name])
    assert answer.body == LONG * (2 if name.startswith("two") else 1)
    assert answer.at_end


def test_a_bomb_is_inflated_in_small_pieces() -> None:
    size = 30 * 1024 * 1024 + 17
    decoder = AnswerDecoder()
    decoder.feed(sized(gzip.compress(bytes(size)), b"Content-Encoding: gzip"))
    total = 0
    while piece := decoder.take():
        assert len(piece) <= MAX_INFLATED
        assert decoder.at_end == (total + len(piece) == size)
        total += len(piece)
    assert total == size


def test_an_inflated_body_that_fills_its_last_piece_ends() -> None:
    decoder = AnswerDecoder()
    decoder.feed(sized(gzip.compress(bytes(MAX_INFLATED)), b"Content-Encoding: gzip"))
    assert len(decoder.take()) == MAX_INFLATED
    assert decoder.take() == b""
    assert decoder.at_end


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_split_anywhere_changes_nothing(name: str) -> None:
    data = WHOLE[name]
    expected = decode(data).seen()
    assert expected[-1] is True
    for at in range(1, len(data)):
        assert decode(data[:at], data[at:]).seen() == expected
    assert decode(*(data[at : at + 1] for at in range(len(data)))).seen() == expected


@given(st.sampled_from(sorted(WHOLE | BROKEN)), st.data())
def test_many_splits_change_nothing(name: str, choose: st.DataObject) -> None:
    data = (WHOLE | BROKEN)[name]
    cuts = sorted(choose.draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    pieces = [
        data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if data[start:end]
    ]
    assert decode(*pieces, eof=True).seen() == decode(data, eof=True).seen()


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([part for data in (WHOLE | BROKEN).values() for part in data.split(b"\r\n")]),
            st.sampled_from([b"\r\n", b"\r\n\r\n", b"\n", *WHOLE.values(), *BROKEN.values()]),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_garbage_raises_nothing_but_errors_of_ours(pieces: list[bytes], in_order: bool) -> None:
    decoder = AnswerDecoder()
    for piece in pieces:
        decoder.feed(piece)
    decoder.eof(in_order=in_order)
    assert decoder.complete != (decoder.fault is not None)
    answer = Outcome(decoder)
    assert answer.at_end or isinstance(answer.error, ServerError)
    assert not answer.reusable
