"""The vendor's table of paths, domains and abilities, as the simulator plays it."""

from __future__ import annotations

import pytest

from server.simulators.spark_models import ASSISTANT, FINE_TUNED, HTTP_PATHS, WEBSOCKET_PATHS, model_at


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("/v1.1/chat", "lite"),
        ("/v1.1/chat", "general"),  # until 2024
        ("/v2.1/chat", "generalv2"),
        ("/v3.1/chat", "generalv3"),
        ("/chat/pro-128k", "pro-128k"),
        ("/v3.5/chat", "generalv3.5"),
        ("/chat/max-32k", "max-32k"),
        ("/v4.0/chat", "4.0Ultra"),
        ("/v1.1/chat_kjwx", "kjwx"),
        ("/v1.1/chat_multilang", "multilang"),
        ("/v1/x1", "spark-x"),
        ("/v1/x1", "x1"),
        ("/v1/reasoner-x1-preview", "x1"),
        ("/x2", "spark-x"),
        ("/v2.1/image", "general"),
        ("/v2.1/image", "imagev3"),
        ("/v2.1/image", "image"),
    ],
)
def test_a_path_takes_its_domain(path: str, domain: str) -> None:
    model = model_at(path)
    assert model is not None
    assert domain in model.domains


def test_an_assistant_is_reached_by_its_id_and_takes_no_domain() -> None:
    assert model_at("/v1/assistants/abc123") is ASSISTANT
    assert model_at("/v1/assistants/") is model_at("/v1/assistants/a/b") is None
    assert ASSISTANT.domains == ()


def test_other_paths_lead_nowhere() -> None:
    assert model_at("/v9.9/chat") is None


def test_only_a_fine_tuned_models_client_has_to_close() -> None:
    assert FINE_TUNED.client_closes
    assert not any(model.client_closes for model in WEBSOCKET_PATHS.values())


def test_lite_takes_neither_system_nor_functions_and_max_and_ultra_both() -> None:
    lite = WEBSOCKET_PATHS["/v1.1/chat"]
    assert (lite.system, lite.functions) == (False, False)
    for path in ("/v3.5/chat", "/v4.0/chat"):
        model = WEBSOCKET_PATHS[path]
        assert model.system
        assert model.functions
        assert model.search
        assert model.shows_sources


def test_multilingual_speaks_no_http_and_each_route_has_its_models() -> None:
    assert not any(model.name == "multilang" for models in HTTP_PATHS.values() for model in models)
    assert {path: {model.name for model in models} for path, models in HTTP_PATHS.items()} == {
        "/v1/chat/completions": {"Lite", "Pro", "Pro-128K", "Max", "Max-32K", "4.0 Ultra", "kjwx"},
        "/v2/chat/completions": {"X1.5", "X1 preview"},
        "/x2/chat/completions": {"X2"},
        "/agent/v1/chat/completions": {"X2-Flash"},
    }
