"""A configuration file as a tree that knows its places: YAML in, nodes out.

Beyond YAML's own rules: a key stands once in a map, keys are text, tags and more than one document are
refused, and depth and size are bounded, so that no file takes the process along. Scalars keep the text they
were written with: what it means, the wanted type says.

Messages never quote a value, which may be a secret.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec
import yaml

MAX_FILE_BYTES = 1024 * 1024
MAX_NODES = 50_000  # aliases counted as often as they are used
MAX_DEPTH = 64

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list places (from 0) that lead to a value."""


class Place(msgspec.Struct, frozen=True):
    """Line and column, both from 1."""

    line: int
    column: int


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong (or, as a warning, doubtful). ``line`` 0: it has no place in a file."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class Scalar(msgspec.Struct):
    """``tag`` is YAML's reading of ``text``: str, bool, int, float, null, timestamp.

    ``substituted``: a variable's value is part of the text, which is then never shown. ``missing``: one of
    its variables is not set, which has been said.
    """

    place: Place
    text: str
    tag: str
    substituted: bool = False
    missing: bool = False


class Items(msgspec.Struct):
    place: Place
    items: list[Node]


class Entries(msgspec.Struct):
    place: Place
    values: dict[str, Node]
    keys: dict[str, Place]  # where each key stands


Node: TypeAlias = Scalar | Items | Entries


class Faults:
    """Collects what is wrong with one file, in the order it is found."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Fault] = []
        self.paths: set[Path] = set()

    def add(self, place: Place | None, path: Path, message: str, *, file: str | None = None) -> None:
        """Note a fault; ``place`` None, or another ``file`` than the one read: a fault without a place."""
        line, column = (place.line, place.column) if place and file is None else (0, 0)
        self.paths.add(path)
        self.found.append(Fault(file or self.file, line, column, dotted(path), message))


def dotted(path: Path) -> str:
    """``("channels", 1, "idle_s")`` → ``channels[1].idle_s``."""
    words = ""
    for step in path:
        if isinstance(step, int):
            words += f"[{step}]"
        elif re.fullmatch(r"\w[\w-]*", step):
            words += f".{step}" if words else step
        else:
            words += f'["{printable(step)}"]'
    return words


def printable(text: str) -> str:
    """``text`` on one line and short enough for a message."""
    short = text if len(text) <= 80 else text[:79] + "…"
    return "".join(char if char.isprintable() else "?" for char in short)


def parse(data: bytes, faults: Faults) -> Node | None:
    """The tree of one file; None if it is empty or too broken to go on, with the reason in ``faults``."""
    if len(data) > MAX_FILE_BYTES:
        faults.add(None, (), f"is larger than {MAX_FILE_BYTES // 1024} KiB, too large for a configuration")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].split(b"\n")
        faults.add(Place(len(before), len(before[-1]) + 1), (), "must be UTF-8 text")
        return None
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_Loader)
        return None if root is None else _Tree(faults).node(root, ())
    except _TooDeep as error:
        faults.add(_place(error.mark), (), f"is nested more than {MAX_DEPTH} deep")
    except _TooMany:
        faults.add(Place(1, 1), (), f"holds more than {MAX_NODES} values, aliases counted as often as used")
    except yaml.MarkedYAMLError as error:
        faults.add(_place(error.problem_mark), (), _in_words(error, text))
    except yaml.reader.ReaderError as error:
        before_it = text[: int(error.position)].split("\n")
        place = Place(len(before_it), len(before_it[-1]) + 1)
        faults.add(place, (), "holds a control character, which YAML does not allow")
    except (ValueError, OverflowError):  # PyYAML on an escape such as "\UFFFFFFFF"
        faults.add(Place(1, 1), (), "is not valid YAML")
    return None


class _TooMany(Exception):
    pass


class _TooDeep(Exception):
    def __init__(self, mark: yaml.Mark) -> None:
        super().__init__()
        self.mark = mark


class _Loader(yaml.SafeLoader):
    """SafeLoader with a bound on depth: it composes by recursion."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeep(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _place(mark: Any) -> Place:
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = error.problem or ""
    line = "" if error.problem_mark is None else text.split("\n")[: error.problem_mark.line + 1][-1]
    if "undefined alias" in problem:
        return "an alias names an anchor that stands nowhere before it; text that begins with * wants quotes"
    if "duplicate anchor" in problem:
        return "an anchor stands twice"
    if "expected a single document" in (error.context or ""):
        return "holds a second document (after ---); one is enough"
    if "${" in line:
        return 'is not valid YAML here; within { } and [ ] a variable wants quotes: "${NAME}"'
    if "'\\t'" in problem:
        return "a tab stands where YAML wants blanks"
    if "mapping values are not allowed" in problem:
        return "a second ':' on this line, or a wrong indent; text that holds ': ' wants quotes"
    if "could not find expected ':'" in problem:
        return "a key without its ':', or a wrong indent"
    if "block end" in problem or "block mapping" in (error.context or ""):
        return "a wrong indent, or quotes or a bracket that were not closed before"
    return "is not valid YAML here: quotes, a bracket or an indent is wrong"


class _Tree:
    """Makes our nodes of PyYAML's; holds the state of one walk."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._count = 0
        self._within: set[int] = set()

    def node(self, node: yaml.Node, path: Path) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise _TooMany
        place = _place(node.start_mark)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if tag not in ("str", "bool", "int", "float", "null", "timestamp", "seq", "map", "merge", "value"):
            self._faults.add(
                place, path, "YAML tags (!…) are not used here; text that begins with ! wants quotes"
            )
            return Scalar(place, "", "null", missing=True)
        if isinstance(node, yaml.ScalarNode):
            return Scalar(place, node.value, "str" if tag in ("merge", "value") else tag)
        if id(node) in self._within or len(path) > MAX_DEPTH:
            self._faults.add(place, path, "an alias stands within the very value that it names")
            return Scalar(place, "", "null", missing=True)
        self._within.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return Items(place, [self.node(item, (*path, at)) for at, item in enumerate(node.value)])
            assert isinstance(node, yaml.MappingNode)
            entries = Entries(place, {}, {})
            self._fill(entries, node, path)
            return entries
        finally:
            self._within.discard(id(node))

    def _fill(self, entries: Entries, node: yaml.MappingNode, path: Path) -> None:
        merged: list[yaml.Node] = []
        for key, value in node.value:
            place = _place(key.start_mark)
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif not isinstance(key, yaml.ScalarNode) or key.tag.endswith((":null", ":bool")):
                self._faults.add(
                    place, path, "a key must be text; put yes, no, on, off, true, false and null in quotes"
                )
            elif key.value in entries.keys:
                first = entries.keys[key.value].line
                self._faults.add(place, (*path, key.value), f"stands twice; the first is in line {first}")
            else:
                entries.keys[key.value] = place
                entries.values[key.value] = self.node(value, (*path, key.value))
        for source in merged:
            from_it = self.node(source, path)
            if isinstance(from_it, Entries):
                for name, one in from_it.values.items():
                    if name not in entries.values:  # what stands here wins, then the source named first
                        entries.values[name] = one
                        entries.keys[name] = from_it.keys[name]
            elif not (isinstance(from_it, Scalar) and from_it.missing):
                self._faults.add(from_it.place, path, "<< takes a map, or a list of maps")
