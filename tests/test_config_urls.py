"""Addresses of upstreams and proxies: what may stand in one, and what is never shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import CHANNEL, Read, channel, faults, reader, warnings

BY_KIND = {
    "anthropic": "kind: anthropic, models: [a], api_key: k",
    "azure": "kind: azure, models: [a], api_key: k",
    "gemini": "kind: gemini, models: [a], api_key: k",
    "ollama": "kind: ollama, models: [a]",
    "openai": "kind: openai, models: [a], api_key: k",
    "spark": "kind: spark, models: [spark-max], app_id: a, api_key: k, api_secret: s",
}


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


def addressed(kind: str, url: str) -> str:
    return f"channels:\n- {{name: c, {BY_KIND[kind]}, base_url: {url!r}}}\n"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://x/v1", "must be a URL that begins with http"),
        ("ws://x/v1", "must be a URL that begins with http"),
        ("api.example.com/v1", "must be a URL that begins with http"),
        ("localhost:8080/v1", "must be a URL that begins with http"),
        ("//x/v1", "must be a URL that begins with http"),
        ("https://", "must be a URL that begins with http"),
        ("https:///v1", "must be a URL that begins with http"),
        ("https://x:99999/", "must be a URL that begins with http"),
        ("https://x:0/", "must be a URL that begins with http"),
        ("https://[::1/v1", "must be a URL that begins with http"),
        ("https://x/v1 ", "must be one line without blanks"),
        ("https://x/v1\\n", "must be one line without blanks"),
        ("https://x\\r\\nx-key: s3cret", "must be one line without blanks"),
        ("https:\\\\x\\v1", "must be one line without blanks"),
        ("https://user:s3cret@x/v1", "must not hold a name or password"),
        ("https://s3cret@x/v1", "must not hold a name or password"),
        ("https://@x/v1", "must not hold a name or password"),
        ("https://x/v1?key=s3cret", "must not hold a query"),
        ("https://x/v1?", "must not hold a query"),
        ("https://x/v1#s3cret", "must not hold a query"),
        ("https://x/v1#", "must not hold a query"),
        ("https://x/v1//", "has an odd path"),
        ("https://x/../v1", "has an odd path"),
        ("https://x/%2e/v1", "has an odd path"),
        ("https://x/v1/chat/completions", "must end before /chat/completions"),
        ("https://x/v1/Chat/Completions/", "must end before /chat/completions"),
        ("https://x/v1/completions", "must end before /completions"),
        ("https://x/v1/models", "must end before /models"),
        ("https://x/v1/responses", "must end before /responses"),
        ("https://x/v1/messages", "must end before /messages"),
        ("https://x/v1/embeddings", "must end before /embeddings"),
        ("https://x/v1/audio/speech", "must end before /audio/speech"),
        ("https://x/v1/images/generations/", "must end before /images/generations"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(read: Read, url: str, message: str) -> None:
    (found,) = faults(read, CHANNEL.replace("https://api.example.com/v1", f'"{url}"'))
    assert f"2:39: channels[0].base_url: {message}" in found
    assert "s3cret" not in found


@pytest.mark.parametrize(
    "url", ["https://x", "https://x/", "https://x:8443/v1/", "HTTPS://X/api/v3", "https://bücher.example/v1"]
)
def test_an_address_may_have_a_path_and_a_port(read: Read, url: str) -> None:
    assert warnings(read, CHANNEL.replace("https://api.example.com/v1", f'"{url}"')) == []


@pytest.mark.parametrize(
    ("kind", "url", "message"),
    [
        ("anthropic", "https://x/v1", "must end before /v1/messages"),
        ("anthropic", "https://x/v1/messages", "must end before /v1/messages"),
        ("anthropic", "https://x/v1/models/", "must end before /v1/messages"),
        ("azure", "https://x/openai", "must end before /openai"),
        ("azure", "https://x/openai/v1", "must end before /openai"),
        ("azure", "https://x/openai/v1/responses", "must end before /openai"),
        ("azure", "https://x/openai/deployments/gpt-4o", "must end before /openai"),
        ("azure", "https://x/openai/deployments/gpt-4o/chat/completions", "must end before /openai"),
        ("gemini", "https://x/v1beta/", "must end before /v1beta"),
        ("gemini", "https://x/v1beta/models", "must end before /v1beta"),
        ("gemini", "https://x/v1beta/models/gemini-2.5-flash:generateContent", "must end before /v1beta"),
        ("ollama", "http://x/api", "must end before /api"),
        ("ollama", "http://x/api/chat", "must end before /api"),
        ("ollama", "http://x/v1", "must end before /api"),
        ("ollama", "http://x/api/tags", "must end before /api"),
        ("spark", "https://x", "must begin with wss://"),
        ("spark", "wss://h:x", "must begin with wss://"),
        ("spark", "wss://h ", "must begin with wss://"),
        ("spark", "wss://h/v3.5/chat", "must end before the path of a model"),
        ("spark", "wss://h/near?authorization=s3cret", "must not hold a query"),
        ("spark", "wss://h/#s3cret", "must not hold a query"),
        ("spark", "wss://s3cret@h", "must not hold a name or password"),
        ("spark", "wss://h/../x", "has an odd path"),
        *((kind, "wss://x/", "must be a URL that begins") for kind in BY_KIND if kind != "spark"),
    ],
)
def test_an_address_ends_where_its_kind_goes_on(read: Read, kind: str, url: str, message: str) -> None:
    (found,) = faults(read, addressed(kind, url))
    assert f"channels[0].base_url: {message}" in found
    assert found.startswith("2:")
    assert "s3cret" not in found


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("anthropic", "https://x/anthropic"),
        ("azure", "https://name.openai.azure.com/"),
        ("azure", "https://gateway/team"),
        ("gemini", "https://x/google"),
        ("ollama", "https://x/ollama"),
        ("spark", "wss://x/behind"),
    ],
)
def test_an_address_may_be_that_of_a_gateway(read: Read, kind: str, url: str) -> None:
    assert warnings(read, addressed(kind, url)) == []


def test_http_beyond_this_machine_is_a_warning(read: Read) -> None:
    (found,) = warnings(read, CHANNEL.replace("https://api.example.com", "http://192.168.1.2"))
    assert "channels[0].base_url: http:// beyond this machine" in found
    assert warnings(read, CHANNEL.replace("https://api.example.com", "http://127.0.0.1:8080")) == []


def test_a_spark_beyond_this_machine_without_tls_is_a_warning(read: Read) -> None:
    (one,) = warnings(read, addressed("spark", "ws://example.com"))
    assert "travel unencrypted" in one
    assert warnings(read, addressed("spark", "ws://127.0.0.1:1")) == []


@pytest.mark.parametrize(
    "proxy", ["s3cret:1", "socks5://s3cret:1", "http://s3cret:1/x", "http://s3cret:1?", "http://s3cret:1 "]
)
def test_a_proxy_is_a_url_over_http(read: Read, proxy: str) -> None:
    (found,) = faults(read, channel(f"proxy: {proxy!r}"))
    assert "channels[0].proxy: must be a proxy's URL" in found
    assert "s3cret" not in found
    spark = addressed("spark", "wss://x").replace("api_key", f"proxy: {proxy!r}, api_key")
    assert "must be a proxy's URL" in faults(read, spark)[0]
