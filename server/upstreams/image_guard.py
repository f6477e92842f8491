"""Which addresses an image may be fetched from: only public ones, judged where the connection is made.

A name is resolved once, by :class:`GuardedResolver`, and its addresses are those that are connected to, so
that no second answer of the DNS can slip in between. Literal addresses reach no resolver: they are
judged by :func:`checked_url`, at every hop.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

# Prefixes that carry an IPv4 address to a translator or relay: what they embed may be any intranet's.
_CARRIERS = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
    )
)
# Site-local, deprecated and still routed within some sites.
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
# 168.63.129.16 is a public number that a cloud answers on its hosts' inside; its metadata live there.
_METADATA = frozenset({ipaddress.IPv4Address("168.63.129.16")})
_PORTS = frozenset({80, 443})


def is_public(address: str) -> bool:
    """Is this numeric address one of the open internet? A zone id, or what is no address, is not."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None or ip in _SITE_LOCAL or any(ip in net for net in _CARRIERS):
            return False
    elif ip in _METADATA:
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def checked_url(text: str, allow_hosts: Collection[str]) -> URL:
    """The URL if it may be dialled as far as its text tells; ``ValueError`` with the reason if not.

    ``allow_hosts``: names or addresses, in lower case, that may be private and have any port.
    """
    url = URL(text)
    host = plain_host(url.raw_host or "")
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("it must be an http or https URL with a host")
    if url.user is not None or url.password is not None:
        raise ValueError("it must not hold a user name or password")
    if host in allow_hosts:
        return url
    if url.port not in _PORTS:
        raise ValueError("its port must be 80 or 443")
    # Only what is an address by its spelling: ":" is IPv6; of the rest, a name's last label is no number.
    if (":" in host or _is_dotted(host)) and not is_public(host):
        raise ValueError("its host is not a public one")
    return url


def plain_host(host: str) -> str:
    """The host as the allow-list spells it: lower case, no trailing dot."""
    return host.lower().rstrip(".")


def _is_dotted(host: str) -> bool:
    """Does the last label look like a number, as in 127.1, 0x7f000001 or 2130706433?"""
    last = host.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")


class GuardedResolver(AbstractResolver):
    """Resolves through ``inner`` and gives only public addresses, except for allowed hosts.

    It refuses a name of which any address is private: a mixture is an attempt, not a mistake. Owns ``inner``.
    """

    def __init__(self, inner: AbstractResolver, allow_hosts: Collection[str]) -> None:
        self._inner = inner
        self._allow_hosts = allow_hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if plain_host(host) not in self._allow_hosts and not all(is_public(one["host"]) for one in found):
            raise OSError("the name has an address that is not public")
        return found

    async def close(self) -> None:
        await self._inner.close()
