"""What the service's answer is made of, whole or as an event of a stream, as far as it is read."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from server.gemini_wire.errors import Fault


class FunctionCall(msgspec.Struct):
    """A call, always whole. ``args`` is a JSON object, or absent."""

    name: str
    args: Raw = Raw()
    id: str | None = None


class Blob(msgspec.Struct, rename="camel"):
    """Bytes in base64."""

    mime_type: str
    data: str


class FileData(msgspec.Struct, rename="camel"):
    """A file that the service holds."""

    file_uri: str
    mime_type: str = ""


class Code(msgspec.Struct):
    """A program that the service is about to run."""

    code: str = ""
    language: str = ""


class Outcome(msgspec.Struct):
    """What became of it: ``OUTCOME_OK`` and what it wrote, or what went wrong."""

    outcome: str = ""
    output: str = ""


class Part(msgspec.Struct, rename="camel"):
    """A piece of what is said. ``thought``: of what is thought. It may be nothing but a signature."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    executable_code: Code | None = None
    code_execution_result: Outcome | None = None


class Content(msgspec.Struct):
    """What one candidate says; its parts are kept as they came, for those that are only passed on."""

    parts: list[Raw] | None = None


class Token(msgspec.Struct, rename="camel"):
    """A token, and how probable it was."""

    token: str = ""
    log_probability: float = 0.0


class Ranking(msgspec.Struct):
    """The tokens that were most probable at one place, the most probable first."""

    candidates: list[Token] | None = None


class Probabilities(msgspec.Struct, rename="camel"):
    """Of what was said with them: token by token, what was chosen and what might have been."""

    chosen_candidates: list[Token] | None = None
    top_candidates: list[Ranking] | None = None


class Candidate(msgspec.Struct, rename="camel"):
    """One of the answers, as far as it is read; ``CANDIDATE`` names what is."""

    index: int | None = None
    content: Content | None = None
    finish_reason: str | None = None
    logprobs_result: Probabilities | None = None


CANDIDATE = frozenset({"index", "content", "finishReason", "logprobsResult"})


class Feedback(msgspec.Struct, rename="camel"):
    """What the service thinks of the prompt."""

    block_reason: str | None = None


class Said(msgspec.Struct, rename="camel"):
    """The whole body of a plain answer, or one event of a stream: an answer, or an error.

    The usage is kept as it came: it is in every event, and only the last one counts.
    """

    candidates: list[Raw] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Raw = Raw()
    error: Fault | None = None


decode_candidate = msgspec.json.Decoder(Candidate).decode
decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
decode_part = msgspec.json.Decoder(Part).decode
decode_said = msgspec.json.Decoder(Said).decode
decode_list = msgspec.json.Decoder(list[Said]).decode
