"""The embedded model's own process: llama.cpp behind OpenAI's HTTP on a loopback port.

Run by ``local_process.py`` as ``python -m server.upstreams.local_child``. A native crash or a busy loop ends
here and not in the server. It talks to its parent over two pipes, so that nothing shows in the arguments:

- standard input: one line of JSON, the ``path`` of a GGUF file, ``threads``, ``slots`` and ``context`` (in
  tokens, for each slot). Then nothing; its end is the parent's end, and this process leaves.
- standard output: one line of JSON. ``{"base_url": …, "key": …}`` once the model is loaded and the port
  answers; or ``{"reason": "missing" | "load" | "config", "detail": …}``, after which this process leaves.

It listens on 127.0.0.1, on a port that the system chooses, and asks for the key in all but ``/health``.
llama.cpp's log goes nowhere. SIGTERM ends it at once: it holds nothing that wants saving.

What its callers must know of llama.cpp's HTTP, as measured: a plain request is computed to its end, even if
its connection closes, so ask for streams only. A stream is dropped when a write fails; while the prompt is
read nothing is written, unless ``return_progress`` asks for chunks about that (``prompt_progress``, one for
each ``BATCH_TOKENS``). After a stream the connection closes, though the answer promised to keep it.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import Any

CONFIG_BYTES = 65536
# Tokens of a prompt that are read in one go. A request can be dropped, and the other slots get a token,
# between two of these, so it is short: 64 read as fast as 512 on one thread, 32 cost a quarter.
BATCH_TOKENS = 64
PR_SET_PDEATHSIG = 1


class _Refused(Exception):
    """The model cannot be served; ``reason`` is the word for the parent."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def main() -> int:
    """Serve until the parent ends; return the exit status when there is nothing to serve."""
    # Ctrl-C in a terminal reaches the whole group; when to stop is for the parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    report = _take_over_output()
    try:
        config = _config(_read_line(sys.stdin.fileno()))
        parent_is_gone = _watch_parent(sys.stdin.fileno())
        key = secrets.token_urlsafe(32)
        server = _serve(config, key)  # held until the end: its destructor would close the port
        _report(report, {"base_url": f"{server.listening_address}/v1", "key": key})
    except _Refused as refusal:
        _report(report, {"reason": refusal.reason, "detail": str(refusal)})
        return 1
    parent_is_gone.join()
    return 0


def _die_with_parent() -> None:
    """Ask Linux to end this process with its parent, also while llama.cpp holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _take_over_output() -> int:
    """Return a descriptor of the real standard output; what llama.cpp prints goes nowhere from now on."""
    report = os.dup(sys.stdout.fileno())  # not inherited by anyone
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return report


def _report(descriptor: int, words: dict[str, str]) -> None:
    with open(descriptor, "wb") as pipe:
        pipe.write(json.dumps(words).encode() + b"\n")


def _read_line(descriptor: int) -> bytes:
    """Return the first line, unbuffered, so that the watcher may read the same descriptor after it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(descriptor, 4096)
        line += piece
        if not piece or len(line) > CONFIG_BYTES:
            raise _Refused("config", "no configuration on standard input")
    return bytes(line)


def _config(line: bytes) -> dict[str, Any]:
    """Check the parent's line: ``path`` is a string, the rest are positive integers."""
    try:
        config = json.loads(line)
    except ValueError as error:
        raise _Refused("config", "the configuration is not JSON") from error
    if not isinstance(config, dict) or not isinstance(config.get("path"), str):
        raise _Refused("config", "path must be a string")
    for name in ("threads", "slots", "context"):
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _Refused("config", f"{name} must be an integer above 0")
    return config


def _watch_parent(descriptor: int) -> threading.Thread:
    """Start the thread that ends this process at the end of its input."""

    def wait() -> None:
        while os.read(descriptor, 4096):
            pass
        # Not sys.exit: the main thread may be deep in llama.cpp.
        os._exit(0)

    watcher = threading.Thread(target=wait, name="parent-watcher", daemon=True)
    watcher.start()
    return watcher


def _serve(config: dict[str, Any], key: str) -> Any:
    """Load the model and open the port; return llama.cpp's server, which runs on threads of its own."""
    try:
        import xllamacpp as llama
    except ImportError as error:
        raise _Refused("missing", str(error)) from error
    if not Path(config["path"]).is_file():
        raise _Refused("load", "there is no such file")
    try:
        return llama.Server(_parameters(llama, config, key))
    except RuntimeError as error:  # all that it raises, and without saying why
        raise _Refused("load", "llama.cpp cannot load it: damaged, no GGUF, or not enough memory") from error


def _parameters(llama: Any, config: dict[str, Any], key: str) -> Any:
    """llama.cpp's parameters: its defaults where they fit a server of one model beside another process."""
    parameters = llama.CommonParams()
    parameters.model.path = config["path"]
    parameters.model_alias = {"local"}
    parameters.n_parallel = config["slots"]
    parameters.n_ctx = config["slots"] * config["context"]  # shared out evenly
    parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
    parameters.cpuparams.n_threads = config["threads"]
    parameters.cpuparams_batch.n_threads = config["threads"]
    parameters.fit_params = False  # it would shrink what was asked for without a word
    parameters.cache_ram_mib = 0  # by default prompts are kept in up to 8 GiB
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [key]
    # Each open connection holds one of these threads, an idle one too.
    parameters.n_threads_http = 2 * config["slots"] + 8
    parameters.ui = False
    parameters.endpoint_slots = False  # it would show prompts
    parameters.offline = True
    parameters.verbosity = 0
    return parameters


if __name__ == "__main__":
    sys.exit(main())
