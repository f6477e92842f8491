"""What a configuration lets happen by its own words: no fault, but worth knowing. No I/O."""

from __future__ import annotations

import msgspec

from server.doctor.aiming import targets
from server.settings import Channel, Settings, Timeouts


def left_out(settings: Settings) -> str:
    """Which channels no fault is done to, and why; "" if there is none."""
    reasons = {
        "embedded, with no upstream of its own": [one for one in settings.channels if _embedded(one)],
        "disabled": [one for one in settings.channels if not one.enabled],
        "of weight 0": [one for one in settings.channels if one.enabled and not one.weight],
    }
    return "; ".join(
        f"{', '.join(one.name for one in channels)} ({why})" for why, channels in reasons.items() if channels
    )


def remarks(settings: Settings) -> list[str]:
    """One sentence each, in the order of the channels."""
    said = [f"not examined: {why}." for why in (left_out(settings),) if why]
    for model, channels in targets(settings):
        if len(channels) == 1:
            said.append(f"{model} has one channel, {channels[0].name}: nobody can answer in its place.")
        elif settings.routing.of(model).attempts == 1:
            said.append(
                f"{model} has {len(channels)} channels, and routing.attempts 1 never asks a second one."
            )
    for channel in settings.channels:
        if not channel.enabled or channel.kind == "local":
            continue
        timeouts = msgspec.structs.asdict(channel.timeouts.over(Timeouts()))
        said += [f"{channel.name}: {name} is switched off." for name, value in timeouts.items() if not value]
        if not channel.breaker.failures and not channel.breaker.rate:
            said.append(f"{channel.name}: its breaker never opens, so it is asked while it is dead.")
        if not channel.tls.verify:
            said.append(f"{channel.name}: certificates are not checked (tls.verify).")
    return said


def _embedded(channel: Channel) -> bool:
    return channel.kind == "local" and channel.enabled and channel.weight > 0
