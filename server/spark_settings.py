"""The settings of a channel of kind ``spark``, as frozen data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec


class Spark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a channel of kind ``spark`` decides where the vendor leaves it open.

    ``models`` changes or adds models: name → fields of ``spark.models.SparkModel``, or ``like`` another.
    ``warned`` is the finish reason of an answer that came with a warning of moderation; behind the last frame
    a warning is waited for until Spark closes, and for ``warning_wait_s`` seconds at most.
    ``client_credentials``: does the channel serve callers with credentials of their own?
    """

    web_search: bool = False  # for requests that do not ask for it
    warned: Literal["content_filter", "stop"] = "content_filter"
    warning_wait_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.05
    legacy_fields: bool = False
    client_credentials: bool = False
    models: dict[str, dict[str, Any]] = {}
