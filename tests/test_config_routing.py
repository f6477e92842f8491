"""What is refused, or doubted, of keys, breakers, rules for fields, weights, aliases and routing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import CHANNEL, Read, channel, faults, reader, warnings


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("api_key: x1, api_keys: [k1, k2]", "api_keys: goes without api_key"),
        ("api_keys: [k1, k1]", "api_keys[1]: this key stands twice"),
        (r'api_keys: ["k1", "k\r\n2"]', "api_keys[1]: must be printable ASCII"),
        ('api_keys: [""]', "api_keys[0]: must not be empty"),
        ("breaker: {open_s: 60, max_open_s: 30}", "breaker.max_open_s: must not be below open_s"),
        ("breaker: {rate: 1.5}", "breaker.rate: must be a number from 0 to 1"),
        ("breaker: {failure: 3}", "breaker.failure: unknown key, did you mean failures?"),
        ("weight: -1", "weight: must be a number, 0 or more"),
        ("weight: .inf", "weight: must be a number"),
        ("weight: .nan", "weight: must be a number"),
        ("weight: heavy", "weight: must be a number"),
        ("requests_per_min: -5", "requests_per_min: must be a whole number"),
        ("tokens_per_min: 1.5", "tokens_per_min: must be a whole number"),
        ("max_wait_s: -1", "max_wait_s: must be a number"),
        ("params: {set: {model: x}}", "params.set.model: is written by the server itself"),
        ("params: {drop: [messages]}", "params.drop[0]: is written by the server itself"),
        ("params: {clamp: {n: {max: 1}}}", "params.clamp.n: is written by the server itself"),
        ("params: {set: {a: 1}, drop: [a]}", "params.set.a: stands in drop too"),
        ("params: {set: {a: 1}, default: {a: 2}}", "params.set.a: stands in default too"),
        ("params: {default: {a: 1}, drop: [a]}", "params.default.a: stands in drop too"),
        ("params: {clamp: {a: {}}}", "params.clamp.a: wants min, max or both"),
        ("params: {clamp: {a: {min: 2, max: 1}}}", "params.clamp.a: min must not be above max"),
        ("params: {clamp: {a: {max: low}}}", "params.clamp.a.max: must be a number"),
        ("params: {set: {temperature: hot}}", "params.set.temperature: is not what temperature is"),
        ("params: {default: {stop: 7}}", "params.default.stop: is not what stop is in a request"),
        ("params: {clamp: {max_tokens: {min: 0.5}}}", "params.clamp.max_tokens.min: is not what"),
        ("params: {put: {a: 1}}", "params.put: unknown key"),
    ],
)
def test_a_wrong_channel_is_refused_at_its_place(read: Read, change: str, message: str) -> None:
    (found,) = faults(read, channel(change))
    assert f"channels[0].{message}" in found
    assert found.startswith("2:")
    assert "k1" not in found


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com//v1",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/./v1",
        "https://api.example.com/v1/..",
        "https://api.example.com/v1%00",
        "https://api.example.com/%2e%2e/v1",
        "https://api.example.com/v1%0d%0aX: 1",
        "https://api.example.com/v1\\\\x",
        "https://me:secret@api.example.com/v1",
        "https://api.example.com/v1?key=secret",
        "ftp://api.example.com/v1",
        "api.example.com/v1",
    ],
)
def test_a_base_url_that_is_odd_is_refused_and_not_shown(read: Read, url: str) -> None:
    (found,) = faults(read, CHANNEL.replace("https://api.example.com/v1", f'"{url}"'))
    assert found.startswith("2:")
    assert "channels[0].base_url" in found
    assert "secret" not in found


@pytest.mark.parametrize(
    "url", ["https://a.example/v1/", "https://a.example", "http://127.0.0.1:9/a.b/v1beta"]
)
def test_lawful_base_urls_pass(read: Read, url: str) -> None:
    assert read(CHANNEL.replace("https://api.example.com/v1", url)).warnings == []


def test_two_channels_of_one_name_channels_without_models_and_unknown_kinds_are_refused(read: Read) -> None:
    text = """\
        channels:
          - {name: c, kind: openai, base_url: https://a.example/v1, models: [a]}
          - {name: c, kind: openai, base_url: https://b.example/v1, models: []}
          - {name: d, kind: opneai, base_url: https://b.example/v1, models: [a]}
        """
    found = faults(read, text)
    assert [one.split(": ")[1] for one in found] == [
        "channels[1].name",
        "channels[1].models",
        "channels[2].kind",
    ]
    assert "did you mean openai?" in found[2]


@pytest.mark.parametrize(
    "aliases",
    ["{one: one}", "{one: two, two: one}", "{one: two, two: three, three: two}"],
)
def test_aliases_that_lead_back_to_themselves_are_refused(read: Read, aliases: str) -> None:
    found = faults(read, CHANNEL + f"aliases: {aliases}\n")
    assert all("leads back to itself" in one and one.startswith("3:") for one in found)


def test_an_alias_of_an_alias_is_lawful(read: Read) -> None:
    assert read(CHANNEL + "aliases: {one: two, two: a}\n").settings.aliases == {"one": "two", "two": "a"}


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ("{backoff_s: 9}", "routing.max_backoff_s: must not be below backoff_s"),
        ("{policy: fastest}", "routing.policy: must be least_busy, least_latency or weight"),
        ("{attempts: 0}", "routing.attempts: must be a whole number, 1 or more"),
        ("{models: {aa: {attempts: 1}}}", "routing.models.aa: no channel serves a model aa, did you mean a?"),
        ("{models: {a: {backoff_s: 1}}}", "routing.models.a.backoff_s: unknown key"),
        ("{retries: 3}", "routing.retries: unknown key"),
    ],
)
def test_wrong_routing_is_refused(read: Read, routing: str, message: str) -> None:
    (found,) = faults(read, CHANNEL + f"routing: {routing}\n")
    assert message in found
    assert found.startswith("3:")


def test_a_model_has_its_own_routing_over_the_general_one(read: Read) -> None:
    text = CHANNEL + "routing: {attempts: 5, models: {a: {policy: least_busy}}}\n"
    routing = read(text).settings.routing
    assert (routing.of("a").policy, routing.of("a").attempts) == ("least_busy", 5)
    assert (routing.of("b").policy, routing.of("b").attempts) == ("weight", 5)


def test_a_model_that_only_channels_of_weight_0_serve_is_refused(read: Read) -> None:
    (found,) = faults(read, channel("weight: 0"))
    assert found.startswith("2:75: channels[0].weight: every channel of a has weight 0")
    auto = CHANNEL.replace("[a, b, d]", "auto, weight: 0")
    assert "every channel of any model has weight 0" in faults(read, auto)[0]


def test_weight_0_beside_a_channel_that_takes_calls_is_no_fault(read: Read) -> None:
    other = "  - {name: e, kind: openai, base_url: https://api.example.org/v1, models: [a], weight: 0}\n"
    assert warnings(read, CHANNEL + other) == []
    (found,) = warnings(read, CHANNEL + other.replace("weight: 0", "weight: 0, priority: 5"))
    assert "channels[1].weight: every channel of a with priority 5 has weight 0" in found


def test_what_is_switched_off_may_have_weight_0(read: Read) -> None:
    (found,) = warnings(read, channel("weight: 0, enabled: false"))
    assert "no channel is enabled" in found


@pytest.mark.parametrize("weight", ["-1", ".inf", ".nan", "1e999", "heavy", "true"])
def test_a_weight_is_a_number_from_0(read: Read, weight: str) -> None:
    (found,) = faults(read, channel(f"weight: {weight}"))
    assert "channels[0].weight: must be a number, 0 or more" in found


def test_rules_may_set_whatever_a_request_may_hold(read: Read) -> None:
    text = channel(
        "params: {set: {response_format: {type: json_object}, tools: [{type: function}], odd: [1]}}"
    )
    assert read(text).settings.channels[0].params.set["odd"] == [1]


def test_a_list_of_keys_is_for_kind_openai_alone(read: Read) -> None:
    (found,) = faults(read, "channels: [{name: c, kind: local, models: [a], api_keys: [k1]}]")
    assert "channels[0].api_keys: has no use here" in found


def test_keys_that_are_not_sent_are_a_warning(read: Read) -> None:
    (found,) = warnings(read, channel("auth: none, api_keys: ['k1']"))
    assert "api_keys: are not sent" in found


def test_a_channel_that_never_lets_a_combination_in_is_a_warning(read: Read) -> None:
    combination = "combinations: [{name: p, members: [{model: a}], summary: {model: b}}]\n"
    alone = channel("single_share: 1, max_concurrency: 4")
    assert not any("single_share" in one for one in warnings(read, alone))
    told = [one for one in warnings(read, alone + combination) if "single_share" in one]
    assert len(told) == 1
    assert "no call of a combination is ever let in here" in told[0]
    less = channel("single_share: 0.9, max_concurrency: 4") + combination
    assert not any("single_share" in one for one in warnings(read, less))
