"""What the types cannot say about routing: several keys, breakers, rules for parameters, weights."""

from __future__ import annotations

import msgspec

from server.chat import ChatFields
from server.config_checks import Findings, check_secret
from server.config_types import nearest
from server.config_yaml import Path, printable
from server.settings import AUTO, Channel, Range

# The server writes these itself into each upstream request.
OUR_PARAMS = ("model", "messages", "stream", "stream_options", "antiphon", "n")


def check_routing(found: Findings, *, others_can_read: bool) -> None:
    """``routing``, and what channels say about it."""
    for channel in found.settings.channels:
        path = found.path(channel)
        _check_keys(found, path, channel, others_can_read)
        _check_params(found, (*path, "params"), channel)
        slots = channel.max_concurrency or channel.kind == "local"
        if slots and channel.single_share == 1 and found.settings.combinations:
            found.doubt((*path, "single_share"), "is 1: no call of a combination is ever let in here")
        if channel.breaker.max_open_s < channel.breaker.open_s:
            found.wrong((*path, "breaker", "max_open_s"), "must not be below open_s")
    _check_weights(found)
    routing = found.settings.routing
    if routing.max_backoff_s < routing.backoff_s:
        found.wrong(("routing", "max_backoff_s"), "must not be below backoff_s")
    served = {name for channel in found.settings.channels for name in channel.served()}
    auto = any(channel.models == AUTO for channel in found.settings.channels)
    for name in routing.models:
        if name not in served and not auto and not found.broken(("channels",)):
            message = f"no channel serves a model {printable(name)}{nearest(name, sorted(served))}"
            found.wrong(("routing", "models", name), message)


def _check_keys(found: Findings, path: Path, channel: Channel, others_can_read: bool) -> None:
    if not channel.api_keys:
        return
    here = (*path, "api_keys")
    if channel.kind not in ("openai", "azure", "anthropic", "gemini", "ollama"):
        found.wrong(here, "has no use here: it is for kinds openai, azure, anthropic, gemini and ollama")
    elif channel.api_key is not None:
        found.wrong(here, "goes without api_key; put all keys into the list")
    elif channel.auth == "none":
        found.doubt(here, "are not sent, since auth is none")
    seen: set[str] = set()
    for at, key in enumerate(channel.api_keys):
        check_secret(found, (*here, at), key, others_can_read)
        if key in seen:
            found.wrong((*here, at), "this key stands twice")
        seen.add(key)


def _check_params(found: Findings, path: Path, channel: Channel) -> None:
    rules = channel.params
    places: list[tuple[Path, str]] = [((*path, "drop", at), name) for at, name in enumerate(rules.drop)]
    for section, names in (("clamp", rules.clamp), ("default", rules.default), ("set", rules.set)):
        places += [((*path, section, name), name) for name in names]
    for place, name in places:
        if name in OUR_PARAMS:
            found.wrong(place, "is written by the server itself")
    for name in rules.set:
        for section, others in (("drop", rules.drop), ("clamp", rules.clamp), ("default", rules.default)):
            if name in others:
                found.wrong((*path, "set", name), f"stands in {section} too, which it would overrule")
    for section, values in (("default", rules.default), ("set", rules.set)):
        for name, value in values.items():
            _check_type(found, (*path, section, name), name, value)
    for name in rules.default:
        if name in rules.drop:
            found.wrong((*path, "default", name), "stands in drop too; to send always the same, use set")
    for name, bounds in rules.clamp.items():
        _check_range(found, (*path, "clamp", name), bounds)


def _check_range(found: Findings, path: Path, bounds: Range) -> None:
    if bounds.min is None and bounds.max is None:
        if not found.broken(path):
            found.wrong(path, "wants min, max or both")
    elif bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
        found.wrong(path, "min must not be above max")
    for side, bound in (("min", bounds.min), ("max", bounds.max)):
        if bound is not None:
            whole = int(bound) if bound == int(bound) else bound
            _check_type(found, (*path, side), str(path[-1]), whole)


def _check_type(found: Findings, path: Path, name: str, value: object) -> None:
    """A field that the server knows by type must be of it, or no request would pass."""
    try:
        msgspec.json.decode(msgspec.json.encode({name: value}), type=ChatFields)
    except msgspec.ValidationError as error:
        found.wrong(path, f"is not what {printable(name)} is in a request: {str(error).split(' - ')[0]}")


def _check_weights(found: Findings) -> None:
    """Weight 0 takes no calls: what is left without a channel that takes any is told once for each place."""
    enabled = [channel for channel in found.settings.channels if channel.enabled]
    shares: dict[str, list[Channel]] = {}
    for channel in enabled:
        for name in channel.served():
            shares.setdefault(name, []).append(channel)
    if enabled and not any(channel.weight for channel in enabled):
        shares.setdefault("any model", enabled)  # what is listed later has nobody either
    told: set[Path] = set()
    for name, channels in shares.items():
        for priority in sorted({channel.priority for channel in channels}, reverse=True):
            group = [channel for channel in channels if channel.priority == priority]
            path = (*found.path(group[0]), "weight")
            if any(channel.weight for channel in group) or path in told:
                continue
            told.add(path)
            if any(channel.weight for channel in channels):
                whose = f"every channel of {printable(name)} with priority {priority}"
                found.doubt(path, f"{whose} has weight 0: those of the next priority take their calls")
            else:
                message = f"every channel of {printable(name)} has weight 0, so none takes its calls: "
                found.wrong(path, message + "give one a weight above 0, or switch it off by enabled: false")
                break
