"""A request for embeddings as the wires of other dialects read it, and their answer in OpenAI's shape.

Source: OpenAI's API reference (embeddings).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw

from server.chat import JsonObject
from server.deltas import Usage
from server.errors import InvalidRequest, UpstreamInvalid
from server.token_estimates import tokens_of

_VECTOR = msgspec.json.Decoder(list[float])
_INPUT = msgspec.json.Decoder(list[str])
_RAWS = msgspec.json.Decoder(list[Raw])
MOST_TEXTS = 2048
"""So many texts may be in one request, as at OpenAI."""
# What is put into the vendor's own words, or means nothing to anyone but OpenAI.
_KNOWN = ("model", "input", "dimensions", "encoding_format")


class _Fields(msgspec.Struct):
    input: Raw = Raw()
    dimensions: int | None = None
    encoding_format: str | None = None


class _Answer(msgspec.Struct):
    data: list[dict[str, Raw]]
    model: str


_ANSWER = msgspec.json.Decoder(_Answer)


class EmbeddingsAsked(msgspec.Struct, frozen=True):
    """The texts in their order, and how their vectors are wanted.

    ``packed``: as base64 of 32-bit floats, little end first; else as lists of numbers. ``more`` are the
    fields that have no name here, as they came.
    """

    texts: list[str]
    dimensions: int | None
    packed: bool
    more: dict[str, Raw]

    @property
    def size(self) -> int:
        """Tokens that the texts probably are."""
        return sum(map(tokens_of, self.texts))


def read_embeddings(json: JsonObject) -> EmbeddingsAsked:
    """What a client asks for. Raises ``InvalidRequest`` that names the field at fault."""
    try:
        fields = msgspec.json.decode(json.data, type=_Fields)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        raise InvalidRequest(f"{words}.", param=place.rstrip("`") or None, code="invalid_type") from error
    if fields.encoding_format not in (None, "float", "base64"):
        raise InvalidRequest("encoding_format is float or base64.", param="encoding_format")
    return EmbeddingsAsked(
        texts=_texts(bytes(fields.input)),
        dimensions=fields.dimensions,
        packed=fields.encoding_format == "base64",
        more={name: Raw(raw) for name, raw in _others(json) if raw != b"null"},
    )


def _others(json: JsonObject) -> Iterator[tuple[str, bytes]]:
    for name in json:
        if name not in _KNOWN and (raw := json.raw(name)) is not None:
            yield name, raw


def _texts(raw: bytes) -> list[str]:
    if raw in (b"", b"null"):
        raise InvalidRequest(
            "input is missing; give a text or a list of texts.",
            param="input",
            code="missing_required_parameter",
        )
    if raw.startswith(b'"'):
        texts = [msgspec.json.decode(raw, type=str)]
    else:
        try:
            texts = _INPUT.decode(raw)
        except msgspec.ValidationError as error:
            if raw.lstrip(b"[ \t\r\n")[:1].isdigit():
                raise InvalidRequest(
                    "This model's vendor takes texts and no tokens; send input as a text or a list of texts.",
                    param="input",
                    code="unsupported_parameter",
                ) from error
            raise InvalidRequest(
                "input must be a text or a list of texts.", param="input", code="invalid_type"
            ) from error
    if not texts or not all(texts):
        raise InvalidRequest("input holds no text, or an empty one; leave those out.", param="input")
    return texts


def embeddings_answer(
    asked: EmbeddingsAsked, vectors: Sequence[bytes], model: str, prompt_tokens: int | None
) -> bytes:
    """OpenAI's list of embeddings. ``vectors`` are lists of numbers as they came, in the order of the texts.

    ``prompt_tokens`` None: the vendor counts none, and an estimate, marked so, stands in. Raises
    ``UpstreamInvalid`` for what is not one vector for each text.
    """
    if len(vectors) != len(asked.texts):
        raise UpstreamInvalid("The upstream gave another number of embeddings than was asked for.")
    told = [
        {"object": "embedding", "index": at, "embedding": _packed(one) if asked.packed else Raw(one)}
        for at, one in enumerate(vectors)
    ]
    count = asked.size if prompt_tokens is None else prompt_tokens
    usage: dict[str, int | bool] = {"prompt_tokens": count, "total_tokens": count}
    if prompt_tokens is None:
        usage["estimated"] = True
    return msgspec.json.encode({"object": "list", "data": told, "model": model, "usage": usage})


def parts_of(json: JsonObject, most: int) -> list[JsonObject]:
    """The request as several of at most ``most`` texts each, in their order; one or none if it has no more.

    Raises ``InvalidRequest`` for more than ``MOST_TEXTS``.
    """
    raw = json.raw("input") or b""
    if not raw.startswith(b"["):
        return []
    texts = _RAWS.decode(raw)
    if len(texts) > MOST_TEXTS:
        raise InvalidRequest(
            f"input has {len(texts)} texts; send {MOST_TEXTS} at most in a request.", param="input"
        )
    cut = [texts[at : at + most] for at in range(0, len(texts), most)]
    return [JsonObject(json.edit({"input": msgspec.json.encode(part)})) for part in cut]


def joined(answers: Sequence[bytes], usage: Usage) -> bytes:
    """One answer of those of a request's parts, in their order, as ``embeddings_answer`` makes them."""
    read = [_ANSWER.decode(answer) for answer in answers]
    told = [one for answer in read for one in answer.data]
    data = [{**one, "index": at} for at, one in enumerate(told)]
    counted: dict[str, int | bool] = {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.estimated:
        counted["estimated"] = True
    return msgspec.json.encode({"object": "list", "data": data, "model": read[0].model, "usage": counted})


def _packed(vector: bytes) -> str:
    try:
        values = _VECTOR.decode(vector)
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except (msgspec.DecodeError, OverflowError) as error:
        raise UpstreamInvalid("The upstream's embeddings are no lists of numbers.") from error
