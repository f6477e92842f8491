"""What the types cannot say about the addresses of upstreams and proxies.

Messages never quote an address: it may hold a secret.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from server.config_checks import Findings, is_loopback, under
from server.config_yaml import Path
from server.settings import Channel
from server.spark.models import MODELS
from server.surfaces import SURFACES

_ODD_PATH = re.compile(r"//|/\.{1,2}(/|$)|%(00|0a|0d|2e|2f|5c)", re.IGNORECASE)
# What people copy from a vendor's page together with the address that stands before it.
_ENDPOINTS = (
    *("/chat/completions", "/completions", "/models", "/responses", "/messages"),
    *dict.fromkeys(surface.path for surface in SURFACES),
)
_SPARK_PATHS = tuple(sorted({urlsplit(model.url).path for model in MODELS.values()}))
# By kind: what else may not end its address, and what the server adds to it.
_ADDED: dict[str, tuple[tuple[str, ...], str]] = {
    "anthropic": (("/v1", "/complete"), "/v1/messages"),
    "azure": (("/openai", "/v1"), "/openai"),
    "gemini": (("/v1beta", "/v1"), "/v1beta"),
    "ollama": (("/api", "/v1", "/chat", "/generate", "/tags"), "/api"),
}
# What follows in an address that was copied whole: a deployment, a model.
_WITHIN = {"azure": "/openai/deployments/", "gemini": "/models/"}


def check_base_url(found: Findings, channel: Channel) -> None:
    """Of kinds over HTTP, where one is given: an address that paths can be put behind."""
    url, path = channel.base_url, under(found, channel, "base_url")
    if url is None:
        return
    parts = _split(url)
    if _broken(url):
        found.wrong(path, "must be one line without blanks and \\")
    elif parts is None or parts.scheme not in ("http", "https"):
        found.wrong(
            path, "must be a URL that begins with http:// or https://, such as https://api.example.com/v1"
        )
    elif wrong := _wrong_in(url, parts) or _too_long(channel.kind, parts.path):
        found.wrong(path, wrong)
    else:
        _doubt_unencrypted(found, path, channel, parts, "prompts, answers and the key")


def check_spark_url(found: Findings, channel: Channel) -> None:
    """Of kind spark, where one is given: an address that the path of each model can be put behind."""
    url, path = channel.base_url, under(found, channel, "base_url")
    if url is None:
        return
    parts = None if _broken(url) else _split(url)
    if parts is None or parts.scheme not in ("ws", "wss"):
        found.wrong(path, "must begin with wss:// (or ws://); leave it out for the vendor's")
    elif wrong := _wrong_in(url, parts):
        found.wrong(path, wrong)
    elif parts.path.rstrip("/").lower().endswith(_SPARK_PATHS):
        found.wrong(path, "must end before the path of a model, which the server adds")
    else:
        _doubt_unencrypted(found, path, channel, parts, "prompts and answers")


def check_proxy(found: Findings, channel: Channel) -> None:
    """A proxy over HTTP; it may hold a name and a password."""
    proxy = channel.proxy or "http://none"
    parts = None if _broken(proxy) else _split(proxy)
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or parts.path not in ("", "/")
        or any(mark in proxy for mark in "?#")
    ):
        path = under(found, channel, "proxy")
        found.wrong(path, "must be a proxy's URL, such as http://proxy.example.org:3128")


def _broken(url: str) -> bool:
    return not url.isprintable() or " " in url or "\\" in url


def _split(url: str) -> SplitResult | None:
    """The parts of a URL with a host, or None."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and (parts.port is None or parts.port > 0) else None
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None


def _wrong_in(url: str, parts: SplitResult) -> str:
    if "@" in parts.netloc:
        return "must not hold a name or password; a key goes into api_key"
    if "?" in url or "#" in url:
        return "must not hold a query (?…) or a fragment (#…)"
    if _ODD_PATH.search(parts.path):
        return "has an odd path: no //, no . or .. between slashes and no %00 may be in it"
    return ""


def _too_long(kind: str, path: str) -> str:
    """What to write, if the path has what the server adds to it; "" if it has not."""
    path = path.rstrip("/").lower()
    if kind in _ADDED:
        endings, added = _ADDED[kind]
        within = _WITHIN.get(kind)
        if path.endswith((*endings, *_ENDPOINTS)) or (within is not None and within in path):
            return f"must end before {added}, which the server adds"
    elif (ending := next((one for one in _ENDPOINTS if path.endswith(one)), None)) is not None:
        return f"must end before {ending}, which the server adds, such as https://api.example.com/v1"
    return ""


def _doubt_unencrypted(found: Findings, path: Path, channel: Channel, parts: SplitResult, what: str) -> None:
    if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname or "") and channel.enabled:
        found.doubt(path, f"{parts.scheme}:// beyond this machine: {what} travel unencrypted")
