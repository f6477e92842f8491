"""One line an event, and no secret in it."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.logs import redact, set_up_logging
from server.settings import Logging

SECRET = "MjdkZDk3-s3cr3t_xyz"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: bearer {}",
        "Authorization: Basic {}",
        "Proxy-Authorization: Basic {}",
        "Authorization: {}",
        "x-api-key: {}",
        "api-key={}",
        "api_key = '{}'",
        'api_key: "{}"',
        "apiSecret={}",
        "api_secret={}&app_id=1",
        "CLIENT_SECRET={}",
        "password={}",
        "{{'Authorization': 'Bearer {}', 'Accept': 'x'}}",
        '{{"api_key":"{}","model":"m"}}',
        "b'Authorization: Bearer {}\\r\\nHost: x'",
        "(b'Authorization', b'Bearer {}')",
        "Cookie: session={}; theme=dark",
        "Cookie: theme=dark; session={}",
        "access_token={}",
        '"refresh_token": "{}"',
        "token: {}",
        "signature={}",
        "GET /v1/models?key={} HTTP/1.1",
        "got 'Bearer {}'",
        "wss://spark-api.xf-yun.com/v1.1/chat?authorization={}&date=Mon&host=x",
        "https://api.example.com/v1?x=1&sig={}",
    ],
)
@pytest.mark.parametrize("secret", [SECRET, "abc.def/ghi+jkl=="])
def test_a_secret_by_its_name_or_place_is_hidden(text: str, secret: str) -> None:
    line = redact(text.format(secret))
    assert secret not in line
    assert secret[-8:] not in line
    assert "***" in line


@pytest.mark.parametrize(
    "text",
    [
        "http://user:{}@proxy.example:3128/ is down",
        "http://user:p@{}@proxy.example:3128/ is down",
        "redis://:{}@localhost:6379/0",
    ],
)
def test_a_url_does_not_tell_who_logs_in_by_it(text: str) -> None:
    assert SECRET not in redact(text.format(SECRET))
    assert redact(text.format(SECRET)).endswith(text.rpartition("@")[2])


@pytest.mark.parametrize("secret", ["x", "hunter2", "pa,ss;wo)rd", "it's", 'a\\"b'])
def test_within_quotes_all_of_a_secret_is_hidden_whatever_it_is_made_of(secret: str) -> None:
    assert redact(f'{{"api_key": "{secret}", "model": "m"}}') == '{"api_key": "***", "model": "m"}'


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-AbCdEf1234567890",
        "sk_live_1234567890abcdef",
        "AIzaSyA-1234567890abcdefghijklmnop",
        "gsk_1234567890abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123",
    ],
)
def test_a_key_of_a_known_shape_is_hidden_wherever_it_stands(key: str) -> None:
    assert redact(f"Incorrect key provided: {key}.") == "Incorrect key provided: ***."


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:18888 is up",
        "see https://docs.example.com/a/b#part",
        "channel spark: wss://spark-api.xf-yun.com/v1.1/chat said nothing for 5 s",
        "conf/config.yaml:12:5: channels[1].api_key: missing environment variable",
        "first token expected something within 60 s",
        "no token available for this request",
        "unexpected token: something else",
        "upstream_timeout_first_token: 60 s",
        "max_tokens=100000000 prompt_tokens: 12345678",
        "the secret sauce is open",
        "signature verification failed",
        "authorization failed for channel a",
        "bearer of bad news",
        "sk-learn and key-value-storage1",
        "user@example.com wrote",
        "12:00:00 model local/smollm2-135m task run_0123456789abcdef",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_of_a_url_the_place_stays() -> None:
    assert redact("wss://u:p@host:1/v1.1/chat?a=b&c=d said no") == "wss://***@host:1/v1.1/chat?*** said no"


@given(st.text(), st.text())
def test_any_text_can_be_redacted_and_a_second_time_changes_nothing(before: str, after: str) -> None:
    once = redact(f"{before} Authorization: Bearer {SECRET} {after}")
    assert SECRET not in once
    redact(once)


# ── lines ──


class Out:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str], logging_is_put_back: None) -> Out:
    """Standard error."""
    return Out(capsys)


def failed(message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError:
        logging.getLogger("antiphon.x").exception("it failed")


def test_an_event_is_one_line_with_time_level_and_logger(out: Out) -> None:
    set_up_logging(Logging())
    logging.getLogger("antiphon.router").warning("channel %s: %d lines", "a", 3)
    time, _, rest = out.getvalue().partition(" ")
    assert rest == "warning antiphon.router: channel a: 3 lines\n"
    assert time.endswith("Z")
    assert len(time) == len("2026-01-01T00:00:00.000Z")


def test_as_json_an_event_is_one_object(out: Out) -> None:
    set_up_logging(Logging(format="json"))
    logging.getLogger("antiphon.router").error('channel "a":\n中 x-api-key: %s', SECRET)
    line = json.loads(out.getvalue())
    assert out.getvalue().count("\n") == 1
    assert (line["level"], line["logger"]) == ("error", "antiphon.router")
    assert line["message"] == 'channel "a":\\n中 x-api-key: ***'
    assert set(line) == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("format_", ["text", "json"])
def test_an_exceptions_text_is_redacted_too(out: Out, format_: str) -> None:
    set_up_logging(Logging(format=format_))  # type: ignore[arg-type]
    failed(f"cannot connect to wss://host/chat?authorization={SECRET}")
    assert "ValueError: cannot connect to wss://host/chat?***" in out.getvalue()
    assert "Traceback" in out.getvalue()
    assert SECRET not in out.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x85", "\u2028", "\x0b", "\x1b[2J", "\u202e"])
@pytest.mark.parametrize("format_", ["text", "json"])
def test_an_upstreams_words_forge_no_line_and_steer_no_terminal(out: Out, end: str, format_: str) -> None:
    set_up_logging(Logging(format=format_))  # type: ignore[arg-type]
    logging.getLogger("antiphon.x").error("upstream said %s", f"no{end}2026-01-01 error all is lost")
    assert len(out.getvalue().splitlines()) == 1
    assert end not in out.getvalue().removesuffix("\n")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_half_a_surrogate_pair_is_written_and_costs_no_line(out: Out, format_: str) -> None:
    set_up_logging(Logging(format=format_))  # type: ignore[arg-type]
    logging.getLogger("antiphon.x").error("odd \ud800 text")
    failed("odd \ud800 text")
    out.getvalue().encode()
    assert "Logging error" not in out.getvalue()
    assert out.getvalue().count("odd \\") == 2


def test_libraries_speak_from_warning_on_whatever_our_level(out: Out) -> None:
    set_up_logging(Logging(level="debug"))
    logging.getLogger("antiphon.x").debug("ours")
    logging.getLogger("websockets.client").debug("> GET /chat?authorization=%s", SECRET)
    logging.getLogger("asyncio").warning("theirs")
    assert [line.partition(": ")[2] for line in out.getvalue().splitlines()] == ["ours", "theirs"]


def test_setting_up_again_replaces_what_was_there(out: Out) -> None:
    set_up_logging(Logging())
    set_up_logging(Logging(level="error"))
    logging.getLogger("antiphon.x").warning("not this")
    logging.getLogger("antiphon.x").error("this")
    assert out.getvalue().count("\n") == 1
