"""What the types cannot say about the listening side, the keys and the channels.

Every check notes a fault at its place, or a warning where a file may be meant as it is. Messages never
quote a secret, nor a value that may hold one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path as FilePath
from urllib.parse import SplitResult, urlsplit

import msgspec

from server.config_yaml import Entries, Faults, Items, Node, Path, Place, Scalar
from server.settings import AccessKey, Channel, Settings
from server.spark.models import canonical_name, with_overrides

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+|null")
_NETWORK = (
    "must be an address or a network, such as 192.168.1.20 or 192.168.1.0/24 (no bits set behind the /)"
)
_ODD_PATH = re.compile(r"//|/\.{1,2}(/|$)|\\|%(00|0a|0d|2e|2f|5c)", re.IGNORECASE)
# What the client library writes itself.
_OUR_HEADERS = ("host", "content-length", "transfer-encoding", "connection")


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


def check_access(found: Findings, *, others_can_read: bool) -> None:
    """``access``: names, keys, networks, dates; and an open server stays at home."""
    access = found.settings.access
    # A key that was left out for a fault of its own is a key all the same.
    wants_keys = bool(access.keys) or found.broken(("access",)) or found.excused((), "access")
    server = found.settings.server
    if not wants_keys and server.host and not is_loopback(server.host):
        found.wrong(
            ("server", "host"),
            "refuses to start open on another address than loopback: set access.keys or ANTIPHON_KEYS, "
            "or host: 127.0.0.1",
        )
    if access.keys and all(key.disabled for key in access.keys):
        found.doubt(("access", "keys"), "every key is disabled: nobody gets in")
    named = [(_under(found, key, "name"), key.name) for key in access.keys]
    check_unique(found, named, "this key's name")
    check_unique(found, [(_under(found, key, "key"), key.key) for key in access.keys if key.key], "this key")
    for key in access.keys:
        check_name(found, _under(found, key, "name"), key.name, "a key's name")
        check_secret(found, _under(found, key, "key"), key.key, others_can_read)
        _check_networks(found, _under(found, key, "addresses"), key.addresses)
        if key.expires is not None and expiry(key) is None:
            found.wrong(
                _under(found, key, "expires"),
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


def _under(found: Findings, struct: msgspec.Struct, *steps: str | int) -> Path:
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


def check_channels(found: Findings, *, others_can_read: bool) -> None:
    """``channels``: each by its kind."""
    channels = found.settings.channels
    check_unique(found, [(_under(found, one, "name"), one.name) for one in channels], "this channel's name")
    if not any(one.enabled for one in channels) and not found.excused((), "channels"):
        found.doubt(("channels",), "no channel is enabled, so there is no model to ask")
    for channel in channels:
        check_name(found, _under(found, channel, "name"), channel.name, "a channel's name")
        _check_models(found, channel)
        if channel.kind == "openai":
            _check_openai(found, channel, others_can_read)
        elif channel.kind == "spark":
            _check_spark(found, channel, others_can_read)
        else:
            _check_local(found, channel)


def _check_models(found: Findings, channel: Channel) -> None:
    path = _under(found, channel, "models")
    if isinstance(channel.models, tuple):
        check_unique(found, [((*path, at), name) for at, name in enumerate(channel.models)], "this model")
    if not channel.models and channel.enabled and not found.excused(found.path(channel), "models"):
        found.wrong(path, "lists no model: name those that this channel serves")
    for at, (name, model) in enumerate(channel.served().items()):
        step = at if isinstance(channel.models, tuple) else name
        check_name(found, (*path, step), name, "a model's name")
        if model.model is not None and not model.model.strip():
            found.wrong(
                (*path, step, "model"), "must not be empty; leave it out if the name is the same there"
            )


def _check_openai(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path = found.path(channel)
    if channel.base_url is not None:
        _check_base_url(found, (*path, "base_url"), channel)
    elif channel.enabled and not found.excused(path, "base_url"):
        found.wrong(
            (*path, "base_url"), "is missing; kind openai wants it, such as https://api.example.com/v1"
        )
    if channel.api_key is not None:
        check_secret(found, (*path, "api_key"), channel.api_key, others_can_read)
        if channel.auth == "none":
            found.doubt((*path, "api_key"), "is not sent, since auth is none")
    for name, value in channel.headers.items():
        here: Path = (*path, "headers", name)
        if not _HEADER_NAME.fullmatch(name):
            found.wrong(here, "is not a header's name")
        elif name.lower() in _OUR_HEADERS:
            found.wrong(here, "is written by the server itself")
        if any(char in value for char in "\r\n\0"):
            found.wrong(here, "must be one line")
        elif not value.isascii():
            found.wrong(here, "must be ASCII")
    _check_proxy(found, channel)
    _check_tls(found, channel)
    _unused(found, channel, ("path", "threads", "slots", "context"), "kind local")


def _check_proxy(found: Findings, channel: Channel) -> None:
    proxy = _split(channel.proxy or "http://none")
    if proxy is None or proxy.scheme not in ("http", "https") or proxy.path not in ("", "/") or proxy.query:
        path = _under(found, channel, "proxy")
        found.wrong(path, "must be a proxy's URL, such as http://proxy.example.org:3128")


def _check_base_url(found: Findings, path: Path, channel: Channel) -> None:
    url = _split(channel.base_url or "")
    if url is None or url.scheme not in ("http", "https"):
        found.wrong(
            path, "must be a URL that begins with http:// or https://, such as https://api.example.com/v1"
        )
    elif url.username is not None or url.password is not None:
        found.wrong(path, "must not hold a name or password; a key goes into api_key")
    elif url.query or url.fragment or "?" in (channel.base_url or ""):
        found.wrong(path, "must not hold a query (?…) or a fragment (#…)")
    elif _ODD_PATH.search(url.path):
        found.wrong(path, "has an odd path: no //, no . or .. between slashes, no %00 and no \\ may be in it")
    elif url.path.rstrip("/").endswith("/chat/completions"):
        found.wrong(path, "must end before /chat/completions, which the server adds")
    elif url.scheme == "http" and not is_loopback(url.hostname or "") and channel.enabled:
        found.doubt(path, "http:// beyond this machine: prompts, answers and the key travel unencrypted")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL with a host, or None."""
    if not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and (parts.port is None or parts.port > 0) else None
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None


def _check_tls(found: Findings, channel: Channel) -> None:
    path = _under(found, channel, "tls")
    tls = channel.tls
    for name in ("ca_file", "cert_file", "key_file"):
        file = getattr(tls, name)
        if file is not None and channel.enabled and not _is_file(file):
            found.wrong((*path, name), "names no file that can be found")
    if (tls.cert_file is None) is not (tls.key_file is None) and not found.broken(path):
        found.wrong(path, "cert_file and key_file go together")
    if not tls.verify:
        found.doubt((*path, "verify"), "certificates are not checked: whoever is in between reads everything")


def _check_spark(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path = found.path(channel)
    for name in ("app_id", "api_key", "api_secret"):
        value = getattr(channel, name)
        if value is not None:
            check_secret(found, (*path, name), value, others_can_read)
        elif channel.enabled and not found.excused(path, name):
            found.wrong((*path, name), "is missing; kind spark wants all three of its console's credentials")
    url = _split(channel.base_url or "wss://vendor")
    if url is None or url.scheme not in ("ws", "wss") or url.query or url.username is not None:
        found.wrong((*path, "base_url"), "must begin with wss:// (or ws://); leave it out for the vendor's")
    elif url.scheme == "ws" and not is_loopback(url.hostname or "") and channel.enabled:
        found.doubt((*path, "base_url"), "ws:// beyond this machine: prompts and answers travel unencrypted")
    try:
        models = with_overrides(channel.spark.models)
    except ValueError as error:
        found.wrong((*path, "spark", "models"), f"cannot be used: {error}")
        return
    for name, model in channel.served().items():
        theirs = model.model or name
        known = models.get(theirs) or models.get(canonical_name(theirs))
        if known is None:
            found.wrong((*path, "models"), f"Spark has no model {theirs}; known are {', '.join(models)}")
        elif known.retired:
            found.doubt((*path, "models"), f"{theirs}: {known.retired}")
    _check_proxy(found, channel)
    _check_tls(found, channel)
    unused = ("auth", "headers", "stream_usage", "http", "path", "threads", "slots", "context")
    _unused(found, channel, unused, "another kind")


def _check_local(found: Findings, channel: Channel) -> None:
    path = found.path(channel)
    if channel.base_url is not None:
        found.wrong((*path, "base_url"), "has no use with kind local, which runs here; kind openai wants it")
    if channel.path is not None and channel.enabled and not _is_file(channel.path):
        found.wrong((*path, "path"), "names no file that can be found")
    unused = ("api_key", "auth", "headers", "stream_usage", "proxy", "tls")
    _unused(found, channel, unused, "kind openai")


def _is_file(name: str) -> bool:
    try:
        return FilePath(name).is_file()
    except (OSError, ValueError):
        return False


def _unused(found: Findings, channel: Channel, keys: tuple[str, ...], kind: str) -> None:
    for key in keys:
        if found.given(_under(found, channel, key)):
            found.doubt(_under(found, channel, key), f"is not used: it is for {kind}")
