"""What the types cannot say about names and combinations: who is called what, who asks whom, how many."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from server.config_checks import Findings, check_name, check_unique
from server.config_costs import check_costs
from server.config_routing import OUR_PARAMS
from server.config_strategies import NO_QUORUM, ONE_MODEL, check_id, check_keys, check_strategy
from server.config_strategies import references as strategy_references
from server.config_types import nearest
from server.config_yaml import Entries, Items, Node, Path, Scalar, dotted, printable
from server.settings import AUTO, Channel, ChannelModel, Combination, Member, Settings, Summary
from server.surfaces import offers

MAX_DEPTH = 2
BEST_DRAFT = "best_draft"
_PLACES = ("drafts", "question", "language", "count")


class Names:
    """Every public name, and what it leads to."""

    def __init__(self, settings: Settings) -> None:
        self.models: dict[str, list[tuple[Channel, ChannelModel]]] = {}
        for channel in settings.channels:
            for name, model in channel.served().items():
                self.models.setdefault(name, []).append((channel, model))
        # Further models are known only when the upstreams of these channels have listed them.
        self.unlisted = [one.name for one in settings.channels if one.enabled and one.models == AUTO]
        self.combinations = {one.name: one for one in settings.combinations}
        self.aliases = dict(settings.aliases)
        for one in settings.combinations:
            self.aliases |= dict.fromkeys(one.aliases, one.name)

    def all(self) -> list[str]:
        return list(dict.fromkeys([*self.combinations, *self.models, *self.aliases]))

    def resolve(self, name: str) -> str:
        """The name that ``name`` stands for in the end; itself if no alias, or a loop of them."""
        seen = set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            name = self.aliases[name]
        return name

    def vision(self, name: str) -> bool | None:
        """Does the model see? None: a combination, or not said."""
        said = {model.vision for _, model in self.models.get(self.resolve(name), [])}
        return said.pop() if len(said) == 1 else None


def check_names(found: Findings) -> None:
    """Names are one each, and what refers to a name finds it."""
    settings = found.settings
    names = Names(settings)
    combinations = [((*found.path(one), "name"), one.name) for one in settings.combinations]
    aliases: list[tuple[Path, str]] = [(("aliases", alias), alias) for alias in settings.aliases]
    for one in settings.combinations:
        aliases += [((*found.path(one), "aliases", at), alias) for at, alias in enumerate(one.aliases)]
    check_unique(found, combinations, "this combination's name")
    check_unique(found, aliases, "this alias")
    for path, name in [*combinations, *aliases]:
        what = "combination" if (path, name) in combinations else "alias"
        check_name(found, path, name, f"{'an' if what == 'alias' else 'a'} {what}'s name")
        if name in names.models:
            found.wrong(path, f"a model has this name already; give the {what} another")
        elif what == "alias" and name in names.combinations:
            found.wrong(path, "a combination has this name already; give the alias another")
    for alias, target in settings.aliases.items():
        if names.resolve(alias) in names.aliases:
            found.wrong(("aliases", alias), "this alias leads back to itself, so it names nothing")
        else:
            _check_reference(found, ("aliases", alias), target, names)
    for key in settings.access.keys:
        for at, model in enumerate(key.models):
            _check_reference(found, (*found.path(key), "models", at), model, names)
    _check_default(found, names)
    for one in settings.combinations:
        _check_combination(found, one, names)
    _check_nesting(found, names)


def _slipped(found: Findings, name: str) -> bool:
    """May ``name`` be unknown only because of a fault that has been told already?"""
    for path in found.unread - found.unknown:
        match path:
            case ("channels" | "combinations" | "aliases",) | ("channels" | "combinations", int()):
                return True
            case ("combinations", int(), "name" | "aliases") | ("channels", int(), "models"):
                return True
            case ("channels", int(), "models", int()) | ("combinations", int(), "aliases", int()):
                return True
    return any(_may_hide_names(found, path) for path in found.unknown) or name in _written_names(found)


def _may_hide_names(found: Findings, path: Path) -> bool:
    """May the unknown key at ``path`` be a misspelling of one that gives names?"""
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    match path:
        case (str(key),):
            needed, optional = ("channels",), ("combinations", "aliases")
        case ("channels", int(), str(key)):
            needed, optional = ("models",), ()
        case ("combinations", int(), str(key)):
            needed, optional = ("name",), ("aliases",)
        case _:
            return False
    above = path[:-1]
    if any(not found.given((*above, name)) for name in needed):
        return True
    return any(not found.given((*above, name)) and nearest(key, [name]) for name in optional)


def _written_names(found: Findings) -> set[str]:
    """Names that the file gives in places that could not be read otherwise."""
    names: set[str] = set()
    root = found.root
    if not isinstance(root, Entries):
        return names
    for section, keys in (("channels", ("models",)), ("combinations", ("name", "aliases"))):
        items = root.values.get(section)
        for one in items.items if isinstance(items, Items) else ():
            if isinstance(one, Entries):
                for key in keys:
                    names.update(_texts(one.values.get(key)))
    return names.union(_texts(root.values.get("aliases")))


def _texts(node: Node | None) -> Iterator[str]:
    """A text, the texts of a list, or the keys of a map."""
    match node:
        case Scalar():
            yield node.text
        case Items():
            yield from (item.text for item in node.items if isinstance(item, Scalar))
        case Entries():
            yield from node.values


def _check_reference(found: Findings, path: Path, name: str, names: Names) -> None:
    real = names.resolve(name)
    if real in names.combinations:
        return
    served = names.models.get(real)
    if served is None:
        if names.unlisted:
            found.doubt(path, f"is a model only if {' or '.join(names.unlisted)} lists it")
        elif not _slipped(found, real):
            found.wrong(
                path, f"no model or combination is called {printable(name)}{nearest(name, names.all())}"
            )
    elif path[0] == "combinations" and not any(offers(*one, "chat") for one in served):
        found.wrong(path, f"takes no chats, by the surfaces of its channel ({served[0][0].name})")
    elif not any(channel.enabled for channel, _ in served):
        found.doubt(path, f"only a disabled channel serves it ({served[0][0].name}): calls will fail")


def _check_default(found: Findings, names: Names) -> None:
    default = found.settings.default_combination
    if (
        default is not None
        and names.resolve(default) not in names.combinations
        and (names.resolve(default) in names.models or not _slipped(found, default))
    ):
        hint = nearest(default, list(names.combinations))
        hint = hint or (
            f"; there is {', '.join(names.combinations)}" if names.combinations else "; there is none"
        )
        found.wrong(("default_combination",), f"no combination has this name{hint}")
    if found.settings.unknown_model == "default" and default is None:
        found.wrong(("unknown_model",), "default wants default_combination to be set")


def _check_combination(found: Findings, one: Combination, names: Names) -> None:
    path = found.path(one)
    check_keys(found, one)
    check_costs(found, one, names.models)
    if one.strategy in ONE_MODEL:
        _check_direct(found, one, names)
        return
    if not one.members and not found.excused(path, "members"):
        found.wrong((*path, "members"), f"is missing: strategy {one.strategy} wants at least one member")
    check_strategy(found, one)
    for steps, name in strategy_references(one):
        _check_reference(found, (*path, *steps), name, names)
    for key, members in (("members", one.members), ("vision_members", one.vision_members)):
        _check_members(found, (*path, key), one, members, names)
    for key, summary in (("summary", one.summary), ("vision_summary", one.vision_summary)):
        if summary is not None:
            _check_summary(found, (*path, key), summary, names)
    _check_numbers(found, one)
    _check_eyes(found, one, names)
    _check_writer(found, one)


def _check_direct(found: Findings, one: Combination, names: Names) -> None:
    path = found.path(one)
    if one.model is None:
        if not found.excused(path, "model"):
            found.wrong((*path, "model"), f"is missing: strategy {one.strategy} wants the model that answers")
    else:
        _check_reference(found, (*path, "model"), one.model, names)
    if one.vision_model is not None:
        _check_reference(found, (*path, "vision_model"), one.vision_model, names)
        if names.vision(one.vision_model) is False:
            found.doubt((*path, "vision_model"), "its channel says that it sees no images (vision: false)")


def _check_members(
    found: Findings, path: Path, one: Combination, members: tuple[Member, ...], names: Names
) -> None:
    calls: list[tuple[Path, str]] = []
    for at, member in enumerate(members):
        here = found.path(member)
        name = member.id if member.id is not None else f"m{at + 1}"
        if member.id is not None:
            check_name(found, (*here, "id"), name, "a member's id")
            check_id(found, (*here, "id"), name)
        copies = (
            [name] if member.samples == 1 else [f"{name}.{k + 1}" for k in range(min(member.samples, 100))]
        )
        calls += [((*here, "id"), call) for call in copies]
        _check_reference(found, (*here, "model"), member.model, names)
        _check_params(found, (*here, "params"), member.params)
        if member.samples > 1 and not (member.temperature or member.params.get("temperature")):
            found.doubt((*here, "samples"), "samples of one model are alike without a temperature above 0")
        if path[-1] == "vision_members" and names.vision(member.model) is False:
            found.doubt((*here, "model"), "its channel says that it sees no images (vision: false)")
    check_unique(found, calls, "this member's id")
    total = sum(member.samples for member in members)
    if total > one.max_members:
        found.wrong(path, f"makes {total} calls, samples counted; max_members allows {one.max_members}")


def _check_params(found: Findings, path: Path, params: Mapping[str, object]) -> None:
    for name in params:
        if name in OUR_PARAMS:
            found.wrong((*path, name), "is written by the server itself")


def _check_summary(found: Findings, path: Path, summary: Summary, names: Names) -> None:
    _check_reference(found, (*path, "model"), summary.model, names)
    _check_params(found, (*path, "params"), summary.params)
    for at, fallback in enumerate(summary.fallback):
        if fallback == BEST_DRAFT:
            if at != len(summary.fallback) - 1:
                found.doubt(
                    (*path, "fallback", at), f"{BEST_DRAFT} never fails: what stands behind it is not used"
                )
        else:
            _check_reference(found, (*path, "fallback", at), fallback, names)
    for word in re.findall(r"\{([a-z_]{3,20})\}", summary.prompt or ""):
        if word not in _PLACES and (near := nearest(word, list(_PLACES))):
            found.doubt((*path, "prompt"), f"{{{word}}} is not a place that is filled in{near}")


def _check_numbers(found: Findings, one: Combination) -> None:
    """``min_success`` ≤ ``quorum`` ≤ the number of calls."""
    path = found.path(one)
    calls = sum(member.samples for member in one.members)
    if not calls or found.broken((*path, "members")):
        return
    quorum = one.quorum if one.quorum is not None else -(-2 * calls // 3)
    if one.quorum is not None and one.quorum > calls:
        found.wrong((*path, "quorum"), f"is above the number of calls, {calls}: it could never be reached")
    elif one.min_success > quorum:
        known = "" if one.quorum is not None else " (two thirds of the calls, as it is not set)"
        found.wrong((*path, "min_success"), f"must not be above quorum, {quorum}{known}")
    elif calls == 2 and quorum == 2 and one.strategy not in NO_QUORUM:
        found.doubt(
            (*path, "members") if one.quorum is None else (*path, "quorum"),
            "two calls and a quorum of 2: one silent member delays every answer by its first_token_s; "
            "set quorum: 1, or add a member",
        )
    seeing = sum(member.samples for member in one.vision_members)
    if seeing and one.quorum is not None and seeing < one.quorum <= calls:
        found.doubt((*path, "quorum"), f"is above the number of calls for images, {seeing}")


def _check_eyes(found: Findings, one: Combination, names: Names) -> None:
    path = found.path(one)
    blind = bool(one.members) and all(names.vision(member.model) is False for member in one.members)
    # Who has said of every member that it is blind knows.
    if one.members and not one.vision_members and not blind:
        found.doubt(
            path, "no members for images (vision_members): a request whose last turn has one is refused"
        )
    if one.vision_summary is not None and not one.vision_members:
        found.doubt((*path, "vision_summary"), "is not used without vision_members")


def _check_writer(found: Findings, one: Combination) -> None:
    """The writer of the answer matters most: a weak one costs more than weak members."""
    if one.summary is None or one.strategy != "synthesize":
        return
    weights = [member.weight for member in one.members if member.model == one.summary.model]
    best = max((member.weight for member in one.members), default=0)
    if weights and max(weights) < best:
        found.doubt(
            (*found.path(one), "summary", "model"),
            "by the members' weights this is not the strongest model, but it writes the answer",
        )


def references(one: Combination) -> Iterator[tuple[Path, str]]:
    """Where (below the combination) it names which model or combination."""
    for key, name in (("model", one.model), ("vision_model", one.vision_model)):
        if name is not None:
            yield (key,), name
    for key, members in (("members", one.members), ("vision_members", one.vision_members)):
        for at, member in enumerate(members):
            yield (key, at, "model"), member.model
    for key, summary in (("summary", one.summary), ("vision_summary", one.vision_summary)):
        if summary is not None:
            yield (key, "model"), summary.model
            for at, name in enumerate(summary.fallback):
                if name != BEST_DRAFT:
                    yield (key, "fallback", at), name
    yield from strategy_references(one)


class _Nesting(msgspec.Struct):
    """One walk from combination to combination."""

    found: Findings
    names: Names
    told: set[frozenset[str]]

    def check(self, one: Combination, way: tuple[str, ...]) -> None:
        """``way`` holds the names from the outermost combination to ``one``, included."""
        for steps, name in references(one):
            real = self.names.resolve(name)
            inner = self.names.combinations.get(real)
            if inner is None:
                continue
            path = (*self.found.path(one), *steps)
            if real in way:
                loop = (*way[way.index(real) :], real)
                self._tell(path, loop, f"this combination asks itself: {_way(loop)}")
            elif len(way) >= MAX_DEPTH:
                deep = (*way, real)
                self._tell(path, deep, f"combinations may nest {MAX_DEPTH} deep: {_way(deep)}")
            else:
                self.check(inner, (*way, real))

    def _tell(self, path: Path, way: tuple[str, ...], message: str) -> None:
        key = frozenset((*way, dotted(path)))
        if key not in self.told:
            self.told.add(key)
            self.found.wrong(path, message)


def _way(names: tuple[str, ...]) -> str:
    return " → ".join(printable(name) for name in names)


def _check_nesting(found: Findings, names: Names) -> None:
    walk = _Nesting(found, names, set())
    for one in found.settings.combinations:
        walk.check(one, (one.name,))
