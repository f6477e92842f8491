"""Access key → principal: who asks, and what they may.

Keys are kept as SHA-256 and compared in constant time; the table is looked up by the hash of what was sent,
so neither time nor an error tells anything about a key.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from server.errors import AuthenticationError, NotAllowed
from server.settings import Access, AccessKey
from server.spark.callers import CALLER
from server.strategy_settings import StatusMode

_ADVICE = "Send it as 'Authorization: Bearer KEY'."
_OWN_ADVICE = f"{_ADVICE[:-1]}, or your own Spark credentials as X-APP-ID, X-API-KEY and X-API-SECRET."


class Principal(msgspec.Struct, frozen=True):
    """Who a key stands for. ``models`` None: all. ``name`` is fit for logs; the key itself is not kept.

    ``status`` is what its streams tell of members; None: what the combination says. ``background``: may it
    start runs that survive their asker? ``override``: may its requests change what a combination does?
    """

    name: str
    admin: bool = False
    models: frozenset[str] | None = None
    status: StatusMode | None = None
    background: bool = True
    override: bool = True

    def may_call(self, model: str) -> bool:
        """May this key call the model or combination of this name?"""
        return self.models is None or model in self.models


ANONYMOUS = Principal("anonymous", admin=True)
"""Everybody, where no keys are configured (loopback only)."""


class _Entry(msgspec.Struct, frozen=True):
    digest: bytes
    principal: Principal
    disabled: bool
    expires: float | None
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]


class Keyring:
    """The configured access keys. ``wall`` gives Unix seconds.

    ``byok``: may a caller's own credentials stand in for a key?

    ``looks_at_addresses``: is there a key that may be used from some addresses only?
    """

    def __init__(self, access: Access, wall: Callable[[], float]) -> None:
        self._entries = {entry.digest: entry for entry in map(_entry, access.keys)}
        self._wall = wall
        self.byok = access.byok
        self._open = not self._entries and not access.byok
        self.looks_at_addresses = any(entry.networks for entry in self._entries.values())

    @property
    def open(self) -> bool:
        """May anybody come in?"""
        return self._open

    def authenticate(self, key: str | None, address: str | None = None) -> Principal:
        """Who sent this key from this address.

        Raises ``AuthenticationError`` (its code says why) or ``NotAllowed`` for a wrong address.
        """
        if self._open:
            return ANONYMOUS
        if not key:
            advice = _OWN_ADVICE if self.byok else _ADVICE
            raise AuthenticationError(f"An access key is missing. {advice}", code="missing_api_key")
        # surrogatepass: what came in a header or in JSON may be no text at all, and is then no key of ours.
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            # A lone X-API-KEY may be a part of Spark's three.
            hint = " Of your own Spark credentials send X-APP-ID, X-API-KEY and X-API-SECRET together."
            raise AuthenticationError(
                f"The access key is not valid; check it or ask for another.{hint if self.byok else ''}"
            )
        return self._admit(entry, address)

    def recall(self, name: str, address: str | None = None) -> Principal:
        """Whoever was let in under this name, if their key is still good. Raises as ``authenticate``."""
        if self._open:
            return ANONYMOUS
        if self.byok and name.startswith(CALLER):
            return Principal(name, models=frozenset())
        entry = next((one for one in self._entries.values() if one.principal.name == name), None)
        if entry is None:
            raise AuthenticationError("The access key is not valid any more; ask for another.")
        return self._admit(entry, address)

    def _admit(self, entry: _Entry, address: str | None) -> Principal:
        if entry.disabled:
            raise AuthenticationError(
                "The access key is switched off; ask for another.", code="disabled_api_key"
            )
        if entry.expires is not None and self._wall() >= entry.expires:
            raise AuthenticationError("The access key has expired; ask for another.", code="expired_api_key")
        if entry.networks and not _within(address, entry.networks):
            raise NotAllowed("This key may not be used from this address.", code="address_not_allowed")
        return entry.principal


def key_from_headers(headers: Mapping[str, str]) -> str | None:
    """The key that a client sent: as Bearer, else ``x-api-key``, else ``api-key``; None if there is none."""
    authorization = headers.get("Authorization")
    if authorization is not None and authorization.strip():
        scheme, *rest = authorization.split(maxsplit=1)
        if scheme.lower() == "bearer" and rest:
            return rest[0].strip()
    for name in ("x-api-key", "api-key"):
        value = headers.get(name)
        if value is not None and value.strip():
            return value.strip()
    return None


def _entry(key: AccessKey) -> _Entry:
    expires = None
    if key.expires is not None:
        moment = datetime.fromisoformat(key.expires)
        expires = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return _Entry(
        hashlib.sha256(key.key.encode()).digest(),
        Principal(
            key.name,
            key.admin,
            frozenset(key.models) if key.models else None,
            key.status,
            key.background,
            key.override,
        ),
        key.disabled,
        expires,
        tuple(ipaddress.ip_network(address, strict=False) for address in key.addresses),
    )


def _within(address: str | None, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    if address is None:
        return False
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
