"""The table of models is the vendor's; names of older gateways still find theirs."""

from __future__ import annotations

import pytest

from server.errors import InvalidRequest, ModelNotFound
from server.spark.models import MODELS, assistant, canonical_name, find_model, fine_tuned, with_overrides


@pytest.mark.parametrize(
    ("name", "path", "domain"),
    [
        ("spark-lite", "spark-api.xf-yun.com/v1.1/chat", "lite"),
        ("spark-v2", "spark-api.xf-yun.com/v2.1/chat", "generalv2"),
        ("spark-pro", "spark-api.xf-yun.com/v3.1/chat", "generalv3"),
        ("spark-pro-128k", "spark-api.xf-yun.com/chat/pro-128k", "pro-128k"),
        ("spark-max", "spark-api.xf-yun.com/v3.5/chat", "generalv3.5"),
        ("spark-max-32k", "spark-api.xf-yun.com/chat/max-32k", "max-32k"),
        ("spark-ultra", "spark-api.xf-yun.com/v4.0/chat", "4.0Ultra"),
        ("spark-x1", "spark-api.xf-yun.com/v1/x1", "spark-x"),
        ("spark-x1-preview", "spark-api.xf-yun.com/v1/reasoner-x1-preview", "x1"),
        ("spark-x2", "spark-api.xf-yun.com/x2", "spark-x"),
        ("spark-kjwx", "spark-openapi-n.cn-huabei-1.xf-yun.com/v1.1/chat_kjwx", "kjwx"),
        ("spark-multilang", "spark-api-n.xf-yun.com/v1.1/chat_multilang", "multilang"),
        ("spark-vision", "spark-api.cn-huabei-1.xf-yun.com/v2.1/image", "imagev3"),
    ],
)
def test_each_model_has_its_address_and_domain(name: str, path: str, domain: str) -> None:
    model = find_model(name)
    assert (model.url, model.domain) == (f"wss://{path}", domain)


def test_what_is_retired_says_what_to_use() -> None:
    retired = {name: model.retired for name, model in MODELS.items() if model.retired}
    assert set(retired) == {"spark-v2", "spark-x1-preview"}
    assert all("use spark-" in note for note in retired.values())


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("spark-api", None, "spark-lite"),
        ("spark-api", "v1.1", "spark-lite"),
        ("spark-api", "v2.1", "spark-pro"),
        ("spark-api", "v3.1", "spark-pro"),
        ("spark-api-v1.1", None, "spark-lite"),
        ("spark-api-v2.1", None, "spark-pro"),
        ("spark-api-v3.1", None, "spark-pro"),
        ("spark-chat-v1.5", None, "spark-lite"),
        ("spark-chat-v2", None, "spark-pro"),
        ("spark-chat-v3", None, "spark-pro"),
        ("spark-chat-v3.5", None, "spark-max"),
        ("spark-chat-v4", None, "spark-ultra"),
        ("spark-chat-vision", None, "spark-vision"),
        ("vision", None, "spark-vision"),
        ("spark-x", None, "spark-x1"),
        ("spark-max", "v1.1", "spark-max"),  # version belongs to spark-api alone
        ("other", None, "other"),
    ],
)
def test_names_of_older_gateways_are_understood(name: str, version: str | None, expected: str) -> None:
    assert canonical_name(name, version) == expected


@pytest.mark.parametrize("version", ["v9", "", "3.1"])
def test_a_version_that_never_was_is_a_clear_400(version: str) -> None:
    with pytest.raises(InvalidRequest, match=r"v1\.1, v2\.1, v3\.1") as caught:
        canonical_name("spark-api", version)
    assert caught.value.param == "version"


def test_an_unknown_model_is_a_404_that_names_the_known() -> None:
    with pytest.raises(ModelNotFound, match="spark-ultra"):
        find_model("gpt-4")


def test_a_model_can_be_changed_and_added() -> None:
    models = with_overrides(
        {
            "spark-lite": {"system": True, "max_tokens": 2048},
            "mine": {"url": "ws://127.0.0.1:1/v1.1/chat", "domain": "lite"},
            "max-two": {"like": "spark-max", "url": "wss://h/v3.5/chat"},
        }
    )
    assert models["spark-lite"].system
    assert models["spark-lite"].domain == "lite"
    assert not MODELS["spark-lite"].system
    assert find_model("mine", models=models).url.endswith("/v1.1/chat")
    assert models["max-two"].functions


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "wss://h/p"}, "url and domain"),
        ({"like": "spark-9"}, "spark-9"),
        ({"like": "spark-max", "colour": 1}, "colour"),
        ({"like": "spark-max", "max_tokens": "many"}, "max_tokens"),
        ({"like": "spark-max", "url": "https://h/p"}, "wss://"),
    ],
)
def test_a_wrong_change_names_the_model_and_the_fault(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=f"mine.*{why}"):
        with_overrides({"mine": fields})


def test_a_fine_tuned_model_has_its_service_as_domain_and_its_resource_as_patch() -> None:
    model = fine_tuned("mine", "xservice", "123")
    assert (model.domain, model.patch_id, model.client_closes) == ("xservice", ("123",), True)
    assert fine_tuned("mine", "xservice").patch_id == ()


def test_an_assistant_has_an_address_of_its_own_and_no_domain() -> None:
    model = assistant("mine", "abc")
    assert (
        model.url,
        model.domain,
    ) == ("wss://spark-openapi.cn-huabei-1.xf-yun.com/v1/assistants/abc", None)
