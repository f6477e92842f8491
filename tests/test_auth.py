"""Access keys: who is let in, and what an error tells."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth import ANONYMOUS, Keyring, Principal, key_from_headers
from server.errors import AuthenticationError, NotAllowed, ServerError
from server.settings import Access, AccessKey

KEY = "key-of-mine-0123456789"
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def keyring(**fields: object) -> Keyring:
    return Keyring(Access(keys=(AccessKey(name="me", key=KEY, **fields),)), lambda: NOW)  # type: ignore[arg-type]


def refusal(keys: Keyring, key: str | None, address: str | None = None) -> ServerError:
    with pytest.raises(ServerError) as raised:
        keys.authenticate(key, address)
    return raised.value


# ── where the key stands ──


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer k1"}, "k1"),
        ({"Authorization": "bearer k1"}, "k1"),
        ({"Authorization": "BEARER   k1  "}, "k1"),
        ({"Authorization": " Bearer\tk1"}, "k1"),
        ({"x-api-key": " k1 "}, "k1"),
        ({"api-key": "k1"}, "k1"),
        ({"Authorization": "Bearer k1", "x-api-key": "k2", "api-key": "k3"}, "k1"),
        ({"x-api-key": "k2", "api-key": "k3"}, "k2"),
        ({"Authorization": "Basic dTpw", "api-key": "k3"}, "k3"),
        ({"Authorization": "Bearer ", "x-api-key": "", "api-key": "k3"}, "k3"),
        ({"Authorization": "Bearer two words"}, "two words"),
        ({"Authorization": "k1"}, None),
        ({"Authorization": "Basic dTpw"}, None),
        ({"Authorization": "Bearerk1"}, None),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": " "}, None),
        ({"Authorization": ""}, None),
        ({"x-api-key": "  "}, None),
        ({}, None),
    ],
)
def test_the_key_is_read_as_bearer_else_x_api_key_else_api_key(
    headers: Mapping[str, str], key: str | None
) -> None:
    assert key_from_headers(headers) == key


# ── who is let in ──


def test_without_keys_everybody_may_do_everything() -> None:
    keys = Keyring(Access(), lambda: NOW)
    assert keys.open
    assert keys.authenticate(None) is ANONYMOUS
    assert keys.authenticate("whatever") is ANONYMOUS
    assert ANONYMOUS.may_call("any model")


def test_a_good_key_stands_for_its_principal() -> None:
    keys = keyring(admin=True)
    assert not keys.open
    assert keys.authenticate(KEY) == Principal("me", admin=True)


def test_of_several_keys_each_stands_for_its_own() -> None:
    keys = Keyring(Access(keys=(AccessKey(name="a", key="k1"), AccessKey(name="b", key="k2"))), lambda: NOW)
    assert [keys.authenticate(key).name for key in ("k1", "k2")] == ["a", "b"]


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_is_told_as_missing(key: str | None) -> None:
    error = refusal(keyring(), key)
    assert (error.status, error.type, error.code) == (401, "authentication_error", "missing_api_key")


@pytest.mark.parametrize(
    "key",
    [KEY[:-1], KEY + "x", KEY.upper(), " " + KEY, "x", "schlüssel", "\ud800", "\0", "x" * 100_000],
)
def test_a_wrong_key_is_told_as_invalid(key: str) -> None:
    error = refusal(keyring(), key)
    assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")


@given(st.text(alphabet=st.characters(), min_size=1))
def test_no_text_whatever_is_let_in_by_chance_or_crashes(key: str) -> None:
    if key != KEY:
        assert refusal(keyring(), key).status == 401


def test_a_key_beyond_ascii_is_let_in() -> None:
    keys = Keyring(Access(keys=(AccessKey(name="me", key="schlüssel-钥匙"),)), lambda: NOW)
    assert keys.authenticate("schlüssel-钥匙").name == "me"


def test_a_key_that_is_switched_off_says_so() -> None:
    error = refusal(keyring(disabled=True), KEY)
    assert (error.status, error.code) == (401, "disabled_api_key")


@pytest.mark.parametrize(
    ("expires", "good"),
    [
        ("2027-01-15T08:00:01Z", True),
        ("2027-01-15T08:00:00Z", False),
        ("2027-01-15T09:00:01+01:00", True),
        ("2027-01-15T08:59:59+01:00", False),
        ("2027-01-15T08:00:01", True),  # without a zone: UTC
        ("2027-01-15", False),
        ("2027-01-16", True),
    ],
)
def test_a_key_holds_until_it_expires(expires: str, good: bool) -> None:
    keys = keyring(expires=expires)
    if good:
        assert keys.authenticate(KEY).name == "me"
    else:
        error = refusal(keys, KEY)
        assert (error.status, error.code) == (401, "expired_api_key")


@pytest.mark.parametrize(
    ("addresses", "address", "good"),
    [
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "::ffff:11.1.2.3", False),
        (("10.1.2.3",), "10.1.2.3", True),
        (("10.1.2.3/8",), "10.9.9.9", True),
        (("fd00::/8", "10.0.0.0/8"), "fd00::1", True),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("::1",), "127.0.0.1", False),
        (("0.0.0.0/0",), "fd00::1", False),
        (("10.0.0.0/8",), None, False),
        (("10.0.0.0/8",), "", False),
        (("10.0.0.0/8",), "10.1.2.3, 6.6.6.6", False),
        ((), None, True),
    ],
)
def test_a_key_may_be_bound_to_addresses(addresses: tuple[str, ...], address: str | None, good: bool) -> None:
    keys = keyring(addresses=addresses)
    if good:
        assert keys.authenticate(KEY, address).name == "me"
    else:
        error = refusal(keys, KEY, address)
        assert isinstance(error, NotAllowed)
        assert (error.status, error.code) == (403, "address_not_allowed")


def test_a_stranger_does_not_learn_whether_an_address_would_do() -> None:
    assert isinstance(refusal(keyring(addresses=("10.0.0.0/8",)), "wrong", "11.0.0.1"), AuthenticationError)


# ── what may be called, and what is never shown ──


def test_a_key_without_models_may_call_all_and_one_with_models_only_those() -> None:
    assert keyring().authenticate(KEY).may_call("any")
    some = keyring(models=("a", "b")).authenticate(KEY)
    assert [some.may_call(name) for name in ("a", "b", "c", "A", "")] == [True, True, False, False, False]


@pytest.mark.parametrize(
    "fields", [{}, {"disabled": True}, {"expires": "2020-01-01"}, {"addresses": ("10.0.0.0/8",)}]
)
def test_no_error_shows_the_key_not_even_a_part(fields: dict[str, object]) -> None:
    for key in (KEY, KEY + "wrong"):
        try:
            shown = repr(keyring(**fields).authenticate(key, "11.0.0.1"))
        except ServerError as error:
            shown = f"{error!r} {error.message} {error.__dict__}"
        assert KEY[:6] not in shown


def test_the_ring_keeps_hashes_only() -> None:
    assert KEY not in repr(vars(keyring()))
    assert KEY not in repr(Access(keys=(AccessKey(name="me", key=KEY),)))


# ── somebody who was let in before ──


def test_who_was_let_in_is_recalled_by_name_as_long_as_the_key_is_good() -> None:
    assert keyring().recall("me") == Principal("me")
    for gone in (keyring(disabled=True), keyring(expires="2020-01-01T00:00:00Z")):
        with pytest.raises(AuthenticationError):
            gone.recall("me")
    with pytest.raises(AuthenticationError):
        keyring().recall("you")
    with pytest.raises(NotAllowed):
        keyring(addresses=("10.0.0.0/8",)).recall("me", "192.0.2.1")
    assert Keyring(Access(), lambda: NOW).recall("whoever") == ANONYMOUS


def test_callers_with_credentials_of_their_own_are_recalled_by_name_where_they_are_let_in() -> None:
    byok = Keyring(Access(byok=True), lambda: 0.0)
    assert not byok.open
    with pytest.raises(AuthenticationError, match="your own Spark credentials"):
        byok.authenticate(None)
    assert byok.recall("spark-caller-1") == Principal("spark-caller-1", models=frozenset())
    with pytest.raises(AuthenticationError):
        Keyring(Access(keys=(AccessKey(name="a", key="k"),)), lambda: 0.0).recall("spark-caller-1")
