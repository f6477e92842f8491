"""Pictures that the simulated Spark takes and refuses. Their heads are made here; nobody reads more."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from server.simulators.spark import SparkSimulator
from server.simulators.spark_errors import SparkFault
from server.simulators.spark_images import MAX_IMAGE_BYTES, check_image
from tests.simulators.spark_asking import Told, frame, opened, rest

PATH = "/v2.1/image"


def png(width: int, height: int, more: bytes = b"") -> str:
    head = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return base64.b64encode(head + b"\x08\x02\x00\x00\x00" + more).decode()


def jpeg(width: int, height: int) -> str:
    head = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(9)
    return base64.b64encode(head + b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width)).decode()


@pytest.mark.parametrize("make", [png, jpeg])
def test_sides_and_pixels_have_bounds(make: Any) -> None:
    for good in ((50, 50), (6000, 6000), (12800, 100), (2, 1250)):
        check_image(make(*good))
    for width, height, code in ((12801, 100, 10029), (49, 51, 10041), (6001, 6000, 10041), (1, 1, 10041)):
        with pytest.raises(SparkFault) as refused:
            check_image(make(width, height))
        assert refused.value.code == code


@pytest.mark.parametrize(
    "content",
    [
        "",
        "data:image/png;base64," + png(99, 99),
        "not base64!",
        base64.b64encode(b"GIF89a" + bytes(20)).decode(),
        base64.b64encode(b"\xff\xd8\xff").decode(),
        png(99, 99)[:20],
        png(99, 99, bytes(MAX_IMAGE_BYTES)),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(content: str) -> None:
    with pytest.raises(SparkFault) as refused:
        check_image(content)
    assert refused.value.code == 10003


async def ask(texts: list[dict[str, Any]], domain: str = "imagev3") -> Told:
    async with SparkSimulator() as spark, opened(spark, PATH) as ws:
        await ws.send(json.dumps(frame(texts, path=PATH, chat={"domain": domain})))
        return Told([json.loads(one) for one in await rest(ws)], ws.close_code, ws.close_reason)


IMAGE = {"role": "user", "content": png(300, 300), "content_type": "image"}
LARGE = {**IMAGE, "content": png(300, 300, bytes(MAX_IMAGE_BYTES - 100))}
QUESTION = {"role": "user", "content": "what is it", "content_type": "text"}


@pytest.mark.parametrize("domain", ["general", "imagev3", "image"])
async def test_a_picture_of_four_megabytes_gets_an_answer(domain: str) -> None:
    told = await ask([LARGE, QUESTION], domain)
    assert told.text == "You said: what is it"
    assert told.frames[-1]["payload"]["usage"]["text"]["prompt_tokens"] > 273


@pytest.mark.parametrize("texts", [[QUESTION], [QUESTION, IMAGE], [IMAGE], [IMAGE, IMAGE, QUESTION]])
async def test_one_picture_comes_first_and_then_a_question(texts: list[dict[str, Any]]) -> None:
    assert (await ask(texts)).code == 10004
