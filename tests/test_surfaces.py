"""What a channel offers, and requests that can be sent again under any name."""

from __future__ import annotations

from typing import Any

import pytest

from server.chat import JsonObject
from server.multipart import FormScanner
from server.settings import Channel, ChannelModel, Uploads
from server.spool import Spool, UploadRoom
from server.surface_settings import SurfaceName
from server.surfaces import (
    EMBEDDINGS,
    SURFACES,
    AnswerHead,
    FormRequest,
    JsonRequest,
    Upload,
    chat_models,
    media_type,
    offers,
)


@pytest.mark.parametrize(
    ("kind", "of_channel", "of_model", "surface", "offered"),
    [
        ("openai", None, None, "chat", True),
        ("openai", None, None, "speech", True),
        ("openai", ("chat",), None, "speech", False),
        ("openai", ("chat",), ("speech",), "speech", True),
        ("openai", ("chat",), ("speech",), "chat", False),
        ("openai", ("speech",), None, "chat", False),
        ("anthropic", None, None, "chat", True),
        ("anthropic", None, None, "embeddings", False),
        ("local", None, None, "embeddings", False),
        ("spark", None, None, "images", False),
    ],
)
def test_what_is_offered_is_said_by_the_model_then_the_channel_then_the_kind(
    kind: Any, of_channel: Any, of_model: Any, surface: SurfaceName, offered: bool
) -> None:
    channel = Channel(name="c", kind=kind, models=("m",), surfaces=of_channel)
    assert offers(channel, ChannelModel(surfaces=of_model), surface) is offered


def test_the_models_that_take_chats_keep_their_order() -> None:
    models = {"b": ChannelModel(), "e": ChannelModel(surfaces=("embeddings",)), "a": ChannelModel()}
    assert chat_models(Channel(name="c", kind="openai", models=models)) == ["b", "a"]


def test_every_path_stands_once() -> None:
    paths = [one.path for one in SURFACES]
    assert len(set(paths)) == len(paths)


def test_a_json_request_is_the_same_bytes_under_its_own_name() -> None:
    data = b'{"input":[1.0, 2],"model":"m"}'
    request = JsonRequest(EMBEDDINGS, "m", JsonObject(data))
    assert request.body("m") is data
    assert request.body('th"ey') == data.replace(b'"m"', b'"th\\"ey"')
    assert (
        JsonRequest(EMBEDDINGS, "m", JsonObject(b'{"input":"a"}')).body("t") == b'{"input":"a","model":"t"}'
    )


async def whole(upload: Upload) -> bytes:
    data = b"".join([piece async for piece in upload.pieces()])
    assert len(data) == upload.size
    return data


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_form_can_be_sent_again_and_under_another_name(size: int) -> None:
    data = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"a" * size
    data += b'\r\n--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    form, room = FormScanner("x"), UploadRoom()
    spool = Spool(Uploads(), room)
    form.feed(data)
    await spool.add(data)
    await spool.finish()
    surface = next(one for one in SURFACES if one.form)
    request = FormRequest(surface, "m", "multipart/form-data; boundary=x", form, spool)
    assert request.size == len(data)
    for name in ("m", "another", "模型", "m"):
        assert await whole(request.body(name)) == data.replace(
            b"\r\nm\r\n", b"\r\n" + name.encode() + b"\r\n"
        )
    spool.close()
    assert room.taken == 0


def test_media_types_are_read_without_their_parameters() -> None:
    assert media_type(" Audio/MPEG ; x=y") == "audio/mpeg"
    assert AnswerHead(200, "text/event-stream; charset=utf-8").is_events
    assert not AnswerHead(200, "audio/mpeg").is_events
