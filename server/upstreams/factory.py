"""Settings of a channel → its upstream."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from aiohttp import ClientSession, DummyCookieJar, TCPConnector

from server.settings import Channel
from server.upstreams.local import LocalUpstream
from server.upstreams.local_process import LocalProcess
from server.upstreams.openai import OpenAIUpstream


def client_session() -> ClientSession:
    """The one session of the process; closed by who calls this, after the last request.

    No limit on connections (channels have their own, and a second one would be a hidden queue), no cookies,
    no proxies from the environment.
    """
    return ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=DummyCookieJar(),
        trust_env=False,
    )


def build_upstream(channel: Channel, session: ClientSession) -> OpenAIUpstream | LocalUpstream:
    """The upstream of a channel; whoever builds it awaits its ``aclose``, after the last call."""
    match channel.kind:
        case "openai":
            return OpenAIUpstream(channel, session)
        case "local":
            process = LocalProcess(
                path=Path(channel.path) if channel.path else None,
                threads=channel.threads,
                slots=channel.slots,
                context=channel.context,
            )
            return LocalUpstream(channel, session, process)
        case _ as never:
            assert_never(never)
