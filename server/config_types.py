"""From the tree of a configuration file to the settings structs, with every fault said in words.

It walks the types that ``msgspec.inspect`` knows of ``settings.py``, so a new field is read, checked and
suggested without a line here.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

import msgspec
import msgspec.inspect as types

from server.config_yaml import Entries, Faults, Items, Node, Path, Place, Scalar, printable

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*)?(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")
# Integers beyond this are not the same in every JSON reader; no setting comes near.
_LARGEST = 2**53


class _Bad:
    """What reading a wrong value gives; the reason is among the faults."""


BAD = _Bad()


class Reader:
    """Reads one tree. ``paths`` tells afterwards from where each struct came, by ``id``."""

    def __init__(self, faults: Faults, root: type[msgspec.Struct]) -> None:
        self._faults = faults
        self._root = _struct_type(root)
        self.paths: dict[int, Path] = {}
        self.unknown: set[Path] = set()

    def read(self, node: Node | None) -> Any:
        """The root struct; what is wrong in it has its default, or is left out of its list."""
        value = self._struct(Entries(_START, {}, {}) if node is None else node, self._root, ())
        return self._struct(Entries(_START, {}, {}), self._root, ()) if value is BAD else value

    def _value(self, node: Node, kind: types.Type, path: Path) -> Any:
        if isinstance(node, Scalar) and node.missing:
            return BAD
        match kind:
            case types.UnionType():
                return self._union(node, kind, path)
            case types.StructType():
                return self._struct(node, kind, path)
            case types.VarTupleType():
                return self._items(node, kind, path)
            case types.DictType():
                return self._entries(node, kind, path)
            case types.AnyType():
                return self._any(node, path)
        if not isinstance(node, Scalar):
            return self._wrong(node, kind, path)
        if node.tag == "null":
            self._faults.add(
                node.place, path, "is empty; give it a value, or take the key out for its default"
            )
            return BAD
        return self._scalar(node, kind, path)

    def _union(self, node: Node, kind: types.UnionType, path: Path) -> Any:
        options = [one for one in kind.types if not isinstance(one, types.NoneType)]
        may_be_none = len(options) < len(kind.types)
        # An empty default, as in ${NAME:-}, says the same as no value.
        if may_be_none and (
            _is_empty(node) or (isinstance(node, Scalar) and node.substituted and not node.text)
        ):
            return None if not (isinstance(node, Scalar) and node.missing) else BAD
        if len(options) == 1:
            return self._value(node, options[0], path)
        for option in options:
            if _fits(node, option):
                return self._value(node, option, path)
        if isinstance(node, Scalar) and node.tag == "null":
            return self._value(node, options[0], path)
        expected = " or ".join(_expected(option, path) for option in options)
        self._faults.add(node.place, path, f"must be {expected}")
        return BAD

    def _struct(self, node: Node, kind: types.StructType, path: Path) -> Any:
        if _is_empty(node):  # every key below it is commented out
            node = Entries(node.place, {}, {})
        if not isinstance(node, Entries):
            return self._wrong(node, kind, path)
        fields = {field.encode_name: field for field in kind.fields}
        for name, place in node.keys.items():
            if name not in fields:
                self.unknown.add((*path, name))
                self._faults.add(place, (*path, name), _unknown(name, list(fields), self._root))
        values: dict[str, Any] = {}
        whole = True
        for name, field in fields.items():
            if name in node.values:
                value = self._value(node.values[name], field.type, (*path, name))
                if value is not BAD:
                    values[name] = value
                elif field.required:
                    whole = False
            elif field.required:
                whole = False
                self._faults.add(
                    node.place, (*path, name), f"is missing; it must be {_expected(field.type, (name,))}"
                )
        if not whole:
            return BAD
        struct = kind.cls(**values)
        self.paths[id(struct)] = path
        return struct

    def _items(self, node: Node, kind: types.VarTupleType, path: Path) -> Any:
        if _is_empty(node):
            return ()
        if not isinstance(node, Items):
            return self._wrong(node, kind, path)
        items = [self._value(item, kind.item_type, (*path, at)) for at, item in enumerate(node.items)]
        if BAD in items and not isinstance(kind.item_type, types.StructType):
            return BAD  # what is left would stand at other places than in the file
        return tuple(item for item in items if item is not BAD)

    def _entries(self, node: Node, kind: types.DictType, path: Path) -> Any:
        if _is_empty(node):
            return {}
        if not isinstance(node, Entries):
            return self._wrong(node, kind, path)
        items = {name: self._value(one, kind.value_type, (*path, name)) for name, one in node.values.items()}
        return {name: item for name, item in items.items() if item is not BAD}

    def _scalar(self, node: Scalar, kind: types.Type, path: Path) -> Any:
        match kind:
            case types.StrType():
                if node.tag == "bool":
                    self._faults.add(node.place, path, f"must be text: {_yes_no(node)}")
                    return BAD
                return node.text  # a date, or a number such as 0123, is the text that was written
            case types.BoolType():
                word = node.text.lower()
                if node.tag == "bool" or (node.substituted and word in (*_TRUE, *_FALSE, "1", "0")):
                    return word in (*_TRUE, "1")
            case types.LiteralType():
                if node.text in kind.values and node.tag != "bool":
                    return node.text
                return self._not_a_choice(node, kind, path)
            case types.IntType() | types.FloatType():
                return self._number(node, kind, path)
        return self._wrong(node, kind, path)

    def _number(self, node: Scalar, kind: types.IntType | types.FloatType, path: Path) -> Any:
        text = node.text.strip() if node.substituted else node.text
        pattern = _INTEGER if isinstance(kind, types.IntType) else _NUMBER
        hint = ""
        if node.tag == "int" and re.fullmatch(r"[-+]?0[0-9_]+", text):
            # YAML 1.1 takes 010 for eight.
            hint = ", written without the leading 0 (which YAML reads as octal)"
        elif node.tag == "str" and not node.substituted and pattern.fullmatch(text):
            hint = ", without quotes" if text[-1:].isdigit() and "e" not in text.lower() else ""
        # 1e3 without a dot is text to YAML 1.1, and a number to everybody who writes it.
        plain = node.substituted or node.tag in ("int", "float") or "e" in text.lower()
        if not hint and plain and any(char.isdigit() for char in text) and pattern.fullmatch(text):
            number = _to_number(text, kind)
            if number is not None and _within(number, kind):
                return number
        self._faults.add(node.place, path, f"must be {_expected(kind, path)}{hint}")
        return BAD

    def _not_a_choice(self, node: Scalar, kind: types.LiteralType, path: Path) -> Any:
        choices = [str(value) for value in kind.values]
        hidden = node.substituted or node.tag == "bool"
        near = [] if hidden else difflib.get_close_matches(node.text.lower(), choices, n=1)
        message = f"must be {_expected(kind, path)}" + (f"; did you mean {near[0]}?" if near else "")
        if node.tag == "bool":
            message += f": {_yes_no(node)}"
        self._faults.add(node.place, path, message)
        return BAD

    def _any(self, node: Node, path: Path) -> Any:
        """A value that goes to an upstream as JSON."""
        match node:
            case Items():
                return [self._any(item, (*path, at)) for at, item in enumerate(node.items)]
            case Entries():
                return {name: self._any(one, (*path, name)) for name, one in node.values.items()}
        if node.tag == "null":
            return None
        if node.tag == "bool":
            return node.text.lower() in _TRUE
        if node.tag in ("int", "float"):
            return self._number(node, _INT if node.tag == "int" else _FLOAT, path)
        return node.text

    def _wrong(self, node: Node, kind: types.Type, path: Path) -> _Bad:
        self._faults.add(node.place, path, f"must be {_expected(kind, path)}")
        return BAD


_INT = types.IntType()
_FLOAT = types.FloatType()
_START = Place(1, 1)


def _struct_type(cls: type[msgspec.Struct]) -> types.StructType:
    kind = types.type_info(cls)
    assert isinstance(kind, types.StructType)
    return kind


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tag == "null" and not node.missing


def _fits(node: Node, kind: types.Type) -> bool:
    match kind:
        case types.StructType() | types.DictType():
            return isinstance(node, Entries)
        case types.VarTupleType():
            return isinstance(node, Items)
        case types.LiteralType():
            return isinstance(node, Scalar) and node.text in kind.values
        case types.IntType() | types.FloatType():
            return isinstance(node, Scalar) and (node.tag in ("int", "float") or node.text.isdigit())
    return isinstance(node, Scalar)


def _to_number(text: str, kind: types.IntType | types.FloatType) -> int | float | None:
    digits = text.replace("_", "")
    if len(digits) > 40:
        return None
    number = float(digits)
    if not math.isfinite(number) or abs(number) > _LARGEST:
        return None
    return int(digits) if isinstance(kind, types.IntType) else number


def _within(number: float, kind: types.IntType | types.FloatType) -> bool:
    return not (
        (kind.gt is not None and number <= kind.gt)
        or (kind.ge is not None and number < kind.ge)
        or (kind.lt is not None and number >= kind.lt)
        or (kind.le is not None and number > kind.le)
    )


def _expected(kind: types.Type, path: Path) -> str:
    """What a value must be, after the words "must be"; units come from the key's name."""
    match kind:
        case types.StrType():
            return "text"
        case types.BoolType():
            return "true or false"
        case types.LiteralType():
            *most, last = sorted(str(value) for value in kind.values)
            return f"{', '.join(most)} or {last}" if most else last
        case types.VarTupleType():
            return "a list, [a, b] or one '- …' a line"
        case types.StructType():
            *most, last = [field.encode_name for field in kind.fields]
            return f"a map of keys ({', '.join(most)} or {last})" if len(most) < 8 else "a map of keys"
        case types.DictType():
            return "a map, name: value"
        case types.UnionType():
            options = [one for one in kind.types if not isinstance(one, types.NoneType)]
            return " or ".join(_expected(option, path) for option in options)
        case types.IntType() | types.FloatType():
            return _expected_number(kind, path)
    return "a value"


def _expected_number(kind: types.IntType | types.FloatType, path: Path) -> str:
    name = next((step for step in reversed(path) if isinstance(step, str)), "")
    words = "a whole number" if isinstance(kind, types.IntType) else "a number"
    for ending, unit in (
        ("_s", "seconds"),
        ("_bytes", "bytes"),
        ("_tokens", "tokens"),
        ("_chars", "characters"),
    ):
        if name.endswith(ending):
            words += f" of {unit}"
    if kind.ge is not None and kind.le is not None:
        return f"{words} from {kind.ge} to {kind.le}"
    if kind.gt is not None and kind.le is not None:
        return f"{words} above {kind.gt:g}, at most {kind.le:g}"
    if kind.gt is not None:
        return f"{words} above {kind.gt:g}"
    if kind.ge is not None:
        return f"{words}, {kind.ge:g} or more"
    return words


def _yes_no(node: Scalar) -> str:
    return f"YAML reads a bare {node.text} as true or false, so put it in quotes"


def nearest(name: str, known: list[str]) -> str:
    """``, did you mean …?`` for the known name that ``name`` is probably a slip of, else ""."""
    folded = {one.lower(): one for one in reversed(known)}
    near = difflib.get_close_matches(name.lower()[:200], list(folded), n=1)
    return f", did you mean {printable(folded[near[0]])}?" if near else ""


def _unknown(name: str, known: list[str], root: types.StructType) -> str:
    if near := nearest(name, known):
        return f"unknown key{near}"
    homes = [home for home, fields in _sections(root, "") if name in fields]
    if homes:
        return f"unknown key here; it belongs in {homes[0]}"
    return f"unknown key; known here: {', '.join(known)}"


def _sections(kind: types.StructType, where: str) -> list[tuple[str, list[str]]]:
    """Every map of the file, with the keys it takes, the outermost first."""
    found = [(where or "the file's outermost level", [field.encode_name for field in kind.fields])]
    for field in kind.fields:
        options = field.type.types if isinstance(field.type, types.UnionType) else (field.type,)
        here = f"{where}.{field.encode_name}".lstrip(".")
        for option in options:
            if isinstance(option, types.StructType):
                found += _sections(option, here)
            elif isinstance(option, types.VarTupleType) and isinstance(option.item_type, types.StructType):
                found += _sections(option.item_type, f"{here}[]")
    return sorted(found, key=lambda section: section[0].count(".") if where == "" else 0)
