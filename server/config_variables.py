"""The variables of a configuration: ``${NAME}`` put in, and what stands in for one that is not set.

Messages never quote a variable's value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.config_yaml import Entries, Faults, Items, Node, Path, Scalar

SPARK = ("APP_ID", "API_KEY", "API_SECRET")
"""The variables of a Spark channel that names no credentials."""

# Of a channel, what may be made up: its keys, its address, what a vendor calls things.
_MADE_UP = ("api_key", "api_keys", "app_id", "api_secret", "base_url", "proxy", "headers", "models")
_VARIABLE = re.compile(r"\$\$|\$\{(?P<inner>[^}]*)\}?")
_NAME = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


def substitute(node: Node, path: Path, variables: Mapping[str, str], faults: Faults) -> None:
    """Put variables into every text below ``node``, in place.

    ``${NAME}`` is the variable, ``${NAME:-default}`` the default where it is not set or empty, ``$$`` a
    dollar. In a channel with ``enabled: false`` a value whose variable is not set is left out, so that what
    is switched off needs no secret.
    """
    match node:
        case Scalar():
            _fill_in(node, path, variables, faults)
        case Items():
            for at, item in enumerate(node.items):
                if path == ("channels",) and isinstance(item, Entries) and _is_off(item, variables):
                    _without_unset(item, (*path, at), variables, faults)
                else:
                    substitute(item, (*path, at), variables, faults)
        case Entries():
            for name, value in node.values.items():
                substitute(value, (*path, name), variables, faults)


def stand_ins(root: Node, variables: Mapping[str, str]) -> dict[str, str]:
    """Something made up for each variable of keys, addresses and names that is wanted and not set.

    Each is printable, differs from the others, and is a URL where the variable is a whole address.
    """
    found: dict[str, str] = {}

    def look(node: Node, scheme: str | None) -> None:
        if isinstance(node, Items | Entries):
            for below in node.items if isinstance(node, Items) else node.values.values():
                look(below, scheme)
        elif node.tag == "str":
            for match in _VARIABLE.finditer(node.text):
                name = match["inner"]
                if name and _NAME.fullmatch(name) and ":" not in name and name not in variables:
                    whole = scheme is not None and match.group() == node.text
                    found.setdefault(
                        name, f"{scheme}://{_made_up(name)}.invalid" if whole else _made_up(name)
                    )

    for channel in _below(root, "channels"):
        if isinstance(channel, Entries) and not _is_off(channel, variables):
            kind = channel.values.get("kind")
            spark = isinstance(kind, Scalar) and kind.text == "spark"
            schemes = {"base_url": "wss" if spark else "https", "proxy": "http"}
            for name in filter(channel.values.__contains__, _MADE_UP):
                look(channel.values[name], schemes.get(name))
            if spark and channel.values.keys().isdisjoint(("app_id", "api_key", "api_secret", "spark")):
                for name in SPARK:  # it names none, so its credentials come from these
                    if name not in variables:
                        found.setdefault(name, _made_up(name))
    access = root.values.get("access") if isinstance(root, Entries) else None
    for key in _below(access, "keys"):
        if isinstance(key, Entries) and "key" in key.values:
            look(key.values["key"], None)
    return found


def _made_up(variable: str) -> str:
    return f"unset-{variable.lower().replace('_', '-')}"


def _below(node: Node | None, name: str) -> list[Node]:
    items = node.values.get(name) if isinstance(node, Entries) else None
    return items.items if isinstance(items, Items) else []


def _fill_in(scalar: Scalar, path: Path, variables: Mapping[str, str], faults: Faults) -> None:
    def value_of(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        scalar.substituted = True
        inner = _NAME.fullmatch(match["inner"])
        if inner is None or not match.group().endswith("}"):
            scalar.missing = True
            faults.add(
                scalar.place,
                path,
                "a variable is written ${NAME} or ${NAME:-default}; a plain ${ is written $${",
            )
            return ""
        name, default = inner["name"], inner["default"]
        if default is not None:
            return variables.get(name) or default[2:]
        if name not in variables:
            scalar.missing = True
            faults.add(
                scalar.place,
                path,
                f"the variable {name} is not set: export it, or write {name}=… into a file .env "
                "beside this file or in the working directory",
            )
        return variables.get(name, "")

    if scalar.tag == "str" and "$" in scalar.text:
        scalar.text = _VARIABLE.sub(value_of, scalar.text)


def _is_off(channel: Entries, variables: Mapping[str, str]) -> bool:
    enabled = channel.values.get("enabled")
    if not isinstance(enabled, Scalar):
        return False
    copy = Scalar(enabled.place, enabled.text, enabled.tag)
    _fill_in(copy, (), variables, Faults(""))
    return (copy.tag == "bool" or copy.substituted) and copy.text.lower() in ("false", "no", "off", "0")


def _without_unset(node: Node, path: Path, variables: Mapping[str, str], faults: Faults) -> None:
    unsaid = Faults("")
    if isinstance(node, Entries):
        for name, value in list(node.values.items()):
            if isinstance(value, Scalar):
                _fill_in(value, (*path, name), variables, unsaid)
                if value.missing:
                    del node.values[name], node.keys[name]
            else:
                _without_unset(value, (*path, name), variables, faults)
    elif isinstance(node, Items):
        for at, item in enumerate(node.items):
            _without_unset(item, (*path, at), variables, faults)
        node.items = [item for item in node.items if not (isinstance(item, Scalar) and item.missing)]
    else:
        _fill_in(node, path, variables, unsaid)
