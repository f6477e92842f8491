"""What a recording keeps of a request: no credentials, no files, and every other byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.coordinator.redaction import request_without_secrets, without_secrets
from server.openai_wire import parse_chat

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
TURN = {"role": "user", "content": "hi"}


def kept(**fields: Any) -> Any:
    body = json.dumps({"model": "m", "messages": [TURN]} | fields).encode()
    return json.loads(request_without_secrets(parse_chat(body)).body)


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": "sk-1"},
        {"metadata": {"Api-Key": "sk-1"}},
        {"extra_headers": {"Authorization": "Bearer sk-1", "X-Api-Key": "sk-1", "Cookie": "sk-1"}},
        {"mcp": [{"type": "mcp", "headers": {"x-auth-token": "sk-1"}, "client_secret": "sk-1"}]},
        {"deep": {"keys": {"api_keys": ["sk-1"], "access_token": ["sk-1"]}}},
    ],
    ids=["at the top", "in the metadata", "in headers", "of a tool server", "as a list"],
)
def test_credentials_are_taken_out_however_deep_they_lie(fields: dict[str, Any]) -> None:
    told = kept(**fields)
    assert "sk-1" not in json.dumps(told)
    assert told["messages"] == [TURN]


def test_of_files_and_signed_addresses_only_that_they_were_there_is_kept() -> None:
    parts = [
        {"type": "text", "text": "What is this? data:image/png;base64,AAAA is its beginning."},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://me:pw@host.example:8443/a.png?sig=abc#x"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD" * 100, "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
    ]
    told = kept(messages=[{"role": "user", "content": parts}])["messages"][0]["content"]
    assert told == [
        parts[0],
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://host.example:8443/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,", "filename": "a.pdf"}},
    ]


def test_a_tool_may_have_a_parameter_of_such_a_name() -> None:
    schema = {"type": "object", "properties": {"password": {"type": "string"}, "token": True}}
    tools = [{"type": "function", "function": {"name": "log_in", "parameters": schema}}]
    assert kept(tools=tools)["tools"] == tools


def test_what_holds_nothing_of_the_kind_stays_byte_for_byte() -> None:
    body = (
        b'{ "model":"m","messages":[{"role":"user","content":"hi"}],\n"max_tokens" : 100, "x":[1.0,1e400] }'
    )
    assert request_without_secrets(parse_chat(body)).body == body


def test_numbers_beside_what_is_taken_out_stay_as_they_were_written() -> None:
    body = (
        b'{"messages":[{"role":"user","content":"hi"}],"model":"m","x":{"token":"k","big":1e400,"one":1.0}}'
    )
    assert request_without_secrets(parse_chat(body)).body.endswith(b'"x":{"big":1e400,"one":1.0}}')


@pytest.mark.parametrize("url", ["http://[", "https://", "HTTPS://A?b"])
def test_an_odd_address_is_no_reason_to_fail(url: str) -> None:
    assert "?" not in without_secrets({"url": url})["url"]


def test_settings_lose_what_might_be_a_credential_among_their_parameters() -> None:
    told = without_secrets({"members": [{"model": "m", "params": {"api_key": "sk-1", "max_tokens": 5}}]})
    assert told == {"members": [{"model": "m", "params": {"max_tokens": 5}}]}
    assert msgspec.json.encode(told)
