"""A user's settings, with simulators in place of the vendors. No I/O."""

from __future__ import annotations

import msgspec

from server.settings import Access, Channel, Logging, Routing, Settings, Timeouts, TimeoutsPatch
from server.simulators.spark_signature import SparkKey
from server.surfaces import chat_models

SHORTEST = Timeouts(connect_s=0.5, first_token_s=0.5, idle_s=0.5, total_s=3)
"""What longer time-outs are brought down to. One that is switched off stays off."""

_SPARK_KEY = SparkKey()


def targets(settings: Settings) -> list[tuple[str, list[Channel]]]:
    """The models to ask, each with its channels, first choice first: one model for each set of channels.

    Left out: channels that take no calls, and embedded models, which have no upstream.
    """
    by_model: dict[str, list[Channel]] = {}
    for channel in settings.channels:
        if channel.enabled and channel.weight > 0 and channel.kind != "local":
            for model in chat_models(channel):
                by_model.setdefault(model, []).append(channel)
    found: dict[tuple[str, ...], tuple[str, list[Channel]]] = {}
    for model, channels in by_model.items():
        channels.sort(key=lambda channel: -channel.priority)
        found.setdefault(tuple(channel.name for channel in channels), (model, channels))
    return list(found.values())


def aimed(settings: Settings, channels: list[Channel], urls: list[str]) -> Settings:
    """``settings`` with these channels alone, each at its URL, the first of them asked first.

    No secret of the user is kept: keys, headers, proxies and certificates give way to the simulators'.
    """
    highest = max(channel.priority for channel in channels) + 1
    placed = [
        _placed(channel, url, highest if place == 0 else channel.priority)
        for place, (channel, url) in enumerate(zip(channels, urls, strict=True))
    ]
    routing = settings.routing
    return Settings(
        channels=tuple(placed),
        routing=msgspec.structs.replace(routing, backoff_s=min(routing.backoff_s, 0.01)),
        access=Access(),
        logging=Logging(access=False),
    )


def attempts(routing: Routing, model: str) -> int:
    """How many upstream calls one request may cost."""
    return routing.of(model).attempts


def _placed(channel: Channel, url: str, priority: int) -> Channel:
    plain = Channel(name=channel.name, kind=channel.kind)
    spark = channel.kind == "spark"
    return msgspec.structs.replace(
        channel,
        base_url=url,
        priority=priority,
        api_key=_SPARK_KEY.key if spark else "doctor",
        api_keys=(),
        app_id=_SPARK_KEY.app_id if spark else None,
        api_secret=_SPARK_KEY.secret if spark else None,
        headers=plain.headers,
        proxy=None,
        tls=plain.tls,
        timeouts=_shortened(channel.timeouts.over(Timeouts())),
    )


def _shortened(timeouts: Timeouts) -> TimeoutsPatch:
    shortest = msgspec.structs.asdict(SHORTEST)
    return TimeoutsPatch(
        **{name: min(value, shortest[name]) for name, value in msgspec.structs.asdict(timeouts).items()}
    )
