"""Names and combinations: who is called what, who asks whom, how many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import CHANNEL, Read, faults, reader, warnings


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


SIGHTED = "vision_members: [{model: a}, {model: b}, {model: d}]"
GOOD = f"name: p, members: [{{model: a}}, {{model: b}}, {{model: d}}], summary: {{model: a}}, {SIGHTED}"


def config(*combinations: str, rest: str = "") -> str:
    return CHANNEL + rest + "\ncombinations:\n" + "".join(f"  - {{{one}}}\n" for one in combinations)


def good(change: str) -> str:
    """A good panel of three with more keys."""
    return config(f"{GOOD}, {change}")


def panel(members: str, rest: str = "") -> str:
    return config(
        f"name: p, members: [{members}], summary: {{model: a}}, vision_members: [{{model: a}}]{rest}"
    )


def test_a_good_panel_has_neither_faults_nor_warnings(read: Read) -> None:
    assert warnings(read, config(GOOD)) == []


def test_an_unknown_member_is_refused_with_the_nearest_name(read: Read) -> None:
    text = CHANNEL.replace("[a, b, d]", "[deepseek-chat]")
    text += "combinations:\n  - name: p\n    strategy: direct\n    model: deepsek-chat\n"
    assert faults(read, text) == [
        "6:12: combinations[0].model: no model or combination is called deepsek-chat, "
        "did you mean deepseek-chat?"
    ]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("vision_summary: {model: zz}", "combinations[0].vision_summary.model"),
        ("vision_summary: {model: a, fallback: [b, zz]}", "combinations[0].vision_summary.fallback[1]"),
    ],
)
def test_every_place_that_names_a_model_is_checked(read: Read, change: str, key: str) -> None:
    assert [found.split(": ")[1] for found in faults(read, good(change))] == [key]


def test_a_member_may_name_an_alias(read: Read) -> None:
    text = config("name: p, strategy: direct, model: fast", rest="aliases: {fast: faster, faster: a}")
    assert read(text).settings.combinations[0].model == "fast"


def test_a_dangling_alias_is_refused(read: Read) -> None:
    (found,) = faults(read, CHANNEL + "aliases: {fast: aa}")
    assert "3:17: aliases.fast: no model or combination is called aa, did you mean a?" in found


def test_a_loop_of_aliases_is_refused(read: Read) -> None:
    found = faults(read, CHANNEL + "aliases: {x: y, y: z, z: x, ok: a}")
    assert [one.split(": ")[1] for one in found] == ["aliases.x", "aliases.y", "aliases.z"]


def test_a_name_is_one_models_or_combinations_or_aliases(read: Read) -> None:
    rest = "aliases: {b: d, p: d, q: d}"
    direct = "name: a, strategy: direct, model: d"
    found = faults(read, config(direct, f"{GOOD}, aliases: [q]", rest=rest))
    assert [one.split(": ", 1)[1] for one in found] == [
        "aliases.b: a model has this name already; give the alias another",
        "aliases.p: a combination has this name already; give the alias another",
        "combinations[0].name: a model has this name already; give the combination another",
        "combinations[1].aliases[0]: this alias stands twice: another has it already (line 3)",
    ]


def test_two_combinations_share_no_name(read: Read) -> None:
    (found,) = faults(read, config(GOOD, "name: p, strategy: direct, model: a"))
    assert "combinations[1].name: this combination's name stands twice" in found


def test_a_combination_that_asks_itself_is_refused_with_its_path(read: Read) -> None:
    found = faults(
        read,
        config(
            "name: p, strategy: all, members: [{model: q}], vision_members: [{model: a}]",
            "name: q, strategy: direct, model: r",
            rest="aliases: {r: p}",
        ),
    )
    assert [one.split(": ", 1)[1] for one in found] == [
        "combinations[0].members[0].model: this combination asks itself: q → p → q",
        "combinations[1].model: this combination asks itself: p → q → p",
    ]


def test_a_summary_by_its_own_combination_is_a_loop_too(read: Read) -> None:
    (found,) = faults(read, good("vision_summary: {model: p}"))
    assert "vision_summary.model: this combination asks itself: p → p" in found


def test_combinations_nest_two_deep_and_no_deeper(read: Read) -> None:
    two = ["name: p, strategy: direct, model: q", "name: q, strategy: direct, model: a"]
    assert len(read(config(*two)).settings.combinations) == 2
    (found,) = faults(read, config(*two, "name: o, strategy: direct, model: p"))
    assert "combinations[0].model: combinations may nest 2 deep: o → p → q" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: p, strategy: direct", "combinations[0].model: is missing: strategy direct"),
        ("name: p, summary: {model: a}", "combinations[0].members: is missing: strategy synthesize"),
        ("name: p, members: [{model: a}]", "combinations[0].summary: is missing: strategy synthesize"),
        ("name: p, strategy: all", "combinations[0].members: is missing: strategy all"),
        (
            "name: p, strategy: direct, model: a, members: [{model: a}]",
            "members: strategy direct does not use it",
        ),
        (
            f"{GOOD}, model: a",
            "combinations[0].model: strategy synthesize does not use it; strategy direct does",
        ),
        ("name: p, strategy: debate", "combinations[0].strategy: must be all, best_of, cascade, council"),
        (
            "name: '', strategy: direct, model: a",
            "combinations[0].name: a combination's name must not be empty",
        ),
    ],
)
def test_a_combination_has_what_its_strategy_wants(read: Read, text: str, message: str) -> None:
    assert any(message in found for found in faults(read, config(text)))


def test_a_key_that_a_strategy_does_not_use_is_a_warning(read: Read) -> None:
    (found,) = warnings(read, config("name: p, strategy: direct, model: a, quorum: 2"))
    assert "combinations[0].quorum: strategy direct does not use it" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("quorum: 0", "quorum: must be a whole number, 1 or more"),
        ("quorum: 4", "quorum: is above the number of calls, 3"),
        ("quorum: 1, min_success: 2", "min_success: must not be above quorum, 1"),
        (
            "min_success: 3",
            "min_success: must not be above quorum, 2 (two thirds of the calls, as it is not set)",
        ),
        ("attempts: 0", "attempts: must be a whole number, 1 or more"),
        ("deadline_s: 0", "deadline_s: must be a number of seconds above 0"),
        ("max_members: 2", "members: makes 3 calls, samples counted; max_members allows 2"),
        (
            "overridable: [name]",
            "overridable[0]: must be deadline_s, grace_s, max_cost, members, quorum or strategy",
        ),
    ],
)
def test_numbers_that_cannot_hold_together_are_refused(read: Read, change: str, message: str) -> None:
    assert f"combinations[0].{message}" in faults(read, good(change))[0]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ("{model: a, samples: 0}", "members[0].samples: must be a whole number, 1 or more"),
        ("{model: a, samples: 9, temperature: 1}", "members: makes 9 calls"),
        ("{model: a, weight: 0}", "members[0].weight: must be a number above 0"),
        ("{model: a, temperature: -1}", "members[0].temperature: must be a number, 0 or more"),
        ("{model: a, top_p: 2}", "members[0].top_p: must be a number above 0, at most 1"),
        ("{model: a, params: {model: x}}", "members[0].params.model: is written by the server itself"),
        ("{model: a}, {id: m1, model: a}, {model: a}", "members[1].id: this member's id stands twice"),
        (
            "{model: a, samples: 2, temperature: 1}, {id: m1.2, model: a}",
            "members[1].id: this member's id stands twice",
        ),
        ("{model: a, id: 'a\tb'}", "members[0].id: a member's id must be one line"),
    ],
)
def test_a_wrong_member_is_refused(read: Read, members: str, message: str) -> None:
    (found,) = faults(read, panel(members))
    assert f"combinations[0].{message}" in found


def test_two_members_that_wait_for_both_are_a_warning(read: Read) -> None:
    (found,) = warnings(read, panel("{model: a}, {model: b}"))
    assert "two calls and a quorum of 2" in found
    assert warnings(read, panel("{model: a}, {model: b}", ", quorum: 1")) == []


@pytest.mark.parametrize(
    ("temperature", "doubtful"), [("0", True), ("0.0", True), ("~", True), ("0.5", False)]
)
def test_samples_without_a_temperature_are_a_warning(read: Read, temperature: str, doubtful: bool) -> None:
    found = warnings(read, panel(f"{{model: a, samples: 3, temperature: {temperature}}}"))
    assert any("samples of one model are alike" in one for one in found) is doubtful


def test_no_members_for_images_are_a_warning(read: Read) -> None:
    text = config(GOOD.replace(SIGHTED, "attempts: 2"))
    assert "no members for images (vision_members)" in warnings(read, text)[0]


def test_nobody_is_warned_of_members_that_are_said_to_be_blind(read: Read) -> None:
    text = config(GOOD.replace(SIGHTED, "attempts: 2"))
    blind = "{a: {vision: false}, b: {vision: false}, d: {vision: false}}"
    assert warnings(read, text.replace("[a, b, d]", blind)) == []


def test_blind_members_for_images_are_a_warning(read: Read) -> None:
    text = config(GOOD).replace("[a, b, d]", "{a: {vision: false}, b: , d: }")
    (found,) = warnings(read, text)
    assert "vision_members[0].model: its channel says that it sees no images" in found


def test_a_quorum_above_the_members_for_images_is_a_warning(read: Read) -> None:
    (found,) = warnings(read, panel("{model: a}, {model: b}, {model: d}", ", quorum: 2"))
    assert "quorum: is above the number of calls for images, 1" in found


def test_a_weak_writer_is_a_warning(read: Read) -> None:
    members = "{model: a}, {model: b, weight: 3}, {model: d}"
    assert "this is not the strongest model" in warnings(read, panel(members))[0]


def test_a_place_in_a_prompt_that_is_not_filled_in_is_a_warning(read: Read) -> None:
    (found,) = warnings(read, good("vision_summary: {model: a, prompt: 'Use {draft}, and {\"json\": 1}.'}"))
    assert "{draft} is not a place that is filled in, did you mean drafts?" in found


def test_a_model_that_only_a_disabled_channel_serves_is_a_warning(read: Read) -> None:
    text = config("name: p, strategy: direct, model: x")
    text = text.replace(
        "channels:\n", "channels:\n  - {name: spare, kind: local, models: [x], enabled: false}\n"
    )
    assert "combinations[0].model: only a disabled channel serves it (spare)" in warnings(read, text)[0]


def test_the_default_combination_exists(read: Read) -> None:
    (found,) = faults(read, config(GOOD) + "default_combination: q\n")
    assert "default_combination: no combination has this name" in found
    (found,) = faults(read, config(GOOD) + "default_combination: a\n")
    assert "default_combination: no combination has this name; there is p" in found
    assert read(config(GOOD) + "default_combination: p\n").settings.default_combination == "p"


def test_unknown_model_default_wants_a_default_combination(read: Read) -> None:
    (found,) = faults(read, "unknown_model: default")
    assert found == "1:16: unknown_model: default wants default_combination to be set"


def test_a_fault_of_form_hides_no_fault_of_reference(read: Read) -> None:
    text = """
        channels:
          - {name: c, kind: openai, base_url: "https://a.example/v1", models: [a], wieght: 3}
          - {name: d, kind: opnai, base_url: "https://a.example/v1", models: [lost]}
        combinations:
          - {name: p, members: [{model: nope}, {model: lost}], summary: {model: q}, quorum: x}
          - {name: q, stratgy: all, members: [{model: a}], summary: {model: a}}
        aliases: {z: nowhere}
        """
    told = [one.partition(": ")[2] for one in faults(read, text)]
    assert [one for one in told if "is called" in one] == [
        "combinations[0].members[0].model: no model or combination is called nope",
        "aliases.z: no model or combination is called nowhere",
    ]
    for key in ("wieght", "kind", "quorum", "stratgy"):
        assert any(f"{key}: " in one for one in told)


@pytest.mark.parametrize(
    ("good", "slip"),
    [("models: [a]", "modles: [a]"), ("aliases: [b]", "alaises: [b]"), ("channels:", "chanels:")],
)
def test_what_a_slip_may_have_named_is_not_told_as_unknown(read: Read, good: str, slip: str) -> None:
    text = """
        channels:
          - {name: c, kind: openai, base_url: "https://a.example/v1", models: [a]}
        combinations:
          - {name: p, strategy: direct, model: a, aliases: [b]}
        aliases: {z: a, y: b}
        """
    assert read(text).settings.aliases
    assert not [one for one in faults(read, text.replace(good, slip)) if "is called" in one]


def test_a_member_that_takes_no_chats_is_refused_while_an_alias_may_name_it(read: Read) -> None:
    embeds = CHANNEL.replace("[a, b, d]", "{a: {surfaces: [embeddings]}}")
    (found,) = faults(read, embeds + "combinations: [{name: p, strategy: direct, model: a}]")
    assert "combinations[0].model: takes no chats, by the surfaces of its channel (c)" in found
    assert read(embeds + "aliases: {fast: a}").settings.aliases == {"fast": "a"}
