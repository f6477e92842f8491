"""The examples that docs/ names: they are there, no kind and no preset lacks one, and each answers."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from PIL import Image

from server.config import load
from server.presets import PRESETS
from server.settings import Channel
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.azure import AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.ollama import OllamaSimulator
from server.simulators.openai import OpenAISimulator
from server.simulators.spark import SparkSimulator
from tests.behaviour.asking import chunks_of, post, text_of
from tests.behaviour.running import QUIET, antiphon, ask

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "conf" / "examples"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
KIND = re.compile(r"kind: (\w+)")
PRESET = re.compile(r'preset: "?([\w-]+)')
SAID = re.compile(r"\b([A-Z][A-Z_]+)=([^\s,…]+[^\s,.…])")


def picture() -> str:
    """As a data URI."""
    out = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def test_every_file_of_conf_that_a_page_names_is_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"conf/[\w./-]+\.yaml", page.read_text("utf-8"))}
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_every_kind_and_every_preset_has_an_example_that_docs_name() -> None:
    page = (ROOT / "docs" / "providers.md").read_text("utf-8")
    named = sorted(set(re.findall(r"conf/[\w./-]+\.yaml", page)))
    text = "".join((ROOT / name).read_text("utf-8") for name in named)
    assert set(get_args(get_type_hints(Channel)["kind"])) <= set(KIND.findall(text))
    assert set(PRESETS) <= set(PRESET.findall(text))


@pytest.mark.parametrize(
    ("name", "simulator"),
    [
        ("anthropic", AnthropicSimulator),
        ("azure", AzureSimulator),
        ("gemini", GeminiSimulator),
        ("ollama", OllamaSimulator),
        ("presets", OpenAISimulator),
        ("spark", SparkSimulator),
    ],
)
async def test_an_example_answers_against_the_simulator_as_it_says(name: str, simulator: Any) -> None:
    path = EXAMPLES / f"{name}.yaml"
    comments = "\n".join(line for line in path.read_text("utf-8").splitlines() if line.startswith("#"))
    async with simulator() as sim:
        port = f":{simulator.default_port}"
        environ = {key: value.replace(port, f":{sim.port}") for key, value in SAID.findall(comments)}
        settings = msgspec.structs.replace(load(path, environ).settings, logging=QUIET)
        models = [model for channel in settings.channels if channel.enabled for model in channel.served()] + [
            one.name for one in settings.combinations
        ]
        assert models
        async with antiphon(settings) as server:
            for model in models:
                parts: list[Any] = [{"type": "text", "text": "hello"}]
                if model.endswith("vision"):  # which takes nothing without one
                    parts.append({"type": "image_url", "image_url": {"url": picture()}})
                body = ask(model) | {"messages": [{"role": "user", "content": parts}]}
                whole = await post(server, body)
                assert whole.status == 200, whole.body
                assert whole.json()["choices"][0]["message"]["content"]
                streamed = await post(server, body | {"stream": True})
                assert text_of(chunks_of(streamed.body)), model
