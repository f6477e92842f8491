"""The channels: what each kind wants, and what must hold together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import CHANNEL, Read, channel, faults, reader, warnings

LOCALHOST = Path(__file__).parent / "localhost.pem"
# The key of that file, with a password.
LOCKED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjb65Blph431wICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEPCd9OJ8oer1uxTHwl7oCkkEgZB+
2mMqAHNQTLW82kiajwwMHgDQGS/KqdMlBbFCNi/uf6nH/+XShbSqmLuPgeX2o9+c
7lXbeToXdFMAt8qYLO/vjWPt9edo7AUFuvzMC9MQgW0eREsXg4X2WPdBUjjhOvi8
iDxwDp6IHGeskmHXr4aS/RhdZ8MVg/Wro2hTqX5KX6dL10ahC7GqXfUWIMGmcDo=
-----END ENCRYPTED PRIVATE KEY-----
"""
ANTHROPIC = "name: c, kind: anthropic, api_key: k, models: [a]"
AZURE = "name: c, kind: azure, models: [a], api_key: k, base_url: https://x"
GEMINI = "name: c, kind: gemini, api_key: k, models: [a]"
SPARK = "name: c, kind: spark, app_id: a, api_key: k, api_secret: s"
LENDING = "name: c, kind: spark, models: [spark-max], spark: {client_credentials: true}"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("headers: {'bad name': x}", 'headers["bad name"]: is not a header'),
        ('headers: {x-a: "s3cret\\r\\nx-b: y"}', "headers.x-a: must be one line"),
        ("headers: {Host: x}", "headers.Host: is written by the server itself"),
        ('headers: {x-a: "s3cret\\x07"}', "headers.x-a: must not hold control characters"),
        ("headers: {X-A: s3cret, x-a: t}", "headers.x-a: stands twice: X-A is the same header"),
        ('api_key: "s3cret\\n"', "api_key: must be printable ASCII"),
        ("api_key: ''", "api_key: must not be empty"),
        ("tls: {ca_file: nowhere.pem}", "tls.ca_file: names no file"),
        ("tls: {cert_file: config.yaml}", "tls: cert_file and key_file go together"),
        ("tls: {ca_file: config.yaml}", "tls.ca_file: holds no certificate in PEM"),
        (
            "tls: {cert_file: config.yaml, key_file: config.yaml}",
            "tls.cert_file: holds no certificate in PEM",
        ),
        ("kind: openia", "kind: stands twice"),
    ],
)
def test_a_wrong_channel_is_refused_without_its_secrets(read: Read, change: str, message: str) -> None:
    (found,) = faults(read, channel(change))
    assert f"channels[0].{message}" in found
    assert "s3cret" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: c, kind: openai, models: [a]}", "channels[0].base_url: is missing"),
        ("{name: c, kind: openai, base_url: https://x}", "channels[0].models: lists no model"),
        (
            "{name: c, kind: openai, base_url: https://x, models: [a, a]}",
            "channels[0].models[1]: this model stands twice",
        ),
        (
            "{name: c, kind: openai, base_url: https://x, models: ['']}",
            "models[0]: a model's name must not be empty",
        ),
        ("{name: c, kind: local, models: [a], base_url: https://x}", "base_url: has no use with kind local"),
        ("{name: c, kind: local, models: [a], path: nowhere.gguf}", "path: names no file"),
        ("{name: ' c', kind: local, models: [a]}", "name: a channel's name must be one line"),
        ("{kind: local, models: [a]}", "channels[0].name: is missing"),
        (
            "{name: c, models: [a]}",
            "kind: is missing; it must be anthropic, azure, gemini, local, ollama, openai or spark",
        ),
        ("{name: c, kind: anthropic, models: [a]}", "api_key: is missing; kind anthropic wants a key"),
        (
            f"{{{ANTHROPIC}, surfaces: [embeddings]}}",
            "surfaces: may name chat: channels of kind",
        ),
        (f"{{{ANTHROPIC}, auth: bearer}}", "auth: has no use here; kind anthropic has anthropic.auth"),
        (f"{{{ANTHROPIC}, anthropic: {{beta: ['a,b']}}}}", "anthropic.beta: must be one word"),
        ("{name: c, kind: azure, models: [a], api_key: k}", "base_url: is missing; it is https://NAME"),
        (f"{{{AZURE.replace('api_key: k, ', '')}}}", "api_key: is missing; kind azure wants a key"),
        (f"{{{AZURE}, azure: {{api_version: a b}}}}", "azure.api_version: must be one word"),
        (f"{{{AZURE}, azure: {{token_file: f}}}}", "azure.auth: must be bearer"),
        (
            f"{{{AZURE}, azure: {{auth: bearer, token_file: f, token_command: [c]}}}}",
            "azure.token_command: goes without token_file",
        ),
        ("{name: c, kind: ollama, models: [a], ollama: {num_ctx: 0}}", "ollama.num_ctx"),
        ("{name: c, kind: gemini, models: [a]}", "api_key: is missing; kind gemini wants a key"),
        (f"{{{GEMINI}, gemini: {{version: v1/beta}}}}", "gemini.version: must be one word"),
        (f"{{{GEMINI}, gemini: {{safety: {{FUN: OFF}}}}}}", "gemini.safety"),
        (f"{{{GEMINI}, gemini: {{safety: {{HARASSMENT: LOW}}}}}}", "gemini.safety.HARASSMENT"),
        ("{name: c, kind: spark, models: [spark-max], app_id: a, api_key: k}", "api_secret: is missing"),
        (f"{{{SPARK}, models: [spark-9]}}", "models: Spark has no model spark-9; known are spark-lite"),
        (
            f"{{{SPARK}, models: [spark-max], spark: {{models: {{a: {{like: b}}}}}}}}",
            "spark.models: cannot be used: a: no model 'b' to be like",
        ),
    ],
)
def test_a_channel_has_what_its_kind_wants(read: Read, text: str, message: str) -> None:
    (found,) = faults(read, f"channels: [{text}]")
    assert message in found


def test_certificates_that_can_be_read_are_taken(read: Read) -> None:
    tls = f"tls: {{ca_file: {LOCALHOST}, cert_file: {LOCALHOST}, key_file: {LOCALHOST}}}"
    assert warnings(read, channel(tls)) == []
    off = warnings(read, channel("tls: {ca_file: config.yaml}, enabled: false"))
    assert [one for one in off if "tls" in one] == []


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(read: Read, tmp_path: Path) -> None:
    (tmp_path / "locked.pem").write_text(LOCKED)
    (found,) = faults(read, channel(f"tls: {{cert_file: {LOCALHOST}, key_file: locked.pem}}"))
    assert "tls.cert_file: holds no certificate in PEM that goes with key_file" in found


def test_two_channels_share_no_name(read: Read) -> None:
    text = "channels:\n- {name: c, kind: local, models: [a]}\n- {name: c, kind: local, models: [a]}\n"
    assert faults(read, text) == [
        "3:10: channels[1].name: this channel's name stands twice: another has it already (line 2)"
    ]


def test_a_spark_channel_serves_present_and_older_names(read: Read) -> None:
    assert warnings(read, f"channels: [{{{SPARK}, models: [spark-max, spark-chat-v2, vision]}}]") == []


def test_a_retired_spark_model_is_a_warning(read: Read) -> None:
    (one,) = warnings(read, f"channels: [{{{SPARK}, models: {{old: {{model: spark-v2}}}}}}]")
    assert "spark-v2: The vendor no longer documents Spark 2.0; use spark-pro." in one


def test_what_a_kind_does_not_use_is_a_warning(read: Read) -> None:
    (one,) = warnings(read, channel("slots: 3"))
    assert "channels[0].slots: is not used: it is for kind local" in one
    (one,) = warnings(read, "channels: [{name: c, kind: local, models: [a], proxy: 'http://x:1'}]")
    assert "channels[0].proxy: is not used: it is for kind openai" in one


def test_unchecked_certificates_are_a_warning(read: Read) -> None:
    assert "certificates are not checked" in warnings(read, channel("tls: {verify: false}"))[0]


def test_no_channel_is_a_warning(read: Read) -> None:
    assert warnings(read, "server: {port: 1}") == [
        "1:1: channels: no channel is enabled, so there is no model to ask"
    ]


def test_a_spark_channel_for_callers_credentials_needs_none_of_its_own(read: Read) -> None:
    (channel,) = read(f"channels: [{{{LENDING}}}]").settings.channels
    assert (channel.app_id, channel.api_key, channel.api_secret) == (None, None, None)


def test_the_older_gateways_variables_serve_a_spark_channel_that_names_no_credentials(read: Read) -> None:
    environ = {"APP_ID": "a", "API_KEY": "k", "API_SECRET": "s"}
    text = f"channels: [{{{LENDING}}}, {{{SPARK.replace('name: c', 'name: d')}, models: [spark-max]}}]"
    for one in read(text, environ | {"API_KEY": " k "}).settings.channels:
        assert (one.app_id, one.api_key, one.api_secret) == ("a", "k", "s")
    (found,) = faults(read, f"channels: [{{{LENDING}, app_id: x}}]", environ)[:1]
    assert "is missing" in found
    (lone,) = read(f"channels: [{{{LENDING}}}]", {"APP_ID": "a", "API_KEY": "k"}).settings.channels
    assert lone.app_id is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("set: {temperature: hot}", "params.set.temperature: "),
        ("default: {max_tokens: many}", "params.default.max_tokens: "),
        ("set: {stop: 5}", "params.set.stop: "),
        ("set: {tools: [3]}", "params.set.tools: tools must hold objects"),
        ("set: {top_k: x}", "params.set.top_k: top_k must be an integer"),
        ("set: {thinking: 5}", "params.set.thinking: thinking.type must be"),
        ("set: {response_format: {type: 5}}", "params.set.response_format: response_format.type must be"),
    ],
)
def test_what_a_spark_channel_puts_into_requests_has_the_right_type(
    read: Read, rule: str, message: str
) -> None:
    (found,) = faults(read, f"channels: [{{{SPARK}, models: [spark-max], params: {{{rule}}}}}]")
    assert message in found


AUTO_CHANNEL = CHANNEL.replace("models: [a, b, d]", "models: auto")


def test_models_may_be_whatever_the_upstream_lists(read: Read) -> None:
    assert warnings(read, AUTO_CHANNEL) == []
    assert (
        warnings(read, AUTO_CHANNEL.replace("models:", "list_only: [gpt-*], list_every_s: 60, models:")) == []
    )


@pytest.mark.parametrize("text", [SPARK + ", models: auto", "name: c, kind: local, models: auto"])
def test_a_kind_without_a_list_has_to_name_its_models(read: Read, text: str) -> None:
    found = faults(read, f"channels: [{{{text}}}]")
    assert any("channels[0].models: kind" in one and "name them" in one for one in found)


def test_another_word_than_auto_is_no_list_of_models(read: Read) -> None:
    [found] = faults(read, CHANNEL.replace("models: [a, b, d]", "models: all"))
    assert "channels[0].models: must be" in found


def test_the_address_of_a_vendor_without_its_preset_is_a_warning(read: Read) -> None:
    text = (
        "channels: [{name: c, kind: openai, base_url: 'https://api.openai.com/v1', api_key: k, models: [a]}]"
    )
    assert any("base_url: is the address of preset openai" in one for one in warnings(read, text))
    assert warnings(read, text.replace("kind: openai,", "kind: openai, preset: openai,")) == warnings(
        read, text.replace("https://api.openai.com", "https://llm.example.com")
    )


def test_patterns_without_auto_are_a_warning(read: Read) -> None:
    assert any("list_only: is not used" in one for one in warnings(read, channel("list_only: [gpt-*]")))


def test_a_name_that_may_be_listed_later_is_a_doubt_and_no_fault(read: Read) -> None:
    text = AUTO_CHANNEL + "aliases: {fast: gpt-5-mini}\nrouting: {models: {gpt-5-mini: {attempts: 2}}}\n"
    [found] = warnings(read, text)
    assert "aliases.fast: is a model only if c lists it" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("surfaces: []", "surfaces: names nothing that is offered"),
        ("surfaces: [chat, chat]", "surfaces[1]: this surface stands twice"),
        ("surfaces: [embedding]", "surfaces[0]: must be"),
        ("preset: spark-http, surfaces: [chat, speech]", "surfaces: may name chat: channels of preset"),
    ],
)
def test_surfaces_are_those_that_there_are(read: Read, change: str, message: str) -> None:
    (found,) = faults(read, channel(change))
    assert f"channels[0].{message}" in found


def test_a_models_surfaces_are_looked_at_like_its_channels(read: Read) -> None:
    text = CHANNEL.replace("[a, b, d]", "{a: {surfaces: []}, b: {surfaces: [embeddings]}}")
    (found,) = faults(read, text)
    assert "channels[0].models.a.surfaces: names nothing" in found


PRESET = "name: c, kind: openai, api_key: k, models: [a]"


def test_a_preset_needs_no_address(read: Read) -> None:
    assert warnings(read, f"channels: [{{{PRESET}, preset: deepseek}}]") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{PRESET}, preset: depseek", "preset: is none of the presets, did you mean deepseek?"),
        (f"{PRESET}, preset: zzzzzzzz", "preset: is none of the presets; known are openai, mistral,"),
        (
            f"{PRESET}, preset: cloudflare",
            "base_url: is missing; for this preset it is https://api.cloudflare",
        ),
        ("name: c, kind: openai, preset: groq, models: [a]", "api_key: is missing; preset groq wants a key"),
        (
            "name: c, kind: openai, preset: zhipu, api_key: k, models: auto",
            "models: the vendor of preset zhipu",
        ),
    ],
)
def test_what_a_preset_wants_is_told(read: Read, text: str, message: str) -> None:
    (found,) = faults(read, f"channels: [{{{text}}}]")
    assert f"channels[0].{message}" in found


def test_a_preset_at_home_or_at_an_address_of_ones_own_needs_no_key(read: Read) -> None:
    for more in ("preset: ollama", "preset: groq, base_url: http://127.0.0.1:1/v1"):
        assert warnings(read, f"channels: [{{name: c, kind: openai, {more}, models: [a]}}]") == []


def test_a_token_stands_in_for_azures_key(read: Read) -> None:
    for own in ("token_file: f", "token_command: [az, account]"):
        text = f"{{{AZURE.replace('api_key: k, ', '')}, azure: {{auth: bearer, {own}}}}}"
        assert warnings(read, f"channels: [{text}]") == []


def test_an_ollama_needs_no_key_and_no_address_and_has_a_list(read: Read) -> None:
    assert warnings(read, "channels: [{name: c, kind: ollama, models: auto}]") == []
    (found,) = warnings(read, "channels: [{name: c, kind: ollama, models: [a], ollama: {models: {b: {}}}}]")
    assert "channels[0].ollama.models.b: is none of the channel's models there" in found
