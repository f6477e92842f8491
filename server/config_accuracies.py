"""``weight: measured``: a member weighs what an evaluation found its model to be worth.

The key ``accuracies`` names a file of JSON, ``{"accuracies": {"MODEL": 0.85}}``: the share of checkable
questions that each model answered right. `make eval` writes one for models of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from server.config_types import nearest
from server.config_yaml import MAX_FILE_BYTES, Entries, Faults, Items, Node, Scalar, printable
from server.config_yaml import Path as KeyPath

KEY = "accuracies"
MEASURED = "measured"
LEAST = 0.01
"""No weight is below it: who is right in half of all cases or fewer still breaks ties."""
_LISTS = ("members", "vision_members")


class _File(msgspec.Struct):
    accuracies: dict[str, Annotated[float, Meta(ge=0, le=1)]]


def weight_of(accuracy: float) -> float:
    """What a vote of one who is right so often should weigh: the log-odds, at least ``LEAST``."""
    accuracy = min(max(accuracy, 0.001), 0.999)
    return max(LEAST, math.log(accuracy / (1 - accuracy)))


def put_in_weights(root: Node, folder: Path, faults: Faults) -> Path | None:
    """Put a number in the place of each ``weight: measured``; what cannot be told goes into ``faults``.

    A relative name of the file counts from ``folder``. Returns the file that was read, if it could be.
    Blocks on the disk.
    """
    named = root.values.get(KEY) if isinstance(root, Entries) else None
    path, known = None, None
    if isinstance(named, Scalar) and named.tag == "str" and not named.missing:
        path = folder / Path(named.text).expanduser()
        known = _read(path, named, faults)
    for weight, model, place in _measured(root):
        weight.missing = True
        if named is None:
            faults.add(weight.place, place, "measured wants accuracies: a file that make eval writes")
        elif known is not None and model in known:
            weight.text, weight.tag, weight.missing = f"{weight_of(known[model]):.6g}", "float", False
        elif known is not None:
            near = nearest(model, list(known))
            what = f"the file of accuracies does not name {printable(model)}{near}"
            faults.add(weight.place, place, what if near else f"{what}; measure it, or set a number")
    return path if known is not None else None


def _read(path: Path, named: Scalar, faults: Faults) -> Mapping[str, float] | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name is not valid"
        faults.add(named.place, (KEY,), f"the file cannot be read: {reason}")
        return None
    try:
        return msgspec.json.decode(data, type=_File).accuracies
    except msgspec.DecodeError as error:
        what = f'is not what make eval writes, {{"accuracies": {{"MODEL": 0.85}}}}: {error}'
        faults.add(named.place, (KEY,), f"the file {what}")
        return None


def _measured(root: Node) -> Iterator[tuple[Scalar, str, KeyPath]]:
    """Each weight that is to be measured, with its member's model and its place."""
    combinations = root.values.get("combinations") if isinstance(root, Entries) else None
    for at, one in enumerate(combinations.items if isinstance(combinations, Items) else ()):
        for name in _LISTS:
            members = one.values.get(name) if isinstance(one, Entries) else None
            for number, member in enumerate(members.items if isinstance(members, Items) else ()):
                if not isinstance(member, Entries):
                    continue
                weight, model = member.values.get("weight"), member.values.get("model")
                if isinstance(weight, Scalar) and weight.text == MEASURED and isinstance(model, Scalar):
                    yield weight, model.text, ("combinations", at, name, number, "weight")
