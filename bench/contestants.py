"""Who is measured: Antiphon, the minimal relay, nothing at all, nginx, and gateways of one's own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import yaml

from bench.scenarios import MODELS, PANEL, PANELS, SUMMARY

KEY = "sk-rig-opens-nothing"
KEY_BESIDE = "sk-rig-asks-beside"  # whose runs the watchers do not see
ROOT = Path(__file__).parent.parent
ANTIPHON, RELAY, DIRECT, NGINX = "antiphon", "relay", "direct", "nginx"
WATCH = "/v1/events"
_PLACE = re.compile(r"\{(port|upstream|upstream_port|dir|python|model)\}")


class UnfitContestants(Exception):
    """A contestant that is not known, or a file of gateways that is wrong; the text says what to do."""


class Contestant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process behind a port, and how to ask it.

    In ``command``, ``files`` and ``env`` these are filled in: ``{port}`` to listen on at 127.0.0.1,
    ``{upstream}`` (http://127.0.0.1:N, without /v1), ``{upstream_port}``, ``{dir}`` (a scratch folder, where
    ``files`` are put and which is the working directory) and ``{python}`` (the rig's interpreter).
    """

    name: str
    command: list[str] = []  # empty: the mock itself is asked
    files: dict[str, str] = {}  # name → text
    env: dict[str, str] = {}
    headers: dict[str, str] = {}  # of each request, besides the authorization
    path: str = "/v1/chat/completions"
    model: str = "{model}"  # how the mock's model is called there
    combination: str | None = None  # for scenario E: its model of four members and a summary
    watch_path: str | None = None  # for R and W…: its status channel, a websocket as docs/events.md has it
    start_timeout_s: float = 60

    def asked(self, model: str) -> str:
        """How a model of the mock is asked for here."""
        return self.model.replace("{model}", model)


def filled(text: str, places: dict[str, str]) -> str:
    """A contestant's text with its places filled in; other braces stay."""
    return _PLACE.sub(lambda found: places.get(found[1], found[0]), text)


def _antiphon() -> Contestant:
    """The server as ``antiphon serve`` starts it: only a key, a channel and a combination are configured."""
    settings = {
        "access": {"keys": [{"name": "rig", "key": KEY}, {"name": "beside", "key": KEY_BESIDE}]},
        "channels": [
            {
                "name": "mock",
                "kind": "openai",
                "base_url": "{upstream}/v1",
                "api_key": "upstream",
                "models": list(MODELS),
            }
        ],
        "events": {"max_connections": 10_100},  # for WA
        "combinations": [
            {
                "name": panel,
                "strategy": "synthesize",
                "members": [{"model": name} for name in members],
                "quorum": len(members),
                "summary": {"model": SUMMARY},
            }
            for panel, members in PANELS.items()
        ],
    }
    command = ["{python}", "-m", "server", "serve", "--config", "{dir}/config.yaml", "--port", "{port}"]
    files = {"config.yaml": yaml.safe_dump(settings, sort_keys=False)}
    return Contestant(
        ANTIPHON, command, files, {"PYTHONPATH": str(ROOT)}, combination=PANEL, watch_path=WATCH
    )


def _relay() -> Contestant:
    command = ["{python}", "-m", "bench.relay", "--port", "{port}", "--upstream", "{upstream}"]
    return Contestant(RELAY, command, env={"PYTHONPATH": str(ROOT)})


_NGINX_CONF = """\
daemon off;
worker_processes 1;
pid {dir}/pid;
error_log stderr error;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  keepalive_requests 100000000;
  upstream mock {
    server 127.0.0.1:{upstream_port};
    keepalive 1024;
    keepalive_requests 100000000;
  }
  server {
    listen 127.0.0.1:{port} backlog=4096;
    client_body_buffer_size 64k;
    location / {
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }
  }
}
"""


def _nginx(program: str) -> Contestant:
    command = [program, "-p", "{dir}", "-e", "stderr", "-c", "{dir}/nginx.conf"]
    return Contestant(NGINX, command, {"nginx.conf": _NGINX_CONF})


def find_nginx() -> str | None:
    """nginx, which many systems keep out of an ordinary user's path; None: it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


def read_gateways(path: Path) -> list[Contestant]:
    """Gateways of one's own: one, or a list, as YAML or JSON. Raises UnfitContestants."""
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        gateways = msgspec.convert(data if isinstance(data, list) else [data], list[Contestant])
    except (OSError, ValueError, yaml.YAMLError) as error:  # msgspec's are ValueErrors
        raise UnfitContestants(f"{path}: {error}") from error
    for gateway in gateways:
        if not gateway.command or not re.fullmatch(r"[\w.-]+", gateway.name):
            raise UnfitContestants(f"{path}: a gateway needs a command, and a name of letters, digits, - . _")
    return gateways


def choose(also: list[Contestant], only: list[str], quick: bool) -> tuple[list[Contestant], list[str]]:
    """Who takes part, and what is to be said about those who do not.

    Direct, the relay and Antiphon always do, for all figures are read against the first two.
    Raises UnfitContestants for a name that nobody has, or two have.
    """
    everyone = [Contestant(DIRECT), _relay(), _antiphon()]
    program = find_nginx()
    notes = []
    if program is None:
        notes.append("nginx is left out: it is not installed here")
    elif quick and not only:
        notes.append("nginx is left out of a quick run (--only nginx brings it in)")
    else:
        everyone.append(_nginx(program))
    everyone += also
    names = [contestant.name for contestant in everyone]
    if len(set(names)) < len(names):
        raise UnfitContestants(f"two contestants of one name: {', '.join(sorted(names))}")
    if unknown := sorted(set(only) - set(names)):
        raise UnfitContestants(f"not known here: {', '.join(unknown)}. Known: {', '.join(names)}")
    if only:
        everyone = [one for one in everyone if one.name in {*only, DIRECT, RELAY, ANTIPHON}]
    return everyone, notes
