"""OpenAI's chat completions wire, both ways: no socket, no task, no clock.

``request`` takes in what a client sends, ``answer`` what an upstream answers: ``decoder`` its stream,
``plain`` its plain answer, with ``reshaping`` and ``mending`` for what is odd in them. ``encoder`` writes a
stream, ``completion`` a plain answer, ``errors`` the error bodies and ``models`` the list of models.
"""

from server.openai_wire.answer import MAX_ANSWER_BYTES, AnswerReader, decode_whole
from server.openai_wire.completion import Completion, relayed
from server.openai_wire.decoder import ChunkDecoder
from server.openai_wire.details import Details, details_in
from server.openai_wire.encoder import ChunkEncoder, OwnEncoder, usage_json
from server.openai_wire.errors import (
    clean,
    clean_error,
    error_body,
    error_event,
    error_headers,
    is_error_object,
    retry_after,
    upstream_error,
)
from server.openai_wire.kept import Kept, LeftOut, kept_in, sealed, unsealed
from server.openai_wire.models import ModelCard, model_body, models_body
from server.openai_wire.narrowing import narrowed, results_apart
from server.openai_wire.plain import completion_as_chunks, decode_completion
from server.openai_wire.request import model_of, parse_chat, parse_object, read_json

__all__ = [
    "MAX_ANSWER_BYTES",
    "AnswerReader",
    "ChunkDecoder",
    "ChunkEncoder",
    "Completion",
    "Details",
    "Kept",
    "LeftOut",
    "ModelCard",
    "OwnEncoder",
    "clean",
    "clean_error",
    "completion_as_chunks",
    "decode_completion",
    "decode_whole",
    "details_in",
    "error_body",
    "error_event",
    "error_headers",
    "is_error_object",
    "kept_in",
    "model_body",
    "model_of",
    "models_body",
    "narrowed",
    "parse_chat",
    "parse_object",
    "read_json",
    "relayed",
    "results_apart",
    "retry_after",
    "sealed",
    "unsealed",
    "upstream_error",
    "usage_json",
]
