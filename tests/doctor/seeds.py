"""Deliberate faults of configurations and of the code: which of them does the doctor detect?

    python -m tests.doctor.seeds [NAME …]

prints a line for each. All are examined by the ``doctor`` of a copy of the package, into which a fault of the
code is put by replacing its text. docs/doctor.md has the result.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240

# Enough to meet every promise at least once; without those that last for the total clock.
FAULTS = (
    "no-fault,status-400,status-401,status-402,status-429,status-429-by-date,status-500,status-503-with-time,"
    "html-error,echoed-key-400,connection-refused,slow-connect,tls-good,tls-expired,tls-wrong-name,"
    "closed-before-answer,never-answers,error-in-200,no-words,empty-stream,json-cut-short,bad-json-line,"
    "silent-before-content,only-comments,stall-after-content,cut-before-content,cut-after-content,ended-without-finish,"
    "error-after-content,body-cut,missing-done,split-anywhere,patience-is-kept,dead-for-long"
)
CHANNELS: tuple[dict[str, object], ...] = (
    {"name": "first", "kind": "openai", "base_url": "https://a.example.com/v1", "api_key": "k" * 20,
     "models": ["m"], "priority": 1},
    {"name": "second", "kind": "openai", "base_url": "https://b.example.com/v1", "api_key": "l" * 20,
     "models": ["m"]},
)  # fmt: skip


class Setting(NamedTuple):
    """A configuration: what is put into its first channel, or at its top. ``channels``: so many of them."""

    name: str
    first: Mapping[str, object] = MappingProxyType({})
    top: Mapping[str, object] = MappingProxyType({})
    channels: int = 2


class Patch(NamedTuple):
    """A text of the package, and what stands in its place."""

    name: str
    file: str
    old: str
    new: str


SETTINGS = (
    Setting("connect_s is off", {"timeouts": {"connect_s": 0}}),
    Setting("first_token_s is off", {"timeouts": {"first_token_s": 0}}),
    Setting("idle_s is off", {"timeouts": {"idle_s": 0}}),
    Setting("total_s is off", {"timeouts": {"total_s": 0}}),
    Setting(
        "all time-outs are off",
        {"timeouts": dict.fromkeys(("connect_s", "first_token_s", "idle_s", "total_s"), 0)},
    ),
    Setting("attempts 1", top={"routing": {"attempts": 1}}),
    Setting("attempts 1 for the model", top={"routing": {"models": {"m": {"attempts": 1}}}}),
    Setting("the breaker never opens", {"breaker": {"failures": 0, "rate": 0}}),
    Setting("the breaker wants 1000 failures", {"breaker": {"failures": 1000, "rate": 0}}),
    Setting("certificates are not checked", {"tls": {"verify": False}}),
    Setting("the 200 leaves at once", top={"server": {"commit_after_s": 0.05}}),
    Setting("the second channel has weight 0", top={"channels.1": {"weight": 0}}),
    Setting("the second channel is disabled", top={"channels.1": {"enabled": False}}),
    Setting("one channel alone", channels=1),
    Setting(
        "the second channel waits for no room", top={"channels.1": {"max_concurrency": 1, "max_waiting": 0}}
    ),
)

PATCHES = (
    Patch("Retry-After is ignored", "openai_wire/errors.py",
          "    if wait_s is not None and error.status in (429, 503):\n        error.retry_after_s = wait_s\n", ""),
    Patch("Retry-After is read as seconds alone", "openai_wire/errors.py",
          "            wait_s = max(0.0, parsedate_to_datetime(value).timestamp() - now())", "            return None"),
    Patch("an empty stream is a success", "openai_wire/decoder.py",
          "        if self._is_empty():\n            raise", "        if False:\n            raise"),
    Patch("a cut is relayed as whole", "openai_wire/decoder.py",
          "if not self.done and any(state.finish is None", "if False and any(state.finish is None"),
    Patch("an upstream's 401 is the client's", "refusals.py",
          "    return UpstreamAuth(\n", "    UpstreamAuth.status = 401\n    return UpstreamAuth(\n"),
    Patch("a 400 is tried again", "errors.py",
          '    status, type, code = 400, "invalid_request_error", "invalid_request_error"\n',
          '    status, type, code = 400, "invalid_request_error", "invalid_request_error"\n    retryable = True\n'),
    Patch("nothing is tried again", "errors.py",
          '    status, code = 502, "upstream_error"\n    retryable = True\n',
          '    status, code = 502, "upstream_error"\n    retryable = False\n'),
    Patch("tried again after the first delta", "routed_model.py",
          "                if spoken:\n                    raise\n", "                spoken = False\n"),
    Patch("the first delta is relayed twice", "routed_model.py",
          "                                yield held\n", "                                yield held\n"
          "                                yield held\n"),
    Patch("no first-token clock", "upstreams/clocks.py",
          "self._first_by = now + timeouts.first_token_s if first else _NEVER", "self._first_by = _NEVER"),
    Patch("no idle clock", "upstreams/clocks.py",
          "self._idle_s = _NEVER if plain or not timeouts.idle_s else timeouts.idle_s", "self._idle_s = _NEVER"),
    Patch("no connect clock", "upstreams/http.py",
          "asyncio.timeout(connect_s or None)", "asyncio.timeout(None)"),
    Patch("keys are left in errors", "openai_wire/errors.py",
          '            text = text.replace(secret, "***")\n    text = _SECRETS.sub("***", text)\n', "            pass\n"),
    Patch("the breaker never opens", "routing/breaker.py",
          "        if not (trial or self._too_many()):", "        if True:"),
    Patch("the sick channel is asked again before another", "routed_model.py",
          "candidate = self._chooser.choose(now, but=self._done_with(failed, call, now))",
          "candidate = last.candidate if len(failed) < 2 else self._chooser.choose(now)"),
    Patch("attempts are not counted", "routed_model.py",
          "len(failed) + call.resent >= (call.attempts or routing.attempts)", "len(failed) >= 9"),
    Patch("certificates are not checked", "upstreams/http.py",
          "    if not tls.verify:\n", "    if True:\n"),
    Patch("an error within a 200 is no error", "openai_wire/decoder.py",
          "        if chunk.error is not UNSET and bytes(chunk.error) not in NO_ERROR:\n            raise",
          "        if False:\n            raise"),
    Patch("a stream that failed ends with [DONE]", "openai_wire/errors.py",
          r'    return b"data: " + error_body(error) + b"\n\n"',
          r'    return b"data: " + error_body(error) + b"\n\ndata: [DONE]\n\n"'),
    Patch("an upstream's HTML is shown", "openai_wire/errors.py",
          "    if fault is not None:\n        error.upstream_code",
          '    if fault is None and b"<html" in body:\n        error.message = body.decode()\n'
          "    if fault is not None:\n        error.upstream_code"),
    Patch("the upstream is not closed after a time-out", "upstreams/exchange.py",
          "        if self._answer is not None:\n            self._answer.close()\n", ""),
)  # fmt: skip


def configuration(setting: Setting) -> dict[str, object]:
    """The file that a setting makes of the sound one."""
    channels = [dict(channel) for channel in CHANNELS[: setting.channels]]
    channels[0] |= setting.first
    made: dict[str, object] = {"channels": channels}
    for key, value in setting.top.items():
        if key == "channels.1" and isinstance(value, dict):
            channels[1] |= value
        else:
            made[key] = value
    return made


def examined(folder: Path, made: dict[str, object]) -> str:
    """What the ``doctor`` of the package within ``folder`` says first of a configuration; or that it is silent."""
    file = folder / "examined.yaml"
    file.write_text(yaml.safe_dump(made), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "server", "doctor", str(file), "--only", FAULTS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode not in (0, 1):
        return f"BROKEN: {done.stderr[-300:]}"
    failed = [line.split() for line in done.stdout.splitlines() if "FAIL:" in line]
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    if failed:
        first = failed[0]
        return f"{len(failed)} lines fail, {first[0]} first: {' '.join(first[first.index('FAIL:') + 1 :])}"
    return f"a note alone: {notes[0].removeprefix('note: ')}" if notes else "NOT DETECTED"


def main(names: list[str]) -> None:
    """Print a line for each seed, or for those that are named."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(ROOT / "server", folder / "server", ignore=shutil.ignore_patterns("__pycache__"))
        if not names or "sound" in names:
            print(f"nothing: {examined(folder, configuration(Setting('sound')))}", flush=True)
        for setting in SETTINGS:
            if not names or setting.name in names:
                print(f"| {setting.name} | {examined(folder, configuration(setting))} |", flush=True)
        for patch in PATCHES:
            if names and patch.name not in names:
                continue
            file = folder / "server" / patch.file
            before = file.read_text("utf-8")
            if patch.old not in before:
                print(f"| {patch.name} | its text is no longer in {patch.file} |", flush=True)
                continue
            file.write_text(before.replace(patch.old, patch.new), "utf-8")
            print(f"| {patch.name} | {examined(folder, configuration(Setting('sound')))} |", flush=True)
            file.write_text(before, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
