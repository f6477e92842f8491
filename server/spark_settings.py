"""The settings of a channel of kind ``spark``, as frozen data."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Spark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a channel of kind ``spark`` decides where the vendor leaves it open.

    ``models`` changes or adds models: name → fields of ``spark.models.SparkModel``, or ``like`` another.
    ``warned`` is the finish reason of an answer that came with a warning of moderation.
    ``client_credentials``: does the channel serve callers with credentials of their own?
    """

    web_search: bool = False  # for requests that do not ask for it
    warned: Literal["content_filter", "stop"] = "content_filter"
    legacy_fields: bool = False
    client_credentials: bool = False
    models: dict[str, dict[str, Any]] = {}
