"""What the types cannot say about the channels, each by its kind.

Messages never quote a secret, nor a value that may hold one.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path as FilePath

import msgspec

from server.chat import ChatRequest, JsonObject
from server.config_checks import Findings, check_name, check_secret, check_unique, under
from server.config_types import nearest
from server.config_urls import check_base_url, check_proxy, check_spark_url
from server.config_yaml import Path, printable
from server.errors import InvalidRequest
from server.presets import PRESETS, preset_at, preset_of
from server.settings import AUTO, Channel, Tls
from server.spark.models import MODELS, canonical_name, with_overrides
from server.spark.parameters import SparkOptions, instruction, parameters
from server.surfaces import offered_by

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Whose upstreams list their models.
LISTING_KINDS = ("openai", "anthropic", "gemini", "ollama")
# What the client library writes itself.
_OUR_HEADERS = ("host", "content-length", "transfer-encoding", "connection")


def check_channels(found: Findings, *, others_can_read: bool) -> None:
    """``channels``: each by its kind."""
    channels = found.settings.channels
    check_unique(found, [(under(found, one, "name"), one.name) for one in channels], "this channel's name")
    if not any(one.enabled for one in channels) and not found.excused((), "channels"):
        found.doubt(("channels",), "no channel is enabled, so there is no model to ask")
    for channel in channels:
        check_name(found, under(found, channel, "name"), channel.name, "a channel's name")
        _check_models(found, channel)
        _check_surfaces(found, channel)
        if channel.kind == "openai":
            _check_openai(found, channel, others_can_read)
        elif channel.kind == "anthropic":
            _check_anthropic(found, channel, others_can_read)
        elif channel.kind == "azure":
            _check_azure(found, channel, others_can_read)
        elif channel.kind == "gemini":
            _check_gemini(found, channel, others_can_read)
        elif channel.kind == "ollama":
            _check_native(found, channel, others_can_read)
            _check_own_models(found, channel, channel.ollama.models)
            _unused(found, channel, ("auth", "stream_usage"), "another kind")
        elif channel.kind == "spark":
            _check_spark(found, channel, others_can_read)
        else:
            _check_local(found, channel)


def _check_models(found: Findings, channel: Channel) -> None:
    path = under(found, channel, "models")
    if isinstance(channel.models, tuple):
        check_unique(found, [((*path, at), name) for at, name in enumerate(channel.models)], "this model")
    if channel.models == AUTO and channel.kind not in LISTING_KINDS:
        found.wrong(path, f"kind {channel.kind} has no list to take them from: name them")
    elif channel.models == AUTO and channel.preset in PRESETS and not preset_of(channel).lists:
        found.wrong(path, f"the vendor of preset {channel.preset} has no list to take them from: name them")
    if channel.models != AUTO:
        _unused(found, channel, ("list_only", "list_every_s"), "models: auto")
    if not channel.models and channel.enabled and not found.excused(found.path(channel), "models"):
        found.wrong(path, "lists no model: name those that this channel serves")
    for at, (name, model) in enumerate(channel.served().items()):
        step = at if isinstance(channel.models, tuple) else name
        check_name(found, (*path, step), name, "a model's name")
        if model.model is not None and not model.model.strip():
            found.wrong(
                (*path, step, "model"), "must not be empty; leave it out if the name is the same there"
            )


def _check_surfaces(found: Findings, channel: Channel) -> None:
    own = under(found, channel, "surfaces")
    named = [(own, channel.surfaces)]
    if isinstance(channel.models, dict):
        path = under(found, channel, "models")
        named += [((*path, name, "surfaces"), model.surfaces) for name, model in channel.models.items()]
    for here, surfaces in named:
        if surfaces is None:
            continue
        if not surfaces:
            found.wrong(here, "names nothing that is offered; leave it out for the default")
        check_unique(found, [((*here, at), one) for at, one in enumerate(surfaces)], "this surface")
        offered = ("chat", *offered_by(channel))
        if set(surfaces) - set(offered):
            kind = f"preset {channel.preset}" if channel.preset else f"kind {channel.kind}"
            found.wrong(here, f"may name {', '.join(offered)}: channels of {kind} offer nothing else")


def _check_openai(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path = found.path(channel)
    _check_preset(found, channel)
    check_base_url(found, channel)
    no_address = channel.base_url is None and channel.preset is None
    if no_address and channel.enabled and not found.excused(path, "base_url"):
        found.wrong(
            (*path, "base_url"), "is missing; kind openai wants it, such as https://api.example.com/v1"
        )
    if channel.api_key is not None:
        check_secret(found, (*path, "api_key"), channel.api_key, others_can_read)
        if channel.auth == "none":
            found.doubt((*path, "api_key"), "is not sent, since auth is none")
    _check_headers(found, channel)
    check_proxy(found, channel)
    _check_tls(found, channel)
    _unused(found, channel, ("path", "threads", "slots", "context"), "kind local")
    _unused_kinds(found, channel)


def _check_preset(found: Findings, channel: Channel) -> None:
    path = found.path(channel)
    if channel.preset is None:
        if channel.base_url is not None and (name := preset_at(channel.base_url)) is not None:
            found.doubt(
                (*path, "base_url"),
                f"is the address of preset {name}, which knows what this vendor takes: write preset: {name}",
            )
        return
    if channel.preset not in PRESETS:
        known = list(PRESETS)
        near = nearest(channel.preset, known) or f"; known are {', '.join(known)}"
        found.wrong((*path, "preset"), f"is none of the presets{near}")
        return
    preset = preset_of(channel)
    templated = channel.base_url is None and "{" in preset.base_url
    if templated and channel.enabled and not found.excused(path, "base_url"):
        found.wrong((*path, "base_url"), f"is missing; for this preset it is {preset.base_url}")
    no_key = channel.api_key is None and not channel.api_keys and channel.base_url is None
    if preset.key and no_key and channel.enabled and not found.excused(path, "api_key"):
        found.wrong((*path, "api_key"), f"is missing; preset {channel.preset} wants a key")


def _check_anthropic(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path, settings = found.path(channel), channel.anthropic
    _check_native(found, channel, others_can_read)
    for place, value in (("version", settings.version), *(("beta", one) for one in settings.beta)):
        if not value.isascii() or not value.isprintable() or not value or "," in value or " " in value:
            found.wrong((*path, "anthropic", place), "must be one word, as the vendor names it")
    _check_own_models(found, channel, settings.models)
    if found.given((*path, "auth")):
        found.wrong((*path, "auth"), "has no use here; kind anthropic has anthropic.auth")


def _check_azure(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path, settings = found.path(channel), channel.azure
    if channel.base_url is None and channel.enabled and not found.excused(path, "base_url"):
        found.wrong((*path, "base_url"), "is missing; it is https://NAME.openai.azure.com of your resource")
    _check_native(found, channel, others_can_read)
    here: Path = (*path, "azure")
    if settings.api_version is not None and not re.fullmatch(r"[\w.-]+", settings.api_version):
        found.wrong((*here, "api_version"), "must be one word, such as 2024-10-21")
    if settings.token_file is not None and settings.token_command:
        found.wrong((*here, "token_command"), "goes without token_file")
    if (settings.token_file is not None or settings.token_command) and settings.auth != "bearer":
        found.wrong((*here, "auth"), "must be bearer, for tokens are sent so")
    _unused(found, channel, ("auth",), "another kind; kind azure has azure.auth")


def _check_gemini(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path, settings = found.path(channel), channel.gemini
    _check_native(found, channel, others_can_read)
    if not re.fullmatch("[a-z0-9]+", settings.version):
        found.wrong((*path, "gemini", "version"), "must be one word, such as v1beta")
    _check_own_models(found, channel, settings.models)
    _unused(found, channel, ("auth",), "another kind")


def _check_native(found: Findings, channel: Channel, others_can_read: bool) -> None:
    """What kinds over HTTP with one vendor behind them share."""
    path = found.path(channel)
    tokens = channel.azure.token_file is not None or channel.azure.token_command
    check_base_url(found, channel)
    if channel.api_key is not None:
        check_secret(found, (*path, "api_key"), channel.api_key, others_can_read)
    elif (
        channel.kind != "ollama"
        and channel.enabled
        and not (channel.api_keys or tokens)
        and not found.excused(path, "api_key")
    ):
        found.wrong((*path, "api_key"), f"is missing; kind {channel.kind} wants a key")
    _check_headers(found, channel)
    check_proxy(found, channel)
    _check_tls(found, channel)
    usage = () if channel.kind == "azure" else ("stream_usage",)
    _unused(found, channel, ("preset", *usage, "path", "threads", "slots", "context"), "another kind")
    _unused_kinds(found, channel)


def _check_own_models(found: Findings, channel: Channel, models: Mapping[str, object]) -> None:
    """What is said of models that the channel does not serve is of no use."""
    served = {model.model or name for name, model in channel.served().items()}
    for name in models:
        if name not in served:
            path = (*found.path(channel), channel.kind, "models", name)
            found.doubt(path, "is none of the channel's models there")


def _check_headers(found: Findings, channel: Channel) -> None:
    path = found.path(channel)
    seen: dict[str, str] = {}
    for name, value in channel.headers.items():
        here: Path = (*path, "headers", name)
        if not _HEADER_NAME.fullmatch(name):
            found.wrong(here, "is not a header's name")
        elif name.lower() in _OUR_HEADERS:
            found.wrong(here, "is written by the server itself")
        if any(char in value for char in "\r\n\0"):
            found.wrong(here, "must be one line")
        elif not value.isascii():
            found.wrong(here, "must be ASCII")
        elif not value.replace("\t", " ").isprintable():
            found.wrong(here, "must not hold control characters")
        if name.lower() in seen:
            found.wrong(here, f"stands twice: {printable(seen[name.lower()])} is the same header")
        seen.setdefault(name.lower(), name)


def _check_tls(found: Findings, channel: Channel) -> None:
    path = under(found, channel, "tls")
    tls = channel.tls
    files = ("ca_file", "cert_file", "key_file") if channel.enabled else ()
    missing = [name for name in files if (file := getattr(tls, name)) is not None and not _is_file(file)]
    for name in missing:
        found.wrong((*path, name), "names no file that can be found")
    if (tls.cert_file is None) is not (tls.key_file is None):
        if not found.broken(path):
            found.wrong(path, "cert_file and key_file go together")
    elif files and not missing:
        _check_certificates(found, path, tls)
    if not tls.verify:
        found.doubt((*path, "verify"), "certificates are not checked: whoever is in between reads everything")


def _check_certificates(found: Findings, path: Path, tls: Tls) -> None:
    """Files that are there hold what they should, or the server could not start."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(tls.ca_file)
        except OSError:  # ssl.SSLError is one
            found.wrong((*path, "ca_file"), "holds no certificate in PEM that can be read")
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except OSError:
            what = "holds no certificate in PEM that goes with key_file, whose key must have no password"
            found.wrong((*path, "cert_file"), what)


def _check_spark(found: Findings, channel: Channel, others_can_read: bool) -> None:
    path = found.path(channel)
    own = (channel.app_id, channel.api_key, channel.api_secret)
    callers_only = channel.spark.client_credentials and own == (None, None, None)
    for name in ("app_id", "api_key", "api_secret"):
        value = getattr(channel, name)
        if value is not None:
            check_secret(found, (*path, name), value, others_can_read)
        elif channel.enabled and not callers_only and not found.excused(path, name):
            found.wrong((*path, name), "is missing; kind spark wants all three of its console's credentials")
    check_spark_url(found, channel)
    try:
        models = with_overrides(channel.spark.models)
    except ValueError as error:
        found.wrong((*path, "spark", "models"), f"cannot be used: {error}")
        return
    for name, model in channel.served().items():
        theirs = model.model or name
        known = models.get(theirs) or models.get(canonical_name(theirs))
        if known is None:
            found.wrong((*path, "models"), f"Spark has no model {theirs}; known are {', '.join(models)}")
        elif known.retired:
            found.doubt((*path, "models"), f"{theirs}: {known.retired}")
    for rule, values in (("default", channel.params.default), ("set", channel.params.set)):
        for name, value in values.items():
            _check_spark_value(found, (*path, "params", rule, name), name, value)
    check_proxy(found, channel)
    _check_tls(found, channel)
    unused = ("preset", "auth", "headers", "stream_usage", "http", "path", "threads", "slots", "context")
    _unused(found, channel, unused, "another kind")
    _unused_kinds(found, channel)


def _check_spark_value(found: Findings, path: Path, name: str, value: object) -> None:
    """What is put into every request has to be what a request may hold, lest every one fails."""
    try:
        chat = ChatRequest(JsonObject(msgspec.json.encode({name: value})))
        parameters(chat, MODELS["spark-x1"], SparkOptions(), functions=False)
        instruction(chat)
    except msgspec.ValidationError:
        pass  # the types that all kinds share are checked with the rules themselves
    except InvalidRequest as error:
        found.wrong(path, error.message)


def _check_local(found: Findings, channel: Channel) -> None:
    path = found.path(channel)
    if channel.base_url is not None:
        found.wrong((*path, "base_url"), "has no use with kind local, which runs here; kind openai wants it")
    if channel.path is not None and channel.enabled and not _is_file(channel.path):
        found.wrong((*path, "path"), "names no file that can be found")
    unused = ("preset", "api_key", "auth", "headers", "stream_usage", "proxy", "tls")
    _unused(found, channel, unused, "kind openai")
    _unused(found, channel, ("breaker",), "kinds that are asked over the network")
    _unused_kinds(found, channel)


def _unused_kinds(found: Findings, channel: Channel) -> None:
    """Settings of kinds that this channel is not of."""
    for kind in ("azure", "anthropic", "gemini", "ollama"):
        if channel.kind != kind:
            _unused(found, channel, (kind,), f"kind {kind}")


def _is_file(name: str) -> bool:
    try:
        return FilePath(name).is_file()
    except (OSError, ValueError):
        return False


def _unused(found: Findings, channel: Channel, keys: tuple[str, ...], kind: str) -> None:
    for key in keys:
        if found.given(under(found, channel, key)):
            found.doubt(under(found, channel, key), f"is not used: it is for {kind}")
