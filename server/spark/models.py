"""Spark's models as data: where each is reached, what it can do, how much it takes.

From the vendor's pages and SDK tables as of early 2026. Where they disagree the narrower one stands here, for
a feature that a model lacks fails the whole request; the configuration may widen it (``with_overrides``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from server.errors import InvalidRequest, ModelNotFound
from server.settings import ChannelModel

_CHAT = "wss://spark-api.xf-yun.com"
MAAS_URL = "wss://maas-api.cn-huabei-1.xf-yun.com/v1.1/chat"
ASSISTANTS_URL = "wss://spark-openapi.cn-huabei-1.xf-yun.com/v1/assistants"


class SparkModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model. ``domain`` must fit the version in ``url``; None: the endpoint takes none (assistants).

    Ranges are inclusive, but for the temperature, which is above 0. ``max_tokens`` bounds the answer,
    ``default_max_tokens`` is what the server takes when it is not told, ``input_tokens`` bounds the contents
    of all messages together; None: not known. ``retired`` says since when it is gone and what to use.
    """

    name: str
    url: str
    domain: str | None
    version: str = ""
    """As the old gateways' answers called it, for example ``v3.1``."""
    input_tokens: int | None = None
    max_tokens: int | None = None
    default_max_tokens: int | None = None
    max_temperature: float = 1.0
    max_top_k: int = 6
    top_p: bool = False
    presence_penalty: tuple[float, float] | None = None
    frequency_penalty: tuple[float, float] | None = None
    system: bool = False
    functions: bool = False
    web_search: bool = False
    search_with_functions: bool = True
    sources: bool = False
    reasoning: bool = False
    vision: bool = False
    patch_id: tuple[str, ...] = ()
    client_closes: bool = False
    retired: str | None = None


Models: TypeAlias = Mapping[str, SparkModel]


def _x_model(name: str, path: str, domain: str, **fields: Any) -> SparkModel:
    model = SparkModel(
        name,
        _CHAT + path,
        domain,
        input_tokens=65536,
        max_tokens=65535,
        default_max_tokens=65535,
        max_temperature=2.0,
        top_p=True,
        presence_penalty=(0.0, 3.0),
        frequency_penalty=(0.0, 1.0),
        system=True,
        functions=True,
        web_search=True,
        search_with_functions=False,
        reasoning=True,
    )
    return msgspec.structs.replace(model, **fields)


def _base(name: str, path: str, domain: str, input_tokens: int, max_tokens: int, **fields: Any) -> SparkModel:
    return SparkModel(
        name,
        _CHAT + path,
        domain,
        input_tokens=input_tokens,
        max_tokens=max_tokens,
        default_max_tokens=4096,
        **fields,
    )


_WIDE = {"system": True, "functions": True, "web_search": True, "sources": True}
_TABLE = (
    _base("spark-lite", "/v1.1/chat", "lite", 8192, 4096, version="v1.1"),
    SparkModel(
        "spark-v2",
        f"{_CHAT}/v2.1/chat",
        "generalv2",
        version="v2.1",
        input_tokens=8192,
        max_tokens=8192,
        default_max_tokens=2048,
        retired="The vendor no longer documents Spark 2.0; use spark-pro.",
    ),
    _base("spark-pro", "/v3.1/chat", "generalv3", 8192, 8192, version="v3.1", web_search=True),
    _base("spark-pro-128k", "/chat/pro-128k", "pro-128k", 131072, 4096),
    _base("spark-max", "/v3.5/chat", "generalv3.5", 8192, 8192, version="v3.5", **_WIDE),
    _base("spark-max-32k", "/chat/max-32k", "max-32k", 32768, 8192),
    _base("spark-ultra", "/v4.0/chat", "4.0Ultra", 32768, 8192, version="v4.0", **_WIDE),
    _x_model("spark-x1", "/v1/x1", "spark-x"),
    _x_model(
        "spark-x1-preview",
        "/v1/reasoner-x1-preview",
        "x1",
        max_tokens=32768,
        default_max_tokens=32768,
        retired="The X1 preview ended with November 2025; use spark-x1.",
    ),
    _x_model("spark-x2", "/x2", "spark-x", max_tokens=131072, default_max_tokens=None),
    # Their limits are not documented: what every other version of their time takes.
    SparkModel(
        "spark-kjwx",
        "wss://spark-openapi-n.cn-huabei-1.xf-yun.com/v1.1/chat_kjwx",
        "kjwx",
        max_tokens=8192,
    ),
    SparkModel(
        "spark-multilang",
        "wss://spark-api-n.xf-yun.com/v1.1/chat_multilang",
        "multilang",
        max_tokens=8192,
    ),
    SparkModel(
        "spark-vision",
        "wss://spark-api.cn-huabei-1.xf-yun.com/v2.1/image",
        "imagev3",
        version="v2.1",
        input_tokens=8192,
        max_tokens=8192,
        default_max_tokens=2048,
        vision=True,
    ),
)
MODELS: Models = {model.name: model for model in _TABLE}

_LEGACY_VERSIONS = {"v1.1": "spark-lite", "v2.1": "spark-pro", "v3.1": "spark-pro"}
# The names of the gateways before us; 2.0 is retired and answered by Pro.
LEGACY_NAMES: Mapping[str, str] = {
    "spark-api-v1.1": "spark-lite",
    "spark-api-v2.1": "spark-pro",
    "spark-api-v3.1": "spark-pro",
    "spark-chat-v1.5": "spark-lite",
    "spark-chat-v2": "spark-pro",
    "spark-chat-v3": "spark-pro",
    "spark-chat-v3.5": "spark-max",
    "spark-chat-v4": "spark-ultra",
    "spark-chat-vision": "spark-vision",
    "vision": "spark-vision",
    "spark-x": "spark-x1",
    "spark-x1.5": "spark-x1",
}


def canonical_name(name: str, version: str | None = None) -> str:
    """The name in the table for one of an older gateway; other names are given back as they are.

    ``version`` is the request's field, read only together with ``spark-api`` (v1.1 if it is absent). Raises
    ``InvalidRequest`` for a version that was never one.
    """
    if name != "spark-api":
        return LEGACY_NAMES.get(name, name)
    found = _LEGACY_VERSIONS.get("v1.1" if version is None else version)
    if found is None:
        known = ", ".join(_LEGACY_VERSIONS)
        raise InvalidRequest(
            f"version must be one of {known}; or leave it out and name a model.", param="version"
        )
    return found


def find_model(name: str, version: str | None = None, models: Models = MODELS) -> SparkModel:
    """The model of this name, present or legacy. Raises ``ModelNotFound``, or as ``canonical_name``."""
    model = models.get(name) or models.get(canonical_name(name, version))
    if model is None:
        raise ModelNotFound(f"Spark has no model {name!r}; known are {', '.join(models)}.", param="model")
    return model


def served_as(said: ChannelModel, model: SparkModel) -> ChannelModel:
    """What a channel's model can do: as the configuration said, else as the table knows.

    A model that calls no functions but searches the web takes tools of that one kind; whoever asks it for
    others is refused when the request is made.
    """
    tools = True if model.functions else None if model.web_search else False
    return ChannelModel(
        model=said.model,
        vision=model.vision if said.vision is None else said.vision,
        tools=tools if said.tools is None else said.tools,
        context_length=said.context_length or model.input_tokens,
    )


def with_overrides(overrides: Mapping[str, Mapping[str, Any]], models: Models = MODELS) -> Models:
    """The table with models changed or added: name → fields of ``SparkModel``.

    A new name takes what it does not say from the model named by ``like``; without that it must give ``url``
    and ``domain``. Raises ``ValueError`` that names the model and the field.
    """
    merged = dict(models)
    for name, given in overrides.items():
        fields = dict(given)
        like = fields.pop("like", name)
        if like not in models and (like != name or not {"url", "domain"} <= set(fields)):
            wanted = f"no model {like!r} to be like" if like != name else "a new model needs url and domain"
            raise ValueError(f"{name}: {wanted}; known are {', '.join(models)}")
        start = msgspec.structs.asdict(models[like]) if like in models else {}
        try:
            merged[name] = msgspec.convert(start | fields | {"name": name}, SparkModel)
        except msgspec.ValidationError as error:
            raise ValueError(f"{name}: {error}") from None
        if not merged[name].url.startswith(("ws://", "wss://")):
            raise ValueError(f"{name}: url must begin with wss:// (or ws://)")
    return merged


def fine_tuned(name: str, service_id: str, resource_id: str | None = None) -> SparkModel:
    """A fine-tuned model: ``service_id`` is its domain, ``resource_id`` its patch."""
    return SparkModel(
        name,
        MAAS_URL,
        service_id,
        patch_id=(resource_id,) if resource_id else (),
        client_closes=True,
    )


def assistant(name: str, assistant_id: str) -> SparkModel:
    """An assistant made in the vendor's console; its endpoint takes no domain."""
    return SparkModel(name, f"{ASSISTANTS_URL}/{assistant_id}", None)
