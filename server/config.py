"""The configuration: a YAML file, ``.env`` and the environment in, one frozen snapshot out.

``load`` either gives settings that hold together, or says everything that is wrong with them at once:
``file:line:column: key: what is wrong, did you mean …``. No message holds a secret or quotes a value that
came from a variable.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from dotenv import dotenv_values

from server.config_accuracies import put_in_weights
from server.config_cache import check_cache
from server.config_channels import check_channels
from server.config_checks import Findings, check_access, check_server, check_uploads, expiry, is_loopback
from server.config_combinations import check_names
from server.config_routing import check_routing
from server.config_types import Reader
from server.config_variables import SPARK, stand_ins, substitute
from server.config_yaml import MAX_FILE_BYTES, Fault, Faults, Scalar, parse
from server.config_yaml import Path as KeyPath
from server.settings import AUTO, AccessKey, Channel, Combination, Member, Settings

__all__ = ["ConfigError", "Fault", "Loaded", "default_path", "describe", "load"]

SHIPPED = Path(__file__).parent / "conf" / "config.yaml"
KEYS, HOST, PORT, FILE = "ANTIPHON_KEYS", "ANTIPHON_HOST", "ANTIPHON_PORT", "ANTIPHON_CONFIG"
HOST_OPTION, PORT_OPTION = "--host", "--port"
"""The command line's address, as variables that no environment has: they win, and faults name them."""


class ConfigError(Exception):
    """The configuration cannot be used. ``faults``: everything that is wrong, in the order of the file."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class Loaded(msgspec.Struct, frozen=True):
    """A good configuration. ``files``: those that were read, the configuration itself first.

    ``stood_in``: the variables that a rehearsal did without.
    """

    settings: Settings
    warnings: list[Fault]
    files: tuple[Path, ...]
    stood_in: tuple[str, ...] = ()


def default_path(
    option: str | Path | None = None, environ: Mapping[str, str] | None = None, *, cwd: Path | None = None
) -> Path:
    """The file to read: the command line's, else ``ANTIPHON_CONFIG``, else ./conf/config.yaml, else ours."""
    named = option or (os.environ if environ is None else environ).get(FILE)
    if named:
        return Path(named)
    here = (cwd or Path()) / "conf" / "config.yaml"
    return here if here.is_file() else SHIPPED


def load(
    path: Path | None = None, environ: Mapping[str, str] | None = None, *, rehearsal: bool = False
) -> Loaded:
    """Read and check ``path``, with the variables of ``environ``.

    None means ``default_path`` and the process's environment. A variable that is not there may stand in a
    file ``.env`` beside the configuration, or in one in the working directory, in this order.
    ``ANTIPHON_HOST`` and ``ANTIPHON_PORT`` win over the file's address, ``HOST_OPTION`` and ``PORT_OPTION``
    over them; ``ANTIPHON_KEYS`` (a comma list) adds access keys. ``APP_ID``, ``API_KEY`` and ``API_SECRET``
    are for Spark channels that name no credentials. ``rehearsal``: for keys and addresses whose variable is
    not set, something made up stands in; no upstream can be asked so.

    Blocks on the disk. Raises ConfigError, with all faults at once.
    """
    if environ is None:
        environ = os.environ
    path = path or default_path(environ=environ)
    faults, warnings = Faults(str(path)), Faults(str(path))
    variables, env_files = _variables(path, environ, faults)
    data, others_can_read = _read(path, faults)
    root = None if data is None else parse(data, faults)
    if root is None and faults.found:
        raise ConfigError(_in_order(faults))
    if root is None or (isinstance(root, Scalar) and root.tag == "null"):
        faults.add(None, (), "is empty; it has to name at least one channel, see docs/config.md")
    stood_in = stand_ins(root, variables) if rehearsal and root is not None else {}
    if root is not None:
        substitute(root, (), variables | stood_in, faults)
    accuracies = None if root is None else put_in_weights(root, path.parent, faults)
    reader = Reader(faults, Settings)
    settings: Settings = reader.read(root)
    unread = frozenset(faults.paths)
    settings, origins = _override(settings, reader, variables | stood_in, faults)
    found = Findings(
        settings, root, reader.paths, faults, warnings, origins, frozenset(reader.unknown), unread
    )
    check_server(found)
    check_uploads(found)
    check_channels(found, others_can_read=others_can_read)
    check_routing(found, others_can_read=others_can_read)
    check_names(found)
    check_cache(found)
    check_access(found, others_can_read=others_can_read)
    if faults.found:
        raise ConfigError(_in_order(faults))
    files = (path, *env_files, *([accuracies] if accuracies is not None else []))
    return Loaded(_with_full_times(settings), _in_order(warnings), files, tuple(stood_in))


def _read(path: Path, faults: Faults) -> tuple[bytes | None, bool]:
    """The file's bytes, and whether other users of this machine may read them too."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            return file.read(MAX_FILE_BYTES + 1), os.name == "posix" and bool(mode & 0o044)
    except FileNotFoundError:
        faults.add(None, (), "there is no such file; another one is named by --config or ANTIPHON_CONFIG")
    except IsADirectoryError:
        faults.add(None, (), "is a directory, not a file")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name is not valid"
        faults.add(None, (), f"cannot be read: {reason}")
    return None, False


def _first(variables: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The first of these variables that says something, and what it says."""
    return next(((name, said) for name in names if (said := variables.get(name, "").strip())), ("", ""))


def _in_order(faults: Faults) -> list[Fault]:
    once = dict.fromkeys(faults.found)
    return sorted(once, key=lambda fault: (fault.file != faults.file, fault.line, fault.column))


def _variables(
    path: Path, environ: Mapping[str, str], faults: Faults
) -> tuple[dict[str, str], tuple[Path, ...]]:
    """What ``${NAME}`` may name, and the .env files it came from; the one beside ``path`` wins."""
    variables: dict[str, str] = {}
    read: list[Path] = []
    files = [Path(".env"), path.parent / ".env"]
    if files[0].absolute() == files[1].absolute():
        files.pop()
    for file in files:
        try:
            if not file.is_file():
                continue  # a folder .env is somebody's virtual environment
            with file.open("rb") as opened:
                text = opened.read(MAX_FILE_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            faults.add(None, (), "must be UTF-8 text", file=str(file))
        except OSError as error:
            faults.add(None, (), f"cannot be read: {error.strerror}", file=str(file))
        else:
            # Not interpolated: a secret may hold a $.
            values = dotenv_values(stream=io.StringIO(text), interpolate=False)
            variables |= {name: value for name, value in values.items() if value is not None}
            read.append(file)
    return variables | dict(environ), tuple(reversed(read))


def _override(
    settings: Settings, reader: Reader, variables: Mapping[str, str], faults: Faults
) -> tuple[Settings, dict[KeyPath, str]]:
    """Put the environment's address and keys over the file's; say which values came from there."""
    server, access = settings.server, settings.access
    origins: dict[KeyPath, str] = {}
    source, host = _first(variables, HOST_OPTION, HOST)
    if host:
        server = msgspec.structs.replace(server, host=host)
        origins["server", "host"] = source
    source, port = _first(variables, PORT_OPTION, PORT)
    if port:
        if re.fullmatch(r"\d{1,5}", port, re.ASCII) and int(port) <= 65535:
            server = msgspec.structs.replace(server, port=int(port))
        else:
            faults.add(None, (), "must be a whole number from 0 to 65535", file=source)
    known = {key.key for key in access.keys}
    names = {key.name for key in access.keys}
    added: list[AccessKey] = []
    for secret in filter(None, map(str.strip, variables.get(KEYS, "").split(","))):
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            faults.add(None, (), "each key must be printable ASCII without blanks", file=KEYS)
        elif secret not in known:
            known.add(secret)
            number = next(n for n in range(len(added) + 1, len(names) + 2) if f"env-{n}" not in names)
            names.add(f"env-{number}")
            added.append(AccessKey(name=f"env-{number}", key=secret))
            reader.paths[id(added[-1])] = ("access", "keys", KEYS)
    if added:
        access = msgspec.structs.replace(access, keys=(*access.keys, *added))
    channels = tuple(_with_credentials(one, reader, variables) for one in settings.channels)
    return msgspec.structs.replace(settings, server=server, access=access, channels=channels), origins


def _with_credentials(channel: Channel, reader: Reader, variables: Mapping[str, str]) -> Channel:
    """A Spark channel that names none of its credentials has those of the older gateways' variables."""
    own = (channel.app_id, channel.api_key, channel.api_secret)
    given = [variables.get(name, "").strip() for name in SPARK]
    if channel.kind != "spark" or own != (None, None, None) or not all(given):
        return channel
    app_id, key, secret = given
    made = msgspec.structs.replace(channel, app_id=app_id, api_key=key, api_secret=secret)
    reader.paths[id(made)] = reader.paths.get(id(channel), ())
    return made


def _with_full_times(settings: Settings) -> Settings:
    """``expires`` with its time and offset, whichever way it was written."""
    keys = tuple(msgspec.structs.replace(key, expires=expiry(key)) for key in settings.access.keys)
    access = msgspec.structs.replace(settings.access, keys=keys)
    return msgspec.structs.replace(settings, access=access)


def describe(settings: Settings, warnings: list[Fault] | None = None) -> str:
    """What would be served, for people: address, keys by name, models, combinations. No secret, no URL."""
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    lines = [f"address       http://{host}:{server.port}/v1"]
    keys = [key.name + (" (disabled)" if key.disabled else "") for key in settings.access.keys]
    nobody = "none: open" + (", on loopback only" if is_loopback(server.host) else "")
    if settings.access.byok:
        keys.append("callers' own Spark credentials")
    lines.append(f"keys          {', '.join(keys) or nobody}")
    lines += _section("channels", [_channel_line(settings, at) for at in range(len(settings.channels))])
    served: dict[str, list[str]] = {}
    for channel in settings.channels:
        for name in channel.served() if channel.enabled else ():
            served.setdefault(name, []).append(channel.name)
    lines += _section("models", [f"{name}  by {', '.join(by)}" for name, by in served.items()])
    lines += _section("combinations", [line for one in settings.combinations for line in _combination(one)])
    lines += _section("aliases", [f"{alias} → {target}" for alias, target in settings.aliases.items()])
    unknown = "404" if settings.unknown_model == "refuse" else f"answered by {settings.default_combination}"
    lines += ["", f"An unknown model is {unknown}."]
    return "\n".join(lines + _section("warnings", [str(warning) for warning in warnings or ()]))


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _channel_line(settings: Settings, at: int) -> str:
    channel = settings.channels[at]
    state = "" if channel.enabled else "  (disabled)"
    count = len(channel.served())
    models = "1 model" if count == 1 else f"{count} models"
    if channel.models == AUTO:
        models = " ".join(("what its upstream lists", *channel.list_only))
    keys = f", {len(channel.api_keys)} keys" if channel.api_keys else ""
    kind = channel.kind if channel.preset is None else f"{channel.kind} (preset {channel.preset})"
    return f"{channel.name}  {kind}, {models}{keys}, priority {channel.priority}{state}"


def _combination(one: Combination) -> list[str]:
    aliases = f"  (also {', '.join(one.aliases)})" if one.aliases else ""
    lines = [f"{one.name}  {one.strategy}{aliases}"]
    if one.strategy == "direct":
        vision = f", images: {one.vision_model}" if one.vision_model else ""
        return [*lines, f"  {one.model}{vision}"]
    for title, members in (("members", one.members), ("images", one.vision_members)):
        if members:
            lines.append(f"  {title:8} {', '.join(_member(at, member) for at, member in enumerate(members))}")
    if one.summary is not None and one.strategy == "synthesize":
        lines.append(f"  summary  {one.summary.model}")
    return lines


def _member(at: int, member: Member) -> str:
    samples = f" ×{member.samples}" if member.samples > 1 else ""
    return f"{member.id or f'm{at + 1}'} {member.model}{samples}"
