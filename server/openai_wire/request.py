"""A client's bytes → ChatRequest, or an error that names the field.

Nothing is lost: the bytes are kept, the typed view only checks what is known. What cannot be a fault of the
server is never a 5xx: syntax, types, double keys and absurd nesting are all 400 here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
import orjson

from server.chat import ChatFields, ChatRequest, JsonObject, Message
from server.errors import InvalidRequest
from server.openai_wire.json_text import MAX_DEPTH, is_too_deep

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"
# What others put around a request, or instead of it.
_WRAPPERS = ("body", "data", "request", "payload")
_FIELDS = msgspec.json.Decoder(ChatFields)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<want>[^`]*)`, got `(?P<got>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]*)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_WORDS = {"str": "a string", "int": "an integer", "float": "a number", "bool": "true or false"} | {
    "array": "a list",
    "object": "an object",
    "null": "null",
}
IMAGE_SCHEMES = ("http://", "https://", "data:")


def parse_chat(body: bytes, *, need_model: bool = True) -> ChatRequest:
    """Check and take in the body of a chat request.

    ``need_model=False`` lets a missing, null or empty ``model`` through (``unknown_model: default``).
    Raises ``InvalidRequest`` with the field's place in ``param``.
    """
    body = body.removeprefix(_BOM)
    chat = read_json(body, _read_chat)
    fields = chat.fields
    if need_model and not fields.model:
        raise _missing("model", f"Name a model; GET /v1/models lists them.{_nested(chat)}")
    if not fields.messages:
        raise _missing("messages", f"Send at least one message.{_nested(chat)}")
    if fields.n is not None and fields.n < 1:
        raise InvalidRequest("n must be at least 1.", param="n")
    for place, message in enumerate(fields.messages):
        _check_images(message, place)
    return chat


def parse_object(body: bytes) -> JsonObject:
    """Check and take in a body that is a JSON object of whatever fields. Raises ``InvalidRequest``."""
    return read_json(body.removeprefix(_BOM), JsonObject)


def model_of(json: JsonObject) -> str:
    """The model that a request names; "" if it names none. Raises ``InvalidRequest`` for what is no name."""
    raw = json.raw("model")
    if raw is None or raw == b"null":
        return ""
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.ValidationError:
        raise InvalidRequest("model must be a string.", param="model", code="invalid_type") from None


def read_json(body: bytes, read: Callable[[bytes], T]) -> T:
    """What ``read`` makes of a body that is JSON, its faults told as a client's.

    ``read`` may raise what msgspec's decoders raise. Raises ``InvalidRequest``.
    """
    try:
        _check_text(body)
        return read(body)
    except msgspec.ValidationError as error:  # before DecodeError, which it is a kind of
        raise _invalid_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise _invalid_json(body, error) from None
    except RecursionError:
        raise _too_deep() from None


def _read_chat(body: bytes) -> ChatRequest:
    json = JsonObject(body)
    return ChatRequest(json, _FIELDS.decode(body))


def _check_text(body: bytes) -> None:
    """Refuse what the typed decoder would pass over: bad UTF-8, absurd nesting, lone surrogates."""
    if not body.isascii():
        body.decode()
    if is_too_deep(body):
        raise _too_deep()
    if b"\\u" in body and _SURROGATE.search(body):
        orjson.loads(body)  # refuses a surrogate without its twin


def _check_images(message: Message, place: int) -> None:
    if not isinstance(message.content, list):
        return
    for number, part in enumerate(message.content):
        if part.type != "image_url":
            continue
        param = f"messages[{place}].content[{number}].image_url"
        if part.image_url is None:
            raise _missing(f"{param}.url", "An image part needs image_url.url.")
        if not part.image_url.url.lower().startswith(IMAGE_SCHEMES):
            raise InvalidRequest(
                "image_url.url must begin with http://, https:// or data:.", param=f"{param}.url"
            )


def _nested(chat: ChatRequest) -> str:
    """Advice for who has put the request into a field of another object, as some gateways had it."""
    inner = next((key for key in _WRAPPERS if key in chat.json), None)
    return f" The body is the request itself, not an object with {inner} around it." if inner else ""


def _missing(param: str, advice: str) -> InvalidRequest:
    return InvalidRequest(f"{param} is missing. {advice}", param=param, code="missing_required_parameter")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        f"The request body nests deeper than {MAX_DEPTH} levels; send a flatter one.", code="invalid_json"
    )


def _invalid_json(body: bytes, error: Exception) -> InvalidRequest:
    if not body.strip():
        return InvalidRequest("The request body is empty; send a JSON object.", code="invalid_json")
    if isinstance(error, UnicodeDecodeError):
        where = f"byte {error.start} is not UTF-8"
    elif isinstance(error, orjson.JSONDecodeError):
        where = f"character {error.pos} begins or lacks half of a surrogate pair"
    elif match := _BYTE.search(str(error)):
        where = f"see byte {match[1]}"
    else:
        where = f"it ends too early or holds a broken escape; it has {len(body)} bytes"
    return InvalidRequest(f"The request body is not valid JSON: {where}.", code="invalid_json")


def _invalid_field(text: str) -> InvalidRequest:
    """msgspec's words → ours; the path goes into ``param``."""
    match = _AT.match(text)
    path = (match["path"] or "") if match else ""
    what = match["what"] if match else text
    if missing := _MISSING.search(what):
        return _missing(f"{path}.{missing['field']}".lstrip("."), "Every such object needs it.")
    expected = _EXPECTED.search(what)
    if expected is None:
        return InvalidRequest("The value is out of range.", param=path or None)
    want, got = _words(expected["want"]), _words(expected["got"])
    if not path:
        return InvalidRequest(f"The request body must be {want}, not {got}.", code="invalid_type")
    return InvalidRequest(f"{path} must be {want}, not {got}.", param=path, code="invalid_type")


def _words(types: str) -> str:
    names = [name.strip() for name in types.split("|")]
    wanted = [_WORDS.get(name, name) for name in names if len(names) == 1 or name != "null"]
    return " or ".join(wanted)
