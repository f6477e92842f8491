"""One chat is one frame, in the vendor's shape."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest, RequestTooLarge
from server.spark.models import MODELS, SparkModel, fine_tuned
from server.spark.request import end_user_id, request_frame
from tests.spark.spark_chats import CREDENTIALS, USER, chat

LITE, MAX = MODELS["spark-lite"], MODELS["spark-max"]


def frame(model: SparkModel = LITE, uid: str | None = None, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(request_frame(chat(**fields), model, CREDENTIALS, uid=uid).data)
    return made


def test_a_plain_question_is_the_smallest_frame() -> None:
    assert frame(uid="u1", temperature=0.5) == {
        "header": {"app_id": "a1b2c3d4", "uid": "u1"},
        "parameter": {"chat": {"domain": "lite", "temperature": 0.5}},
        "payload": {"message": {"text": [USER]}},
    }


def test_functions_are_sent_only_where_there_are_some() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert frame(MAX, tools=[tool])["payload"]["functions"] == {"text": [{"name": "f", "parameters": {}}]}
    assert "functions" not in frame(MAX, tools=[])["payload"]
    assert "functions" not in frame(LITE)["payload"]


def test_a_fine_tuned_model_sends_its_patch() -> None:
    made = frame(fine_tuned("mine", "service", "res"))
    assert made["header"] == {"app_id": "a1b2c3d4", "patch_id": ["res"]}
    assert made["parameter"]["chat"] == {"domain": "service"}


def test_the_response_format_stands_in_the_system_prompt() -> None:
    text = frame(MAX, response_format={"type": "json_object"})["payload"]["message"]["text"]
    assert text[0]["role"] == "system"
    assert "JSON" in text[0]["content"]


def test_the_secret_and_the_key_are_not_in_the_frame() -> None:
    data = request_frame(chat(), LITE, CREDENTIALS).data
    assert CREDENTIALS.api_key.encode() not in data
    assert CREDENTIALS.api_secret.encode() not in data


def test_what_measures_the_answer_goes_with_the_frame() -> None:
    made = request_frame(chat(max_tokens=99_999, stop="x"), LITE, CREDENTIALS)
    assert (made.max_tokens, made.stops) == (4096, ("x",))
    assert request_frame(chat(), MODELS["spark-x1"], CREDENTIALS).max_tokens == 65535


def test_a_frame_above_8_mib_is_a_413() -> None:
    with pytest.raises(RequestTooLarge):
        request_frame(chat({"role": "user", "content": "x" * 8_400_000}), LITE, CREDENTIALS)


def test_half_a_surrogate_pair_in_an_app_id_is_a_400() -> None:
    broken = msgspec.structs.replace(CREDENTIALS, app_id="\ud800")
    with pytest.raises(InvalidRequest, match="surrogate"):
        request_frame(chat(), LITE, broken)


@given(st.none() | st.text(), st.text("0123456789abcdef", min_size=16, max_size=16))
def test_a_uid_has_at_most_32_characters_and_belongs_to_one_call(user: str | None, call: str) -> None:
    uid = end_user_id(user, call)
    assert len(uid) <= 32
    assert uid.endswith(call)


def test_a_short_user_stands_in_the_uid_and_a_uuid_as_a_hash() -> None:
    assert end_user_id("alice", "0123456789abcdef") == "alice-0123456789abcdef"
    uuid = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    assert end_user_id(uuid, "0123456789abcdef") == end_user_id(uuid, "0123456789abcdef")
    assert uuid[:8] not in end_user_id(uuid, "0123456789abcdef")
