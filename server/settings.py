"""The settings, as frozen data: what ``config.py`` makes of a YAML file and the environment.

Units stand in the names (``_s`` seconds, ``_bytes``). A field's default is the documented default. Whoever
holds a ``Settings`` holds a snapshot: a reload makes a new one and leaves runs in flight the one they have.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings: immutable; a key that is not a field is refused."""


class Timeouts(_Frozen, frozen=True):
    """The four clocks of one upstream call, in seconds; 0 switches one off."""

    connect_s: float = 5
    first_token_s: float = 60
    idle_s: float = 60
    total_s: float = 600


class TimeoutsPatch(_Frozen, frozen=True):
    """Some of the four clocks; None keeps the value of the level above."""

    connect_s: float | None = None
    first_token_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None

    def over(self, base: Timeouts) -> Timeouts:
        """``base`` with what is set here put over it."""
        mine = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(base, **mine) if mine else base


class Server(_Frozen, frozen=True):
    """The listening side."""

    host: str = "127.0.0.1"
    port: int = 18888
    # Names under which an open (keyless) server may be addressed, besides loopback ones.
    allowed_hosts: tuple[str, ...] = ()
    header_timeout_s: float = 10
    keepalive_s: float = 75
    body_bytes: int = 32 * 1024 * 1024
    body_idle_s: float = 15
    body_total_s: float = 60
    # The 200 of a stream leaves after this time even when no model has said anything yet.
    commit_after_s: float = 10
    heartbeat_s: float = 10
    write_timeout_s: float = 60
    drain_s: float = 30
    metrics_open: bool = False


class AccessKey(_Frozen, frozen=True):
    """One key that a client may send. ``key`` is a secret; only its SHA-256 is kept once the server runs."""

    name: str
    key: str
    models: tuple[str, ...] = ()  # empty: all
    admin: bool = False
    disabled: bool = False
    expires: str | None = None  # RFC 3339
    addresses: tuple[str, ...] = ()  # CIDR; empty: all

    def __repr__(self) -> str:
        return f"AccessKey(name={self.name!r})"


class Access(_Frozen, frozen=True):
    """Who may come in. No keys: open, on loopback only."""

    keys: tuple[AccessKey, ...] = ()
    trusted_proxies: tuple[str, ...] = ()


class Cors(_Frozen, frozen=True):
    """Origins that browsers may call from; empty: any with keys, only loopback ones without."""

    origins: tuple[str, ...] = ()


class Tls(_Frozen, frozen=True):
    """TLS towards an upstream. Certificates are verified unless ``verify`` is false."""

    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class ChannelModel(_Frozen, frozen=True):
    """A model as a channel serves it. ``model`` is its name there; None: the same as the public name."""

    model: str | None = None
    vision: bool | None = None  # None: unknown, images go through
    tools: bool | None = None
    context_length: int | None = None


class Channel(_Frozen, frozen=True):
    """A configured upstream."""

    name: str
    kind: Literal["openai", "local"]
    models: tuple[str, ...] | dict[str, ChannelModel] = ()
    base_url: str | None = None
    api_key: str | None = None
    auth: Literal["bearer", "api-key", "x-api-key", "none"] = "bearer"
    headers: dict[str, str] = {}
    stream_usage: Literal["ask", "given", "refused"] = "ask"
    enabled: bool = True
    priority: int = 0  # higher is asked first
    weight: float = 1
    timeouts: TimeoutsPatch = TimeoutsPatch()
    max_concurrency: int = 0  # 0: no limit
    max_waiting: int = 1000
    proxy: str | None = None
    tls: Tls = Tls()
    # kind local
    path: str | None = None
    threads: int | None = None
    slots: int = 2
    context: int = 4096

    def __repr__(self) -> str:
        return f"Channel(name={self.name!r}, kind={self.kind!r})"

    def served(self) -> dict[str, ChannelModel]:
        """Public name → how this channel serves it, in the order of the configuration."""
        if isinstance(self.models, dict):
            return dict(self.models)
        return {name: ChannelModel() for name in self.models}


class Member(_Frozen, frozen=True):
    """One model call within a combination; None inherits from the combination, then from the model."""

    model: str
    id: str | None = None
    weight: float = 1
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    params: dict[str, Any] = {}
    force: bool = False
    system: str | None = None
    attempts: int | None = None
    timeouts: TimeoutsPatch = TimeoutsPatch()
    draft_max_tokens: int | None = None


class Summary(_Frozen, frozen=True):
    """Who writes the answer."""

    model: str
    mode: Literal["direct"] = "direct"
    prompt: str | None = None
    history: Literal["all", "last"] | int = "all"
    draft_tokens: int | None = None
    fallback: tuple[str, ...] = ()  # models, or "best_draft"
    timeouts: TimeoutsPatch = TimeoutsPatch()
    attempts: int = 2
    temperature: float | None = None
    params: dict[str, Any] = {}


Strategy: TypeAlias = Literal["direct", "synthesize", "all"]


class Combination(_Frozen, frozen=True):
    """Many models behind one name. Keys and defaults: ``docs/config.md``."""

    name: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    strategy: Strategy = "synthesize"
    model: str | None = None
    vision_model: str | None = None
    members: tuple[Member, ...] = ()
    vision_members: tuple[Member, ...] = ()
    vision_by: Literal["last_turn", "history"] = "last_turn"
    summary: Summary | None = None
    vision_summary: Summary | None = None
    min_success: int = 1
    quorum: int | None = None  # None: two thirds of the calls, rounded up
    grace_s: float = 5
    deadline_s: float = 60
    timeouts: TimeoutsPatch = TimeoutsPatch()
    attempts: int = 2
    partial_drafts: bool = True
    partial_min_chars: int = 200
    draft_max_tokens: int | None = None
    max_members: int = 8
    order: Literal["shuffled", "configured"] = "shuffled"
    tools: Literal["agree", "summary", "refuse"] = "refuse"
    commit_after_s: float = 2
    overridable: tuple[str, ...] = ("strategy", "quorum", "grace_s", "deadline_s", "members")


MEMBER_TIMEOUTS = Timeouts(connect_s=5, first_token_s=20, idle_s=15, total_s=55)
"""The four clocks of a member call where neither the combination nor the member says otherwise."""


class Runs(_Frozen, frozen=True):
    """How long and how much of ended runs is kept in memory."""

    keep_s: float = 600
    max_events: int = 2048
    max_runs: int = 1000
    max_topic_events: int = 10_000
    keep_text: bool = False


class Events(_Frozen, frozen=True):
    """The status channel."""

    origins: tuple[str, ...] = ()
    max_connections: int = 100  # for each key
    max_subscriptions: int = 128
    outbox_events: int = 1024
    outbox_bytes: int = 1024 * 1024
    ping_s: float = 20
    idle_ping_s: float = 25
    pong_timeout_s: float = 10
    init_timeout_s: float = 10


class Logging(_Frozen, frozen=True):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    access: bool = True


class Settings(_Frozen, frozen=True):
    """The whole configuration."""

    server: Server = Server()
    access: Access = Access()
    cors: Cors = Cors()
    channels: tuple[Channel, ...] = ()
    aliases: dict[str, str] = {}
    combinations: tuple[Combination, ...] = ()
    default_combination: str | None = None
    unknown_model: Literal["refuse", "default"] = "refuse"
    runs: Runs = Runs()
    events: Events = Events()
    logging: Logging = Logging()
