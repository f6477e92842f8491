"""What a simulated Spark does with one request: the fields of a script that are Spark's own, and their help.

All of ``Script`` may be said as well. On the websocket *chunk* means a frame that carries text, reasoning or
a function call; ``delay_ms``, ``silent``, ``status``, ``body``, ``headers`` and ``cut_head_at``
are about the answer to the handshake, and of the others ``first_ms``, ``pace_ms``, ``stall_after``,
``stall_ms``, ``text``, ``chunks``, ``pieces``, ``huge_bytes``, ``reasoning``, ``mixed``, ``tools`` (only the
first), ``usage`` (never, every, zero), ``extras``, ``inject`` (text frames), ``after_done`` (a text frame
after the last one), ``split_at`` (a number), ``split_ms``, ``join``, ``error_after``, ``error_code``,
``error_message``, ``cut_after`` and ``cut`` (clean: a closing frame) count. On the HTTP routes all count.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from server.simulators.script import Count, Milliseconds, Script


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page that a web search found."""

    title: str = "Simulated"
    url: str = "https://example.com/simulated"


class SparkScript(Script, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One answer of Spark. ``error_code`` is Spark's; the error comes first without ``error_after``."""

    space: bool = False  # Spark writes "data:" without a blank

    # ── what it says ──
    think: bool | None = None  # reasoning without a text for it in the script; None: models that reason do
    sources: tuple[Source, ...] | None = None  # None: two where the request asks to show them
    sid: str | None = None  # None: one that tells the number of the request
    header_message: str = "Success"

    # ── how frames tell it ──
    last_frame: Literal["text", "empty"] = "text"  # the last one carries text, or comes behind it
    last_status: Literal["both", "choices", "header", "missing"] = "both"  # where the last frame says 2
    seq: bool = True
    frames: Literal["text", "binary"] = "text"
    inject_binary: dict[int, str] = msgspec.field(default_factory=dict)  # as inject, in binary frames
    inject_raw: dict[int, str] = msgspec.field(default_factory=dict)  # without a frame; a letter a byte
    fragment: Count = 0  # each message in websocket fragments of n bytes
    ping_ms: Milliseconds = 0  # a ping this often while it answers
    soft_form: Literal["own", "last", "after"] = (
        "own"  # 10019: a frame in place of the last, in it, behind it
    )

    # ── how it ends ──
    close: Literal["model", "frame", "drop", "rst", "never"] = "model"  # model: a frame, or as MaaS never
    close_code: Count = 1000  # 0: a closing frame without a code
    close_reason: str = "close this ws conn"
    close_ms: Milliseconds = 0  # between the last frame and the end

    # ── HTTP ──
    http_error: Literal["status", "top", "event", "maas"] = "status"  # the others within a 200
    http_status: Count | None = None  # of an error; None: as seen for its code
    choice_finish: bool = False  # finish_reason, which MaaS alone says
    call_ids: bool = False  # ids of tool calls


HELP = """\
Any model answers "You said: …". Say otherwise, first come first served, by

  1. a queue:           curl -d '{"chunks": 5, "cut_after": 3}' URL/sim/script    (one, or an array of them;
                        ?for=http for the HTTP routes, ?model=NAME for one model of theirs, ?times=N for N
                        requests; -X DELETE empties the queue). A websocket takes it at the handshake.
  2. a header:          x-sim: {"error_code": 11202}
  3. a line in the last user message:   sim: {"text": "Good morning", "pace_ms": 50}

Some of what a script can say of a websocket's answer:

  {"error_code": 10013}                               an error frame instead of an answer
  {"chunks": 9, "error_code": 10014, "error_after": 3}    after three frames
  {"chunks": 9, "cut_after": 3}                       dropped, no closing frame (1006); "cut": "rst" resets
  {"chunks": 9, "stall_after": 3}                     falls silent; "first_ms": 70000 is late
  {"last_status": "missing", "close": "never"}        no status 2, and silence
  {"inject": {"1": "not json"}}                       garbage; also "inject_binary", "inject_raw"
  {"after_done": "late", "close_ms": 100}             a frame after the last one
  {"close_code": 1011}                                closes so; "close": "drop", "rst", "never"
  {"status": 403, "body": "{}"}                       a refused handshake

Credentials are checked; the clock of the simulator can be wrong on purpose (--clock-offset SECONDS).
See what came: URL/sim/stats, URL/sim/requests. The fields of a script: URL/sim/help
"""
