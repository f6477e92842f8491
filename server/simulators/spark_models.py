"""The models of a simulated Spark: which path takes which domain, and what each accepts."""

from __future__ import annotations

import re

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model. ``domains`` is empty where any is taken."""

    name: str
    domains: tuple[str, ...]
    system: bool = False
    functions: bool = False
    search: bool = False
    shows_sources: bool = False
    input_tokens: int = 8192
    max_tokens: int = 8192
    max_temperature: float = 1.0
    reasons: bool = False
    image: bool = False
    client_closes: bool = False  # the server leaves the connection open after the last frame


LITE = Model(name="Lite", domains=("lite", "general"), max_tokens=4096)
V2 = Model(name="v2", domains=("generalv2",), max_tokens=8192)
PRO = Model(name="Pro", domains=("generalv3",), system=True, functions=True, search=True)
PRO_128K = Model(
    name="Pro-128K", domains=("pro-128k",), system=True, functions=True, input_tokens=131072, max_tokens=4096
)
MAX = Model(
    name="Max", domains=("generalv3.5",), system=True, functions=True, search=True, shows_sources=True
)
MAX_32K = Model(name="Max-32K", domains=("max-32k",), system=True, functions=True, input_tokens=32768)
ULTRA = Model(
    name="4.0 Ultra",
    domains=("4.0Ultra",),
    system=True,
    functions=True,
    search=True,
    shows_sources=True,
    input_tokens=32768,
    max_tokens=32768,
)
KJWX = Model(name="kjwx", domains=("kjwx",))
MULTILANG = Model(name="multilang", domains=("multilang",))
X1 = Model(
    name="X1.5",
    domains=("spark-x", "x1"),
    system=True,
    functions=True,
    search=True,
    input_tokens=65536,
    max_tokens=65535,
    max_temperature=2.0,
    reasons=True,
)
X1_PREVIEW = msgspec.structs.replace(X1, name="X1 preview", domains=("x1", "x1-preview"), max_tokens=32768)
X2 = msgspec.structs.replace(X1, name="X2", domains=("spark-x",), max_tokens=131072)
X2_FLASH = msgspec.structs.replace(X2, name="X2-Flash", max_tokens=262144, input_tokens=262144)
IMAGE = Model(name="image", domains=("general", "imagev3", "image"), image=True)
FINE_TUNED = Model(
    name="fine-tuned", domains=(), system=True, functions=True, input_tokens=32768, max_tokens=32768,
    client_closes=True,
)  # fmt: skip
ASSISTANT = Model(name="assistant", domains=())

WEBSOCKET_PATHS = {
    "/v1.1/chat": LITE,
    "/v2.1/chat": V2,
    "/v3.1/chat": PRO,
    "/chat/pro-128k": PRO_128K,
    "/v3.5/chat": MAX,
    "/chat/max-32k": MAX_32K,
    "/v4.0/chat": ULTRA,
    "/v1.1/chat_kjwx": KJWX,
    "/v1.1/chat_multilang": MULTILANG,
    "/v1/x1": X1,
    "/v1/reasoner-x1-preview": X1_PREVIEW,
    "/x2": X2,
    "/v2.1/image": IMAGE,
}

HTTP_PATHS = {
    "/v1/chat/completions": (LITE, PRO, PRO_128K, MAX, MAX_32K, ULTRA, KJWX),
    "/v2/chat/completions": (X1, X1_PREVIEW),
    "/x2/chat/completions": (X2,),
    "/agent/v1/chat/completions": (X2_FLASH,),
}

_ASSISTANT = re.compile(r"/v1/assistants/[^/]+")


def model_at(path: str) -> Model | None:
    """The model behind a websocket path."""
    return ASSISTANT if _ASSISTANT.fullmatch(path) else WEBSOCKET_PATHS.get(path)
