"""One chat as the one frame that Spark is sent."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from server.chat import ChatRequest
from server.errors import InvalidRequest, RequestTooLarge
from server.spark.conversation import shape
from server.spark.models import SparkModel
from server.spark.parameters import (
    SparkOptions,
    adapted,
    functions_of,
    instruction,
    max_tokens,
    parameters,
    stops,
)
from server.spark.signing import Credentials

MAX_UID = 32
MAX_FRAME_BYTES = 8 * 1024 * 1024


class SparkRequest(msgspec.Struct, frozen=True):
    """What is to be sent (``data``: JSON for one text frame), and what its answer is to be measured by.

    ``max_tokens``: an answer of as many tokens was ended by it; None: not known. ``model`` was asked.
    ``warnings`` say in short ASCII words what was left out or changed on the way.
    """

    data: bytes
    max_tokens: int | None
    stops: tuple[str, ...]
    model: SparkModel
    warnings: tuple[str, ...] = ()


def request_frame(
    chat: ChatRequest,
    model: SparkModel,
    credentials: Credentials,
    *,
    uid: str | None = None,
    options: SparkOptions | None = None,
) -> SparkRequest:
    """The frame that asks ``model`` for the answer to ``chat``. ``uid`` is at most 32 characters.

    Images are base64 data URIs by now. Raises ``InvalidRequest`` for what Spark cannot do, and
    ``RequestTooLarge`` for a frame above 8 MiB.
    """
    functions = functions_of(chat, model)
    header: dict[str, Any] = {"app_id": credentials.app_id}
    if uid:
        header["uid"] = uid
    if model.patch_id:
        header["patch_id"] = model.patch_id
    payload: dict[str, Any] = {"message": {"text": shape(chat, model, instruction(chat))}}
    if functions:  # even an empty list fails some models
        payload["functions"] = {"text": functions}
    frame = {
        "header": header,
        "parameter": {"chat": parameters(chat, model, options or SparkOptions(), bool(functions))},
        "payload": payload,
    }
    try:
        data = msgspec.json.encode(frame)
    except UnicodeEncodeError:
        raise InvalidRequest("The request holds half a surrogate pair; send valid Unicode.") from None
    if len(data) > MAX_FRAME_BYTES:
        raise RequestTooLarge(f"The request has {len(data)} bytes; Spark takes {MAX_FRAME_BYTES}.")
    limit = max_tokens(chat, model)
    if limit is None:
        limit = model.default_max_tokens
    return SparkRequest(data, limit, stops(chat), model, adapted(chat, model))


def end_user_id(user: str | None, call: str) -> str:
    """The ``uid`` of one call: ``call``, led by the client's ``user`` where there is room, else its hash.

    Spark refuses a second connection of one uid (10006), so each call has its own; ``call`` is unique and of
    at most 16 characters.
    """
    if not user:
        return call[:MAX_UID]
    room = MAX_UID - len(call) - 1
    who = user if len(user) <= room and user.isascii() else hashlib.sha256(user.encode()).hexdigest()[:room]
    return f"{who}-{call}"
