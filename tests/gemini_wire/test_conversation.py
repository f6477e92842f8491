"""The turns of a chat as Gemini takes them."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest
from server.gemini_wire import model_of
from server.gemini_wire.conversation import NO_SIGNATURE
from tests.gemini_wire.generated import BUDGET, LEVEL, called, request, result, user

PIXEL = "iVBORw0KGgo="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
INLINE = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def shown(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def heard(data: str, form: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def contents(*messages: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request(*messages, **more)[0]["contents"]
    return found


def refusal(*messages: dict[str, Any]) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as raised:
        request(*messages)
    return raised.value.param, raised.value.code


def test_pictures_and_parts_that_nobody_knows_go_back_to_the_model() -> None:
    images = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}},
        "odd",
    ]
    turn = {
        "role": "assistant",
        "content": "Look.",
        "images": images,
        "native_parts": [{"index": 0, "smell": "roses"}],
        "extra_content": {"google": {"thought_signature": "Ej"}},
    }
    body, warnings = request(user("draw"), turn, user("bluer"))
    assert warnings == ()
    assert body["contents"][1]["parts"] == [
        {"text": "Look."},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"smell": "roses", "thoughtSignature": "Ej"},
    ]
    body, _ = request(user("draw"), {"role": "assistant", "content": "x", "images": "odd"}, user("bluer"))
    assert body["contents"][1]["parts"] == [{"text": "x"}]


def test_system_prompts_at_the_start_are_an_instruction_in_order() -> None:
    body, warnings = request(system("one"), {"role": "developer", "content": "two"}, user("hello"))
    assert body["systemInstruction"] == {"parts": [{"text": "one"}, {"text": "two"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "hello"}]}]
    assert warnings == ()


def test_a_later_system_prompt_is_said_at_its_place() -> None:
    body, _ = request(user("a"), assistant("b"), system("be brief"), user("c"))
    assert body["contents"][2]["parts"] == [{"text": "<system>be brief</system>"}, {"text": "c"}]
    assert "systemInstruction" not in body


def test_a_model_that_takes_no_instruction_is_told_by_the_user() -> None:
    gemma = model_of("gemma-3-27b-it")
    body, warnings = request(system("be brief"), user("hello"), assistant("hi"), user("on"), model=gemma)
    assert "systemInstruction" not in body
    assert body["contents"][0] == {"role": "user", "parts": [{"text": "be brief"}, {"text": "hello"}]}
    assert warnings == ("the system prompt was put into the user's first turn",)
    begun, _ = request(system("be brief"), assistant("hi"), model=gemma)
    assert begun["contents"][0]["parts"] == [{"text": "be brief"}, {"text": "Hello."}]
    assert request(user("hello"), model=gemma)[1] == ()


def test_nothing_but_a_system_prompt_is_the_users_turn() -> None:
    body, _ = request(system("one"))
    assert body == {"contents": [{"role": "user", "parts": [{"text": "one"}]}]}


def test_neighbours_of_one_role_are_one_turn_and_empty_texts_are_left_out() -> None:
    texts = [{"type": "text", "text": "b"}, {"type": "text", "text": ""}]
    (turn,) = contents(user("a"), user(""), user(" "), user(texts))
    assert [part["text"] for part in turn["parts"]] == ["a", " ", "b"]


def test_the_first_turn_is_the_users() -> None:
    body, warnings = request(assistant("welcome"), user("hello"))
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert warnings == ("a user's turn was put before the assistant's first",)


def test_parallel_calls_and_their_results_stand_in_one_turn_each_in_one_order_before_words() -> None:
    turns = contents(user("go"), called("c1", "c2"), result("c2", "two"), user("and?"), result("c1", "one"))
    call = {"name": "f", "args": {"a": 1}}
    assert turns[1] == {
        "role": "model",
        "parts": [{"functionCall": {"id": id, **call}} for id in ("c1", "c2")],
    }
    answered = [
        {"functionResponse": {"id": id, "name": "f", "response": {"result": text}}}
        for id, text in (("c1", "one"), ("c2", "two"))
    ]
    assert turns[2] == {"role": "user", "parts": [*answered, {"text": "and?"}]}


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ("fine", {"result": "fine"}),
        ("", {"result": ""}),
        (' {"a": [1]}', {"a": [1]}),
        ('{"a": ', {"result": '{"a": '}),
        ("[1]", {"result": "[1]"}),
        (None, {"result": ""}),
        ([{"type": "text", "text": "x"}, {"type": "text", "text": "y"}], {"result": "x\ny"}),
    ],
)
def test_a_result_is_an_object(content: Any, response: dict[str, Any]) -> None:
    last = contents(user("go"), called("c"), result("c", content))[-1]
    assert last["parts"] == [{"functionResponse": {"id": "c", "name": "f", "response": response}}]


def test_an_image_in_a_result_stands_beside_it() -> None:
    shot = [{"type": "text", "text": "see"}, IMAGE]
    last = contents(user("go"), called("c"), result("c", shot))[-1]
    assert [*last["parts"][0]], last["parts"][1:] == (["functionResponse"], [INLINE])


def test_text_beside_calls_comes_first_and_arguments_keep_every_digit() -> None:
    big = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"n": 1e2}'}}
    turn = contents(user("go"), assistant("wait", tool_calls=[big]), result("c"))[1]
    assert turn["parts"][0] == {"text": "wait"}
    assert turn["parts"][1]["functionCall"]["args"] == {"n": 100.0}


def test_signatures_come_back_where_they_came_from() -> None:
    signed = assistant("hm", extra_content={"google": {"thought_signature": "T=="}})
    turns = contents(
        user("go"), signed, user("on"), called("c1", "c2", signature="E=="), result("c1"), result("c2")
    )
    assert turns[1]["parts"] == [{"text": "hm", "thoughtSignature": "T=="}]
    assert [part.get("thoughtSignature") for part in turns[3]["parts"]] == ["E==", None]


@pytest.mark.parametrize("odd", [None, 7, {}, {"google": None}, {"google": {"thought_signature": 7}}])
def test_other_extra_content_is_no_signature(odd: Any) -> None:
    turns = contents(user("go"), called("c", extra_content=odd), result("c"))
    assert "thoughtSignature" not in turns[1]["parts"][0]


def test_calls_of_this_turn_without_signatures_are_said_to_be_none_of_the_models() -> None:
    history = [
        user("a"),
        called("c1", "c2"),
        result("c1"),
        result("c2"),
        user("b"),
        called("c3"),
        result("c3"),
    ]
    body, warnings = request(*history, called("c4", signature="E=="), result("c4"), model=LEVEL)
    signatures = [
        [part.get("thoughtSignature") for part in turn["parts"]]
        for turn in body["contents"]
        if turn["role"] == "model"
    ]
    assert signatures == [[None, None], [NO_SIGNATURE], ["E=="]]
    assert warnings == ("a tool call came back without its thought signature",)
    assert request(*history, model=BUDGET)[1] == ()


@pytest.mark.parametrize(
    ("part", "made"),
    [
        (IMAGE, INLINE),
        (
            shown(f"data:image/jpg;base64,{PIXEL}"),
            {"inlineData": {"mimeType": "image/jpeg", "data": PIXEL}},
        ),
        (
            shown("https://example.com/a.png"),
            {"fileData": {"fileUri": "https://example.com/a.png"}},
        ),
        (
            heard("UklGRg==", "wav"),
            {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        ),
        ({"type": "file", "file": {"file_id": "files/abc-1"}}, {"fileData": {"fileUri": "files/abc-1"}}),
    ],
)
def test_images_sounds_and_files_are_data_or_places(part: dict[str, Any], made: dict[str, Any]) -> None:
    (turn,) = contents(user([part, {"type": "text", "text": "what is it?"}]))
    assert turn["parts"] == [made, {"text": "what is it?"}]


@pytest.mark.parametrize(
    ("part", "place", "code"),
    [
        ({"type": "video"}, "type", "unsupported_content"),
        (shown("data:image/gif;base64,R0lG"), "image_url.url", "invalid_image"),
        (shown("data:image/png;base64,?"), "image_url.url", "invalid_image"),
        (heard("UklGRg==", "ogg"), "input_audio.format", "unsupported_content"),
        (heard("?", "wav"), "input_audio.data", "unsupported_content"),
        ({"type": "file", "file": {}}, "file.file_data", "unsupported_content"),
        ({"type": "file", "file": {"file_id": "file-abc"}}, "file.file_id", "invalid_value"),
    ],
)
def test_parts_that_cannot_be_had_are_refused_by_their_place(part: Any, place: str, code: str) -> None:
    assert refusal(user([part])) == (f"messages[0].content[0].{place}", code)


def test_an_assistant_shows_no_images() -> None:
    assert refusal(user("a"), {"role": "assistant", "content": [IMAGE]})[0] == "messages[1].content[0].type"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "critic", "content": "a"}], "messages[0].role"),
        ([user("")], "messages"),
        ([user("go"), called("c")], "messages[1].tool_calls"),
        ([user("go"), called("c"), user("?")], "messages[1].tool_calls"),
        ([user("go"), called("c", "c"), result("c")], "messages[1].tool_calls"),
        ([user("go"), called("c", "d"), result("c")], "messages[1].tool_calls"),
        ([user("go"), called("c"), result("c"), result("c")], "messages[2].tool_call_id"),
        ([user("go"), called("c"), result("x")], "messages[2].tool_call_id"),
        ([user("go"), result("c")], "messages[1].tool_call_id"),
        ([user("go"), called("c"), {"role": "tool", "content": "a"}], "messages[2].tool_call_id"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_place(
    messages: list[dict[str, Any]], param: str
) -> None:
    assert refusal(*messages)[0] == param


def test_what_a_message_holds_besides_is_left_out_and_told() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    body, warnings = request(
        {"role": "user", "content": "hello", "name": "Ann"}, {"role": "user", "content": [image]}
    )
    assert body["contents"][0]["parts"][0] == {"text": "hello"}
    assert warnings == ("name of messages was left out", "detail of images was left out")
