"""``antiphon serve``: run the server."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
from aiohttp import web

from server.app import create_app, drain, give_notice, last_words, replace_settings
from server.cli.config_file import add_config_file, add_examples
from server.config import HOST_OPTION, PORT_OPTION, ConfigError, default_path, load
from server.config_checks import is_loopback
from server.logs import set_up_logging
from server.serving import CannotListen, ServeOptions, serve
from server.serving import run as run_loop
from server.settings import Images, Runs, Settings
from server.surfaces import chat_models

log = logging.getLogger("antiphon")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    add_config_file(parser)
    parser.add_argument("--host", help="address to listen on, instead of server.host")
    parser.add_argument(
        "--port", type=int, help="port to listen on, instead of server.port; 0 takes a free one"
    )
    add_examples(
        parser,
        "serve",
        "serve conf/examples/failover.yaml",
        "serve --config /etc/antiphon.yaml --host 0.0.0.0 --port 8080",
        status="0 ended by a signal, 2 wrong usage or configuration, or the address is taken",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until a signal. Status 2 when the configuration is wrong or the address is taken."""
    path = default_path(options.file)
    environ = _environment(options)
    try:
        loaded = load(path, environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    set_up_logging(loaded.settings.logging)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    try:
        run_loop(_serve(loaded.settings, path, environ))
    except CannotListen as error:
        print(f"antiphon: {error}", file=sys.stderr)
        return 2
    return 0


GC_AFTER = 50_000
"""So many objects more than were freed, and the collector looks at them: some 5 MB. With Python's own 700 it
would look whenever a few requests more are under way than before, and find nothing."""


async def _serve(settings: Settings, path: Path, environ: Mapping[str, str]) -> None:
    app = create_app(settings)
    server = settings.server
    serve_options = ServeOptions(
        host=server.host,
        port=server.port,
        header_timeout_s=server.header_timeout_s,
        keepalive_s=server.keepalive_s,
        notice_s=server.drain_notice_s,
        drain_s=server.drain_s,
        on_notice=lambda: give_notice(app),
        on_drain=lambda: drain(app),
        on_drain_timeout=lambda: last_words(app),
    )
    # What the start made stays: the collector need not look at it again with every old generation.
    gc.collect()
    gc.freeze()
    # Requests free themselves, there being hardly a cycle: looking for garbage seldom is enough.
    gc.set_threshold(GC_AFTER, 10, 10)

    def ready(url: str) -> None:
        print(_greeting(url, settings), file=sys.stderr, flush=True)

    await serve(app, serve_options, on_ready=ready, reload=_reloader(app, settings, path, environ))


def _reloader(
    app: web.Application, started: Settings, path: Path, environ: Mapping[str, str]
) -> Callable[[], Awaitable[None]]:
    async def reload() -> None:
        try:
            loaded = await asyncio.to_thread(load, path, environ)
        except ConfigError as error:
            log.error("the new configuration is refused, the old one stays")
            for fault in error.faults:
                log.error("%s", fault)
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        if not loaded.settings.access.keys and not is_loopback(started.server.host):
            log.error(
                "the new configuration is refused, the old one stays: without keys it needs a restart, since "
                "the server listens on %s, which is more than loopback",
                started.server.host,
            )
            return
        if fixed := needs_restart(started, loaded.settings):
            log.warning("these settings take effect at the next start only: %s", ", ".join(fixed))
        replace_settings(app, _with_address(loaded.settings, started))
        log.info("configuration reloaded from %s", path)

    return reload


_FIXED: Mapping[str, tuple[str, ...]] = {
    "server": ("host", "port", "header_timeout_s", "keepalive_s", "drain_notice_s", "drain_s"),
    "images": Images.__struct_fields__,
    "runs": Runs.__struct_fields__,
    "logging": ("level", "format"),
}
"""By section, what is only looked at when the server starts."""


def needs_restart(started: Settings, now: Settings) -> list[str]:
    """The settings, as ``section.key``, that differ from those of the start and only count there."""
    return [
        f"{section}.{key}"
        for section, keys in _FIXED.items()
        for key in keys
        if getattr(getattr(started, section), key) != getattr(getattr(now, section), key)
    ]


def _with_address(settings: Settings, started: Settings) -> Settings:
    """``settings`` with the address that is really listened on."""
    address = {"host": started.server.host, "port": started.server.port}
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **address))


def _environment(options: argparse.Namespace) -> Mapping[str, str]:
    """The environment with the options over it, so that they are checked like any other setting."""
    over = {HOST_OPTION: options.host, PORT_OPTION: options.port}
    return {**os.environ, **{name: str(value) for name, value in over.items() if value is not None}}


def _greeting(url: str, settings: Settings) -> str:
    model = next((one.name for one in settings.combinations), None)
    if model is None:
        model = next((name for channel in settings.channels for name in chat_models(channel)), "MODEL")
    body = (
        f'{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Why is the sky blue?"}}]}}'
    )
    key = "" if not settings.access.keys else " -H 'Authorization: Bearer YOUR_KEY'"
    return (
        f"Antiphon serves {url}/v1 — models: {url}/v1/models\n"
        f"  try:   curl -N {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f"           -d '{body}'\n"
        f"  watch: {url}/ in a browser, or: antiphon watch --url {url}"
    )
