"""A user's settings, with simulators in place of the vendors. No I/O."""

from __future__ import annotations

import msgspec

from server.azure_settings import Azure
from server.doctor.faults import SECRET
from server.settings import AUTO, Access, Channel, Logging, Routing, Settings, Timeouts, TimeoutsPatch, Tls
from server.simulators.spark_signature import SparkKey
from server.surfaces import chat_models

SHORTEST = Timeouts(connect_s=0.4, first_token_s=0.5, idle_s=0.5, total_s=2)
"""What longer time-outs are brought down to. One that is switched off stays off."""

MOST_BACKOFF_S = 0.01

LISTED = "listed"
"""Stands for the models of a channel that serves what its upstream lists."""

LEAST_OPEN_S = 10.0
"""A breaker that opens stays so for longer than any case takes."""

SPARK_KEY = SparkKey("doctor", f"{SECRET}-key", f"{SECRET}-secret", f"{SECRET}-password")


def targets(settings: Settings) -> list[tuple[str, list[Channel]]]:
    """The models to ask, each with its channels, first choice first: one model for each set of channels.

    Left out: channels that take no calls, and embedded models, which have no upstream.
    """
    by_model: dict[str, list[Channel]] = {}
    for channel in settings.channels:
        if channel.enabled and channel.weight > 0 and channel.kind != "local":
            for model in (LISTED,) if channel.models == AUTO else chat_models(channel):
                by_model.setdefault(model, []).append(channel)
    found: dict[tuple[str, ...], tuple[str, list[Channel]]] = {}
    for model, channels in by_model.items():
        channels.sort(key=lambda channel: -channel.priority)
        found.setdefault(tuple(channel.name for channel in channels), (model, channels))
    return list(found.values())


def aimed(settings: Settings, channels: list[Channel], urls: list[str], authority: str) -> Settings:
    """``settings`` with these channels alone, each at its URL, the first of them asked first.

    No secret of the user is kept: keys, headers, proxies and certificates give way to the simulators'.
    ``authority`` is the file with the certificate that signed theirs.
    """
    highest = max(channel.priority for channel in channels) + 1
    placed = [
        _placed(channel, url, highest if place == 0 else channel.priority, authority)
        for place, (channel, url) in enumerate(zip(channels, urls, strict=True))
    ]
    routing = settings.routing
    return Settings(
        server=msgspec.structs.replace(settings.server, host="127.0.0.1", port=0, drain_notice_s=0),
        channels=tuple(placed),
        routing=msgspec.structs.replace(routing, backoff_s=min(routing.backoff_s, MOST_BACKOFF_S)),
        access=Access(),
        logging=Logging(access=False),
    )


def attempts(routing: Routing, model: str) -> int:
    """How many upstream calls one request may cost; a hedge asks beside each of them."""
    own = routing.of(model)
    return own.attempts * (2 if own.hedge_after_s else 1)


def lanes(channels: list[Channel]) -> int:
    """With how many keys, of one channel or of several, a request can be tried."""
    return sum(len(channel.secrets()) for channel in channels)


def clocks(channels: list[Channel]) -> Timeouts:
    """The longest that any of the channels waits, as they are aimed; 0 where one waits for ever."""
    each = [msgspec.structs.asdict(_shortened(channel)) for channel in channels]
    return Timeouts(
        **{
            name: 0 if any(not one[name] for one in each) else max(one[name] for one in each)
            for name in each[0]
        }
    )


def _placed(channel: Channel, url: str, priority: int, authority: str) -> Channel:
    plain = Channel(name=channel.name, kind=channel.kind)
    spark = channel.kind == "spark"
    keys = tuple(f"{SECRET}-{number}" for number in range(len(channel.api_keys)))
    return msgspec.structs.replace(
        channel,
        base_url=url,
        models=(LISTED,) if channel.models == AUTO else channel.models,
        priority=priority,
        api_key=SPARK_KEY.key if spark else (None if keys else f"{SECRET}-0"),
        api_keys=keys,
        app_id=SPARK_KEY.app_id if spark else None,
        api_secret=SPARK_KEY.secret if spark else None,
        azure=Azure(api_version=channel.azure.api_version, auth=channel.azure.auth),
        headers=plain.headers,
        proxy=None,
        tls=Tls(verify=channel.tls.verify, ca_file=authority),
        test_every_s=0,
        timeouts=_shortened(channel),
        breaker=msgspec.structs.replace(
            channel.breaker,
            open_s=max(channel.breaker.open_s, LEAST_OPEN_S),
            max_open_s=max(channel.breaker.max_open_s, LEAST_OPEN_S),
        ),
    )


def _shortened(channel: Channel) -> TimeoutsPatch:
    timeouts, shortest = channel.timeouts.over(Timeouts()), msgspec.structs.asdict(SHORTEST)
    return TimeoutsPatch(
        **{name: min(value, shortest[name]) for name, value in msgspec.structs.asdict(timeouts).items()}
    )
