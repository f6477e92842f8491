"""What a simulated OpenAI upstream does with one request: a script, and the ways to spell it.

A script says how an answer is given, not only what it says: each field is a thing that some upstream was seen
doing. Its defaults together are OpenAI's own behaviour. Times are milliseconds. *Chunk* below means a stream
event that carries text, reasoning, refusal or a piece of a tool call; the role, the finish reason and the
usage travel in events of their own, as OpenAI sends them, and are not counted.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Status: TypeAlias = Annotated[int, msgspec.Meta(ge=200, le=599)]

ErrorForm: TypeAlias = Literal[
    "openai",  # {"error": {"message", "type", "param", "code"}}
    "integer",  # the same, the code an integer
    "text",  # {"error": "text"}
    "flat",  # {"code", "message", "data"}
    "msg",  # {"code", "msg"}
    "codes",  # {"error_code", "error_msg"}
    "vllm",  # {"object": "error", "message", "type", "param", "code"}
    "header",  # {"header": {"code", "message", "sid"}}
    "base_resp",  # {"base_resp": {"status_code", "status_msg"}, "choices": null}
    "detail",  # {"detail": [{"loc", "msg", "type"}]}
    "array",  # [{"error": {…}}], the code an integer
    "chunk",  # a chunk with a top-level "error" and the finish reason "error"
    "string",  # "text", in quotes
    "html",
    "empty",
]


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call that the model makes. ``arguments`` is sent as it is, JSON or not."""

    name: str = "get_weather"
    arguments: str = '{"city": "Paris", "unit": "c"}'
    id: str | None = None  # None: call_sim_1, call_sim_2, …


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One answer. All fields are optional; see the module for what *chunk* means."""

    # ── when ──
    delay_ms: Milliseconds = 0  # before the response head
    first_ms: Milliseconds = 0  # after the head, before the first byte of the body
    pace_ms: Milliseconds = 0  # between two chunks
    keep_alive_ms: Milliseconds = (
        0  # while it waits within the body: a comment (plain: a line end) this often
    )
    silent: bool = False  # no answer at all; the connection stays open
    drip_ms: Milliseconds = 0  # the head leaves byte by byte, this far apart
    stall_after: Count | None = None  # falls silent after n chunks; 0: after the head
    stall_at_byte: Count | None = None  # falls silent after n bytes of the body
    stall_ms: Milliseconds | None = None  # goes on after that; None: never

    # ── what it says ──
    text: str | None = None  # None: an echo of the last user message
    chunks: Count | None = None  # in so many chunks; without a text: so many words
    pieces: tuple[str, ...] | None = None  # the chunks exactly; () says nothing
    huge_bytes: Count = 0  # one chunk of so many letters instead
    reasoning: tuple[str, ...] = ()  # chunks of thinking, before the text
    reasoning_field: str = "reasoning_content"
    mixed: bool = False  # reasoning and text in one delta
    refusal: str | None = None  # instead of a text
    tools: tuple[ToolCall, ...] = ()  # calls, after the text if there is one
    tool_pieces: Count = 3  # each call's arguments come in so many pieces
    tool_form: Literal["streamed", "interleaved", "whole", "object"] = "streamed"  # object: one, not a list
    tool_index: bool = True
    images: tuple[str, ...] = ()  # pictures behind the text: data URIs, or links
    spoken: str | None = None  # said aloud behind the text, with a sound
    annotations: tuple[dict[str, Any], ...] = ()  # sources behind the text
    function_call: ToolCall | None = None  # a call of the form that tools have replaced
    found: dict[str, Any] = {}  # fields beside the choices, as those who search the web put them there
    finish: str | None = None  # None: stop, or tool_calls
    n: Count | None = None  # choices; None: as asked
    logprobs: bool | None = None  # None: as asked
    answer_model: str | None = None  # None: as asked

    # ── how a stream tells it ──
    role: Literal["first", "every", "never"] = "first"
    finish_form: Literal["own", "last", "missing"] = "own"  # last: within the last chunk
    no_finish: Literal["null", "empty", "absent"] = "null"  # finish_reason before the finish
    usage: Literal["asked", "always", "every", "with_finish", "in_choices", "zero", "never"] = "asked"
    ids: Literal["same", "changing", "absent"] = "same"
    created: bool = True
    message_last: bool = False  # the whole message once more, beside the finish reason
    filter_first: bool = False  # an event with `choices: []` comes first
    extras: bool = False  # unknown fields at every level
    big_integers: bool = False  # numbers beyond 64 bits, and ones that a parser would rewrite
    line_end: Literal["lf", "crlf", "cr", "mixed"] = "lf"
    space: bool = True  # after "data:"
    bom: bool = False
    multiline: bool = False  # an event's JSON over several data: lines
    event_name: str | None = None  # an event: line with each event
    event_ids: bool = False  # an id: line with each event
    retry: Count | None = None  # a retry: line first
    comment: str = "keep-alive"
    comments_first: Count = 0
    comments_between: bool = False
    inject: dict[int, str] = {}  # raw text, as it is, after so many chunks; 0: first of all
    done: Count = 1  # how many [DONE]
    after_done: str = ""  # raw text behind it
    last_blank_line: bool = True
    join: Annotated[int, msgspec.Meta(ge=1)] = 1  # so many events in one write, without the pace between
    split_at: Count | tuple[int, ...] = 0  # each write in parts of n bytes; or cut at these bytes of the body
    split_ms: Milliseconds = 0  # between two parts; 0: a few turns of the loop

    # ── errors ──
    status: Status = 200  # 400 and above: an error body
    error_form: ErrorForm = "openai"
    error_after: Count | None = None  # an error within a 200, after n chunks; 0: instead of an answer
    error_event: bool = False  # with a line `event: error`
    error_done: bool = False  # and [DONE] behind it
    error_message: str | None = None  # None: what OpenAI says at this status; so for the next two
    error_type: str | None = None
    error_code: str | int | None = None
    error_param: str | None = None
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None  # seconds
    retry_after_form: Literal["seconds", "date", "ms", "both"] = "seconds"  # ms: retry-after-ms
    redirect: str | None = None  # Location, with status 307 unless one is given
    refuse_fields: tuple[str, ...] = ()  # 400 if the request has one of these
    needs_stream: bool = False  # 400 unless a stream is asked for

    # ── HTTP ──
    answer_as: Literal["asked", "json", "sse"] = "asked"
    body: str | None = None  # the body exactly, instead of any other
    body_bytes: Count = 0  # the body is padded with blanks to so many bytes, made while it is sent
    leading: str = ""  # before a plain body, such as blank lines
    content_type: str | None = None  # "": none
    headers: dict[str, str | None] = {}  # added or replaced; null: left out
    encoding: Literal["identity", "gzip", "deflate"] = "identity"
    framing: Literal["auto", "chunked", "length", "close"] = "auto"  # auto: chunked streams, lengths else
    length_extra: int = 0  # Content-Length promises so many bytes more
    final_chunk: bool = True  # False: closed without the last, empty HTTP chunk
    cut_after: Count | None = None  # ends after n chunks; 0: after the head
    cut_at_byte: Count | None = None  # ends after n bytes of the body
    cut_head_at: Count | None = None  # ends after n bytes of the head; 0: no answer
    cut: Literal["fin", "rst", "clean"] = "fin"  # clean: the HTTP body ends in good order
    http: Literal["1.1", "1.0"] = "1.1"
    status_line: str | None = None  # the first line exactly, without its end
    interim: tuple[Annotated[int, msgspec.Meta(ge=100, le=199)], ...] = ()  # 1xx answers before the real one
    connection: Literal["keep", "close", "drop"] = "keep"  # close: said and done; drop: done, not said


S = TypeVar("S", bound=Script)


class BadScript(ValueError):
    """A script that cannot be read; the text says where it is wrong."""


def read_script(data: bytes | str, kind: type[S]) -> S:
    """The script of this kind that a JSON object spells. Raises BadScript."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadScript(f"a simulator script is a JSON object of known fields: {error}") from error


def read_scripts(data: bytes | str, kind: type[S]) -> list[S]:
    """The scripts that a JSON object, or an array of them, spells. Raises BadScript."""
    listed = data.lstrip()[:1] in ("[", b"[")
    try:
        return msgspec.json.decode(data, type=list[kind]) if listed else [read_script(data, kind)]  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadScript(f"a simulator script is a JSON object of known fields: {error}") from error


MESSAGE_LINE = re.compile(r"^sim:[ \t]*(\{.*\})[ \t]*\r?$", re.MULTILINE)


def script_in_message(text: str) -> Script | None:
    """The script in the first line of the form ``sim: {…}``; None without one. Raises BadScript."""
    return script_in_message_as(text, Script)


def script_in_message_as(text: str, kind: type[S]) -> S | None:
    """The same for scripts of another kind. Raises BadScript."""
    found = MESSAGE_LINE.search(text)
    return None if found is None else read_script(found[1], kind)


_NAME = re.compile(r"(?:[^@]*/)?sim((?:-[a-z][0-9]*)*)(?:@.*)?", re.DOTALL)
_LETTER = re.compile(r"-([a-z])([0-9]*)")
# A letter with a number, and the field it sets.
_NUMBERED = {
    "a": "retry_after",
    "b": "cut_at_byte",
    "c": "chunks",
    "d": "pace_ms",
    "e": "status",
    "f": "first_ms",
    "h": "delay_ms",
    "p": "split_at",
    "s": "stall_after",
    "x": "error_after",
    "z": "huge_bytes",
}
_CUTS = {"k": "fin", "r": "rst", "o": "clean"}


def script_in_model(model: str) -> Script | None:
    """The script that a model's name spells; None for a name that spells none. Raises BadScript."""
    if not re.match(r"(?:[^@]*/)?sim(?:-|@|$)", model):
        return None
    spelled = _NAME.fullmatch(model)
    if spelled is None:
        raise BadScript(f"the model name {model!r} does not spell a script; see /sim/help")
    fields: dict[str, object] = {}
    for letter, digits in _LETTER.findall(spelled[1]):
        number = int(digits) if digits else None
        if letter in _NUMBERED and number is not None:
            fields[_NUMBERED[letter]] = number
        elif letter in _CUTS and number is not None:
            fields |= {"cut_after": number, "cut": _CUTS[letter]}
        elif letter == "t" and number is not None:
            fields["tools"] = [{} for _ in range(number)]
        elif letter == "y" and number is not None:
            fields["reasoning"] = words(number, "thought")
        elif letter == "n" and number is None:
            fields["done"] = 0
        elif letter == "q" and number is None:
            fields["silent"] = True
        elif letter == "u" and number is None:
            fields["usage"] = "always"
        else:
            raise BadScript(f"-{letter}{digits} in the model name {model!r} spells nothing; see /sim/help")
    try:
        return msgspec.convert(fields, Script)
    except msgspec.ValidationError as error:
        raise BadScript(f"the model name {model!r} does not spell a script: {error}") from error


def words(count: int, word: str = "word") -> tuple[str, ...]:
    """So many numbered words, all but the first with a blank before it."""
    return tuple(f"{word}{number}" if number == 1 else f" {word}{number}" for number in range(1, count + 1))


HELP = """\
Any model answers "You said: …". Say otherwise, first come first served, by

  1. a queue:           curl -d '{"chunks": 5, "cut_after": 3}' URL/sim/script    (one, or an array of them;
                        ?for=models, embeddings, audio/speech … for that route, ?model=NAME for one
                        model, ?times=N for N requests; -X DELETE empties the queue)
  2. a header:          x-sim: {"status": 429, "retry_after": 2}
  3. the model's name:  sim-c20-d10-f100, see below
  4. a line in the last user message:   sim: {"text": "Good morning", "pace_ms": 50}

The model's name is "sim" and any of these, in any order; NAME@anything is NAME, a/b/NAME is NAME:

  -c20   20 chunks               -k5  cut after 5 chunks       -e429  answer with this HTTP error
  -d10   10 ms between chunks    -r5  the same with a reset    -a3    Retry-After: 3
  -f100  100 ms to the first     -o5  the same, HTTP in order  -x5    error event after 5 chunks (0: first)
  -h100  100 ms to the head      -b99 cut after 99 bytes       -n     no [DONE]
  -s3    silent after 3 chunks   -p7  writes of 7 bytes        -u     usage unasked
  -q     never answers           -z1000000  one huge chunk     -t2    two tool calls     -y4  4 thoughts

See what came: URL/sim/stats, URL/sim/requests. The fields of a script: URL/sim/help
"""


def field_help(script: Script) -> str:
    """The fields of a script, one a line, with what it has there: those of ``Script()`` are the defaults."""
    defaults = msgspec.structs.asdict(script)
    return "".join(f"  {name} = {msgspec.json.encode(value).decode()}\n" for name, value in defaults.items())
