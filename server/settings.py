"""The settings, as frozen data: what ``config.py`` makes of a YAML file and the environment.

Units stand in the names (``_s`` seconds, ``_bytes``). A field's default is the documented default. Whoever
holds a ``Settings`` holds a snapshot: a reload makes a new one and leaves runs in flight the one they have.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from server.anthropic_settings import Anthropic
from server.azure_settings import Azure
from server.cache_settings import Cache as Cache
from server.gemini_settings import Gemini
from server.media_settings import Images as Images
from server.media_settings import Uploads as Uploads
from server.ollama_settings import Ollama
from server.price_settings import Price
from server.routing_settings import Breaker as Breaker
from server.routing_settings import ModelRouting as ModelRouting
from server.routing_settings import Policy as Policy
from server.routing_settings import Routing as Routing
from server.spark_settings import Spark
from server.strategy_settings import (
    BestOf,
    Cascade,
    Council,
    Critique,
    Fallback,
    Judge,
    Moa,
    Race,
    StatusMode,
    Steps,
    Vote,
)
from server.surface_settings import SurfaceName
from server.watch_settings import Events as Events
from server.watch_settings import Logging as Logging
from server.watch_settings import Responses as Responses
from server.watch_settings import Runs as Runs

# What a number may be. ``config_types.py`` reads the bounds and says them in words.
Above0: TypeAlias = Annotated[float, Meta(gt=0)]
From0: TypeAlias = Annotated[float, Meta(ge=0)]
Whole0: TypeAlias = Annotated[int, Meta(ge=0)]
Whole1: TypeAlias = Annotated[int, Meta(ge=1)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
TopP: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings: immutable; a key that is not a field is refused."""


class Timeouts(_Frozen, frozen=True):
    """The four clocks of one upstream call, in seconds; 0 switches one off."""

    connect_s: From0 = 5
    first_token_s: From0 = 60
    idle_s: From0 = 60
    total_s: From0 = 600


_Clocks = TypeVar("_Clocks", Timeouts, "TimeoutsPatch")


class TimeoutsPatch(_Frozen, frozen=True):
    """Some of the four clocks; None keeps the value of the level above."""

    connect_s: From0 | None = None
    first_token_s: From0 | None = None
    idle_s: From0 | None = None
    total_s: From0 | None = None

    def over(self, base: _Clocks) -> _Clocks:
        """``base`` with what is set here put over it."""
        mine = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(base, **mine) if mine else base


class Server(_Frozen, frozen=True):
    """The listening side."""

    host: str = "127.0.0.1"
    port: Port = 18888
    # Names under which an open (keyless) server may be addressed, besides loopback ones.
    allowed_hosts: tuple[str, ...] = ()
    header_timeout_s: Above0 = 10
    keepalive_s: From0 = 75
    body_bytes: Whole1 = 32 * 1024 * 1024
    body_idle_s: Above0 = 15
    body_total_s: Above0 = 60
    # The 200 of a stream leaves after this time even when no model has said anything yet.
    commit_after_s: From0 = 10
    heartbeat_s: Above0 = 10
    write_timeout_s: Above0 = 60
    drain_notice_s: From0 = 0
    drain_s: From0 = 30
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
    background: bool = True  # may it start runs that survive their asker?
    override: bool = True  # may its requests change a combination's limits, members and strategy?
    status: StatusMode | None = None  # within its streams; None: as the combination says

    def __repr__(self) -> str:
        return f"AccessKey(name={self.name!r})"


class Access(_Frozen, frozen=True):
    """Who may come in. Without keys and ``byok``: open, on loopback only."""

    keys: tuple[AccessKey, ...] = ()
    byok: bool = False  # may a caller's own Spark credentials stand in for a key?
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
    context_length: Whole1 | None = None
    surfaces: tuple[SurfaceName, ...] | None = None  # None: as the channel says
    price: Price | None = None  # None: unknown


class Range(_Frozen, frozen=True):
    """What a number is brought into; None: no bound on that side."""

    min: float | None = None
    max: float | None = None


class ParamRules(_Frozen, frozen=True):
    """What is done to the fields of a request on its way to a channel."""

    drop: tuple[str, ...] = ()
    clamp: dict[str, Range] = {}
    default: dict[str, Any] = {}  # where the client sends none
    set: dict[str, Any] = {}  # whatever the client sends


AUTO: Literal["auto"] = "auto"
"""In place of a channel's models: those that its upstream lists."""


class Channel(_Frozen, frozen=True):
    """A configured upstream."""

    name: str
    kind: Literal["openai", "azure", "anthropic", "gemini", "ollama", "spark", "local"]
    models: tuple[str, ...] | dict[str, ChannelModel] | Literal["auto"] = ()
    list_only: tuple[str, ...] = ()  # with models auto: patterns such as gpt-*; empty: all
    list_every_s: From0 = 3600  # 0: once
    test_every_s: From0 = 0  # 0: never
    surfaces: tuple[SurfaceName, ...] | None = None  # None: of kind openai all, of others chat
    preset: str | None = None  # see presets.py
    base_url: str | None = None
    api_key: str | None = None
    api_keys: tuple[str, ...] = ()  # several, used in turn, each with its own standing
    auth: Literal["bearer", "api-key", "x-api-key", "none"] = "bearer"
    headers: dict[str, str] = {}
    stream_usage: Literal["ask", "given", "refused"] | None = None  # None: as its preset says, else ask
    enabled: bool = True
    priority: int = 0  # higher is asked first
    weight: From0 = 1  # 0: takes no calls
    timeouts: TimeoutsPatch = TimeoutsPatch()
    head_in_time: bool = False  # of whole answers: is first_token_s the time for the head?
    max_concurrency: Whole0 = 0  # 0: no limit
    single_share: Share = 0.25  # of max_concurrency, which calls of combinations never take
    max_waiting: Whole0 = 1000
    max_wait_s: From0 = 120  # 0: as long as the call has time
    requests_per_min: Whole0 = 0  # 0: no limit
    tokens_per_min: Whole0 = 0
    breaker: Breaker = Breaker()
    cooldown_s: From0 = 10  # after a 429 that names no time
    bills_cancelled: bool = False  # does the vendor bill calls that were stopped in full?
    params: ParamRules = ParamRules()
    proxy: str | None = None
    http: Literal["fast", "aiohttp"] = "fast"  # which HTTP client; with a proxy always aiohttp
    tls: Tls = Tls()
    # kind anthropic
    anthropic: Anthropic = Anthropic()
    # kind azure
    azure: Azure = Azure()
    # kind gemini
    gemini: Gemini = Gemini()
    # kind ollama
    ollama: Ollama = Ollama()
    # kind spark
    app_id: str | None = None
    api_secret: str | None = None
    spark: Spark = Spark()
    # kind local
    path: str | None = None
    threads: Whole1 | None = None
    slots: Whole1 = 2
    context: Whole1 = 3072

    def __repr__(self) -> str:
        return f"Channel(name={self.name!r}, kind={self.kind!r})"

    def served(self) -> dict[str, ChannelModel]:
        """Public name → how this channel serves it, in the order of the configuration."""
        if isinstance(self.models, dict):
            return dict(self.models)
        if self.models == AUTO:
            return {}  # what is listed takes its place when it has come
        return {name: ChannelModel() for name in self.models}

    def secrets(self) -> tuple[str | None, ...]:
        """The keys it may use, one call each; one None where it has none."""
        return self.api_keys or (self.api_key,)


class Member(_Frozen, frozen=True):
    """One model call within a combination; None inherits from the combination, then from the model."""

    model: str
    id: str | None = None
    weight: Above0 = 1
    samples: Whole1 = 1
    temperature: From0 | None = None
    top_p: TopP | None = None
    params: dict[str, Any] = {}
    force: bool = False
    system: str | None = None
    attempts: Whole1 | None = None
    timeouts: TimeoutsPatch = TimeoutsPatch()
    draft_max_tokens: Whole1 | None = None


class Summary(_Frozen, frozen=True):
    """Who writes the answer."""

    model: str
    mode: Literal["direct", "analysis"] = "direct"
    prompt: str | None = None
    history: Literal["all", "last"] | Whole1 = "all"
    draft_tokens: Whole1 | None = None
    fallback: tuple[str, ...] = ()  # models, or "best_draft"
    timeouts: TimeoutsPatch = TimeoutsPatch()
    attempts: Whole1 = 2
    temperature: From0 | None = None
    params: dict[str, Any] = {}


Overridable: TypeAlias = Literal["strategy", "quorum", "grace_s", "deadline_s", "max_cost", "members"]
Strategy: TypeAlias = Literal[
    "direct",
    "synthesize",
    "vote",
    "best_of",
    "race",
    "fallback",
    "all",
    "cascade",
    "moa",
    "critique",
    "council",
    "steps",
]


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
    judge: Judge = Judge()
    min_success: Whole1 = 1
    quorum: Whole1 | None = None  # None: two thirds of the calls, rounded up
    grace_s: From0 = 5
    deadline_s: Above0 = 60
    timeouts: TimeoutsPatch = TimeoutsPatch()
    attempts: Whole1 = 2
    partial_drafts: bool = True
    partial_min_chars: Whole0 = 200
    draft_max_tokens: Whole1 | None = None
    max_members: Whole1 = 8
    max_cost: Above0 | None = None  # of one run, in the currency of the prices
    over_budget: Literal["shed", "refuse"] = "shed"
    order: Literal["shuffled", "configured"] = "shuffled"
    tools: Literal["agree", "summary", "refuse"] = "agree"  # requests with tools
    commit_after_s: From0 = 2
    status: StatusMode = "off"  # what a stream tells of the members
    overridable: tuple[Overridable, ...] = (
        "strategy",
        "quorum",
        "grace_s",
        "deadline_s",
        "max_cost",
        "members",
    )
    # the strategies' own keys
    vote: Vote = Vote()
    best_of: BestOf = BestOf()
    race: Race = Race()
    fallback: Fallback = Fallback()
    cascade: Cascade = Cascade()
    moa: Moa = Moa()
    critique: Critique = Critique()
    council: Council = Council()
    steps: Steps = Steps()


MEMBER_TIMEOUTS = Timeouts(connect_s=5, first_token_s=20, idle_s=15, total_s=55)
"""The four clocks of a member call where nobody says otherwise, the channel neither."""


class Settings(_Frozen, frozen=True):
    """The whole configuration."""

    server: Server = Server()
    access: Access = Access()
    cors: Cors = Cors()
    images: Images = Images()
    uploads: Uploads = Uploads()
    channels: tuple[Channel, ...] = ()
    routing: Routing = Routing()
    aliases: dict[str, str] = {}
    combinations: tuple[Combination, ...] = ()
    accuracies: str | None = None  # the file that a member's ``weight: measured`` takes its number from
    default_combination: str | None = None
    unknown_model: Literal["refuse", "default"] = "refuse"
    runs: Runs = Runs()
    responses: Responses = Responses()
    cache: Cache = Cache()
    events: Events = Events()
    logging: Logging = Logging()
