"""A caller's own Spark credentials in the headers of its request."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from server.errors import AuthenticationError
from server.spark.callers import CALLER, caller_name, credentials_from_bearer, credentials_from_headers
from server.spark.signing import Credentials

OWN = Credentials("app", "the-key", "the-secret", callers_own=True)


def read(**headers: str) -> Credentials | None:
    return credentials_from_headers(CIMultiDict(headers))


@pytest.mark.parametrize(
    "names",
    [
        ("X_APP_ID", "X_API_KEY", "X_API_SECRET"),
        ("x_app_id", "x_api_key", "x_api_secret"),
        ("X-APP-ID", "X-API-KEY", "X-API-SECRET"),
        ("X-App-Id", "x-api-key", "X_API_SECRET"),
    ],
)
def test_three_headers_with_underscores_or_hyphens_in_any_case_are_a_set(names: tuple[str, ...]) -> None:
    assert read(**dict(zip(names, ("app", " the-key ", "the-secret"), strict=True))) == OWN


def test_an_api_key_alone_with_hyphens_is_an_access_key() -> None:
    assert read(**{"x-api-key": "sk-mine"}) is None
    assert read() is None
    assert read(**{"X-APP-ID": " "}) is None


@pytest.mark.parametrize(
    ("headers", "missing"),
    [
        ({"X_API_KEY": "k"}, "lack X-APP-ID and X-API-SECRET;"),
        ({"X-APP-ID": "a", "x-api-key": "k"}, "lack X-API-SECRET;"),
        ({"X_API_SECRET": "hidden"}, "lack X-APP-ID and X-API-KEY;"),
        ({"X_APP_ID": "a", "X_API_KEY": "", "X_API_SECRET": "hidden"}, "lack X-API-KEY;"),
    ],
)
def test_a_part_of_a_set_is_refused_by_the_names_of_what_is_missing(
    headers: dict[str, str], missing: str
) -> None:
    with pytest.raises(AuthenticationError, match=missing) as refused:
        read(**headers)
    assert "hidden" not in refused.value.message


@pytest.mark.parametrize("bad", ['quo"te', "two words", "\udcff\udcfe", "ключ", "x" * 257])
def test_what_cannot_be_a_credential_is_refused_without_being_quoted(bad: str) -> None:
    with pytest.raises(AuthenticationError, match="X-API-SECRET is no credential") as refused:
        read(X_APP_ID="a", X_API_KEY="k", X_API_SECRET=bad)
    assert bad not in refused.value.message


def test_a_bearer_of_three_parts_is_a_set_and_others_are_not() -> None:
    assert credentials_from_bearer("app:the-key:the-secret") == OWN
    for other in (None, "", "sk-key", "a:b:c:d", 'a:b:"', "a: b", "::", ":"):
        assert credentials_from_bearer(other) is None


@pytest.mark.parametrize(
    ("token", "missing"),
    [
        ("app12345:" + "k" * 32, "API secret"),
        ("app12345:k:", "API secret"),
        ("app12345::s", "API key"),
        (":" + "k" * 32 + ":s", "app id"),
        ("k" * 32 + ":s", "app id"),  # as Spark's HTTP routes take them
        ("app12345:", "API key and API secret"),
        ("app12345::", "API key and API secret"),
    ],
)
def test_a_part_of_the_three_in_a_bearer_is_refused_by_the_name_of_what_is_missing(
    token: str, missing: str
) -> None:
    with pytest.raises(AuthenticationError, match=f"lack the {missing}; send") as refused:
        credentials_from_bearer(token)
    assert refused.value.code == "missing_api_key"
    assert token.partition(":")[0] not in refused.value.message or token.startswith(":")


def test_the_name_is_the_same_for_the_same_three_alone_and_tells_none_of_them() -> None:
    name = caller_name(OWN)
    assert name == caller_name(Credentials("app", "the-key", "the-secret"))
    others = (Credentials("app2", "the-key", "the-secret"), Credentials("app", "the-key", "the-secret2"))
    assert name not in map(caller_name, others)
    assert name.startswith(CALLER)
    assert not any(part in name.removeprefix(CALLER) for part in ("app", "key", "secret"))


def test_neither_credentials_nor_what_holds_them_shows_them() -> None:
    assert "the-" not in repr(OWN) + str(OWN)
