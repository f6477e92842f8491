"""What the types cannot say about the listening side and the keys.

Every check notes a fault at its place, or a warning where a file may be meant as it is. Messages never
quote a secret, nor a value that may hold one.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from server.config_yaml import Entries, Faults, Items, Node, Path, Place, Scalar
from server.settings import AccessKey, Settings

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+|null")
_NETWORK = (
    "must be an address or a network, such as 192.168.1.20 or 192.168.1.0/24 (no bits set behind the /)"
)


class Findings(msgspec.Struct):
    """What was read, and what was found in it.

    ``paths`` leads from a struct's ``id`` to its place in the tree; ``origins`` from a path to where its
    value came from, if that was not the file (an environment variable). ``unknown`` are the keys that no
    setting has, ``unread`` these and the values that are not of their type.
    """

    settings: Settings
    root: Node | None
    paths: dict[int, Path]
    faults: Faults
    warnings: Faults
    origins: dict[Path, str]
    unknown: frozenset[Path]
    unread: frozenset[Path]

    def path(self, struct: msgspec.Struct) -> Path:
        return self.paths.get(id(struct), ())

    def place(self, path: Path) -> Place | None:
        """Where the value at ``path`` stands, or the nearest thing around it."""
        node = self.root
        place = None if node is None else node.place
        for step in path:
            if isinstance(node, Entries) and isinstance(step, str) and step in node.values:
                node = node.values[step]
            elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                break
            place = node.place
        return place

    def given(self, path: Path) -> bool:
        """Does the file say something at ``path``?"""
        node = self.root
        for step in path:
            if isinstance(node, Entries) and isinstance(step, str) and step in node.values:
                node = node.values[step]
            elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                return False
        return not (isinstance(node, Scalar) and node.tag == "null")

    def in_plain(self, path: Path) -> bool:
        """Is the value at ``path`` written into the file itself?"""
        node = self.root
        for step in path:
            if isinstance(node, Entries) and isinstance(step, str):
                node = node.values.get(step)
            elif isinstance(node, Items) and isinstance(step, int):
                node = node.items[step]
        return isinstance(node, Scalar) and not node.substituted

    def broken(self, path: Path) -> bool:
        """Could something at or below ``path`` not be read, so that it is missing from ``settings``?"""
        return any(lost[: len(path)] == path for lost in self.unread)

    def excused(self, path: Path, key: str) -> bool:
        """May ``key`` be missing from the map at ``path`` only because of what has been told already?"""
        slips = any(slip[:-1] == path for slip in self.unknown)  # its name may be misspelled
        return slips or self.broken((*path, key))

    def wrong(self, path: Path, message: str) -> None:
        self.faults.add(self.place(path), path, message, file=self.origins.get(path))

    def doubt(self, path: Path, message: str) -> None:
        self.warnings.add(self.place(path), path, message, file=self.origins.get(path))


def check_name(found: Findings, path: Path, name: str, what: str) -> None:
    """A name that stands in URLs, logs and lists."""
    if not name:
        found.wrong(path, f"{what} must not be empty")
    elif name != name.strip() or not name.isprintable():
        found.wrong(path, f"{what} must be one line without blanks around it")
    elif len(name) > 200:
        found.wrong(path, f"{what} must have at most 200 characters")


def check_unique(found: Findings, names: Iterable[tuple[Path, str]], what: str) -> None:
    seen: dict[str, Place | None] = {}
    for path, name in names:
        if name in seen:
            first = seen[name]
            where = f" (line {first.line})" if first else ""
            found.wrong(path, f"{what} stands twice: another has it already{where}")
        else:
            seen[name] = found.place(path)


def is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_server(found: Findings) -> None:
    """``server``, ``cors`` and ``events``: the address, names and origins."""
    server = found.settings.server
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", server.host):
        found.wrong(
            ("server", "host"), "must be an address or a host's name, without port, such as 127.0.0.1 or ::1"
        )
    for at, host in enumerate(server.allowed_hosts):
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", host):
            found.wrong(
                ("server", "allowed_hosts", at), "must be a host's name without scheme, port and path"
            )
    for section, origins in (
        ("cors", found.settings.cors.origins),
        ("events", found.settings.events.origins),
    ):
        for at, origin in enumerate(origins):
            path: Path = (section, "origins", at)
            if origin == "*":
                found.wrong(path, "* is not an origin; with keys, an empty list allows every one")
            elif not _ORIGIN.fullmatch(origin):
                found.wrong(
                    path,
                    "must be an origin such as https://chat.example.org, without a path or a / at its end",
                )


def check_uploads(found: Findings) -> None:
    """``uploads``: a folder that there is, and room for one form at least."""
    uploads = found.settings.uploads
    if uploads.dir is not None and not os.access(uploads.dir, os.W_OK | os.X_OK):
        found.wrong(("uploads", "dir"), "names no folder that can be written to")
    if uploads.all_bytes < uploads.max_bytes:
        found.wrong(("uploads", "all_bytes"), "must be at least max_bytes, which one form may have")


def check_access(found: Findings, *, others_can_read: bool) -> None:
    """``access``: names, keys, networks, dates; and an open server stays at home."""
    access = found.settings.access
    # A key that was left out for a fault of its own is a key all the same.
    wants_keys = bool(access.keys) or access.byok or found.broken(("access",)) or found.excused((), "access")
    server = found.settings.server
    if not wants_keys and server.host and not is_loopback(server.host):
        found.wrong(
            ("server", "host"),
            "refuses to start open on another address than loopback: set access.keys or ANTIPHON_KEYS, "
            "or host: 127.0.0.1",
        )
    lends = any(one.kind == "spark" and one.spark.client_credentials for one in found.settings.channels)
    if access.byok and not lends and not found.broken(("channels",)):
        found.wrong(("access", "byok"), "wants a channel of kind spark with spark.client_credentials: true")
    if access.keys and all(key.disabled for key in access.keys):
        found.doubt(("access", "keys"), "every key is disabled: nobody gets in")
    named = [(under(found, key, "name"), key.name) for key in access.keys]
    check_unique(found, named, "this key's name")
    check_unique(found, [(under(found, key, "key"), key.key) for key in access.keys if key.key], "this key")
    for key in access.keys:
        check_name(found, under(found, key, "name"), key.name, "a key's name")
        check_secret(found, under(found, key, "key"), key.key, others_can_read)
        _check_networks(found, under(found, key, "addresses"), key.addresses)
        if key.expires is not None and expiry(key) is None:
            found.wrong(
                under(found, key, "expires"),
                "must be a date, or a time with its offset, as 2027-01-31 or 2027-01-31T18:00:00Z (RFC 3339)",
            )
    _check_networks(found, ("access", "trusted_proxies"), access.trusted_proxies)


def expiry(key: AccessKey) -> str | None:
    """``expires`` as a full RFC 3339 time; a bare date is its first moment in UTC. None if it is neither."""
    if key.expires is None:
        return None
    try:
        moment = datetime.fromisoformat(key.expires)
    except ValueError:
        return None
    if moment.tzinfo is None:
        if not re.fullmatch(r"\d{4}-\d\d?-\d\d?", key.expires):
            return None
        moment = moment.replace(tzinfo=UTC)
    return moment.isoformat()


def under(found: Findings, struct: msgspec.Struct, *steps: str | int) -> Path:
    """Where a struct's setting stands."""
    return (*found.path(struct), *steps)


def _check_networks(found: Findings, path: Path, networks: tuple[str, ...]) -> None:
    for at, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            found.wrong((*path, at), _NETWORK)


def check_secret(found: Findings, path: Path, secret: str, others_can_read: bool) -> None:
    """A key, ours or an upstream's."""
    if not secret:
        found.wrong(path, "must not be empty")
    elif not secret.isascii() or not secret.isprintable() or " " in secret:
        found.wrong(path, "must be printable ASCII without blanks and line ends")
    elif others_can_read and found.given(path) and found.in_plain(path):
        found.doubt(
            path,
            'a secret in a file that other users of this machine can read: write "${NAME}" '
            "and set it in .env, or chmod 600 the file",
        )
