"""All names that a client may put into ``model``."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from server.auth import ANONYMOUS, Principal
from server.errors import (
    InvalidRequest,
    ModelNotFound,
    NotAllowed,
    RateLimited,
    ServerError,
    SurfaceNotOffered,
)
from server.routed_surface import SurfacesOnly
from server.router import ModelRouter
from server.settings import Combination, Settings
from server.surfaces import EMBEDDINGS, SURFACES
from server.upstreams.base import Upstream
from tests.channels import ScriptedChannel, answer, channel, chat, failure, played

CHANNELS: list[dict[str, Any]] = [
    {"name": "two", "kind": "openai", "models": ["b", "a"]},
    {"name": "one", "kind": "openai", "models": {"a": {"vision": True}, "c/d:e@f": {"context_length": 8}}},
]
COMBINATIONS = [
    {"name": "panel", "members": [{"model": "a"}, {"model": "b"}], "aliases": ["p"], "description": "both"},
    {"name": "plain", "strategy": "direct", "model": "a"},
]
MODERATIONS = next(one for one in SURFACES if one.name == "moderations")
ALIASES = {"short": "c/d:e@f", "s2": "short"}


def router(**fields: Any) -> ModelRouter:
    known = {
        "channels": CHANNELS,
        "combinations": COMBINATIONS,
        "aliases": {"short": "c/d:e@f", "s2": "short"},
    }
    settings = msgspec.convert({**known, **fields}, Settings)
    states = {}
    for one in settings.channels:
        states[one.name] = channel(
            one.name, **{k: v for k, v in msgspec.to_builtins(one).items() if k != "name"}
        )

    def combine(combination: Combination, find: object) -> Upstream:
        return ScriptedChannel(combination.name)

    return ModelRouter(settings, states, combine)


def only(*models: str) -> Principal:
    return Principal("me", models=frozenset(models))


def ids(router: ModelRouter, principal: Principal = ANONYMOUS) -> list[str]:
    return [card.id for card in router.cards(principal)]


def refusal(router: ModelRouter, name: str, principal: Principal = ANONYMOUS) -> ServerError:
    with pytest.raises(ServerError) as raised:
        router.choose(name, principal)
    return raised.value


# ── choosing ──


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("a", "a"),
        ("c/d:e@f", "c/d:e@f"),
        ("panel", "panel"),
        ("p", "panel"),
        ("short", "c/d:e@f"),
        ("s2", "c/d:e@f"),
    ],
)
def test_a_name_leads_to_a_model_or_a_combination_also_by_its_aliases(name: str, chosen: str) -> None:
    assert router().choose(name, ANONYMOUS).name == chosen
    assert router().find(name).name == chosen


async def test_a_model_is_answered_by_any_channel_that_serves_it() -> None:
    one = router()
    played(one.channels["two"]).scripts = [[RateLimited("slower", retry_after_s=60)]]
    for _ in range(5):
        assert await answer(one.choose("a", ANONYMOUS), request=chat("a")) == "hello"


@pytest.mark.parametrize("name", ["", "panle", "A", " a", "no-such", "x" * 100_000, "\ud800", "a\0"])
def test_an_unknown_name_is_404_and_no_other_model_answers(name: str) -> None:
    error = refusal(router(), name)
    if name:
        assert isinstance(error, ModelNotFound)
        assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    else:
        assert isinstance(error, InvalidRequest)
        assert (error.status, error.code, error.param) == (400, "missing_required_parameter", "model")
    assert len(error.message) < 500


def test_an_unknown_name_is_told_with_the_nearest_ones_that_the_key_may_call() -> None:
    assert "Did you mean panel?" in refusal(router(), "panle").message
    assert "panel" not in refusal(router(), "panle", only("a")).message
    assert "GET /v1/models" in refusal(router(), "zzzzzz").message


def test_a_huge_name_is_not_compared_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(*args: object, **kwargs: object) -> list[str]:
        raise AssertionError("compared")

    monkeypatch.setattr("difflib.get_close_matches", compare)
    assert refusal(router(), "x" * 10_000_000).code == "model_not_found"


@pytest.mark.parametrize("name", ["", "whatever", "panle"])
def test_unknown_names_may_go_to_a_default(name: str) -> None:
    one = router(unknown_model="default", default_combination="plain")
    assert one.choose(name, ANONYMOUS).name == "plain"
    assert isinstance(refusal(one, name, only("a")), NotAllowed)


def test_a_default_without_the_switch_does_nothing() -> None:
    assert refusal(router(default_combination="plain"), "whatever").code == "model_not_found"


@pytest.mark.parametrize("name", ["b", "panel", "p", "short"])
def test_a_model_outside_the_keys_scope_is_403(name: str) -> None:
    error = refusal(router(), name, only("a"))
    assert (type(error), error.status, error.code) == (NotAllowed, 403, "model_not_allowed")


def test_a_key_for_an_alias_may_call_the_alias_alone_and_one_for_the_model_both() -> None:
    one = router()
    assert one.choose("short", only("short")).name == "c/d:e@f"
    assert isinstance(refusal(one, "c/d:e@f", only("short")), NotAllowed)
    assert one.choose("short", only("c/d:e@f")).name == "c/d:e@f"


def test_what_is_known_is_what_is_configured() -> None:
    one = router()
    assert all(one.knows(name) for name in one.names())
    assert not any(one.knows(name) for name in ("", "x", "A"))


# ── the list of models ──


def test_the_list_has_the_order_of_the_configuration_and_never_changes() -> None:
    expected = ["panel", "plain", "b", "a", "c/d:e@f", "short", "s2", "p"]
    assert ids(router()) == expected
    assert [ids(router()) for _ in range(3)] == [expected] * 3


def test_each_name_stands_once() -> None:
    one = router(aliases={"short": "a", "panel": "a"})
    assert len(set(ids(one))) == len(ids(one))


def test_the_list_is_exactly_what_the_key_may_call() -> None:
    one = router()
    for scope in [("a",), ("panel",), ("p",), ("short",), ("c/d:e@f",), ("a", "plain"), (), ("unknown",)]:
        principal = only(*scope)
        may = []
        for name in one.names():
            try:
                one.choose(name, principal)
            except NotAllowed:
                continue
            may.append(name)
        assert ids(one, principal) == may


def test_a_model_that_no_channel_serves_is_not_listed() -> None:
    for channels in (
        [CHANNELS[0], CHANNELS[1] | {"enabled": False}],
        [CHANNELS[0], CHANNELS[1] | {"weight": 0}],
    ):
        assert ids(router(channels=channels)) == ["panel", "plain", "b", "a", "p"]
    one = router()
    played(one.channels["one"]).unavailable = "install it"
    assert "c/d:e@f" not in ids(one)


def test_a_combination_none_of_whose_models_is_served_is_not_listed() -> None:
    nested = {"name": "of-panels", "members": [{"model": "panel"}, {"model": "lost"}], "aliases": ["q"]}
    lost = {"name": "of-lost", "members": [{"model": "lost"}]}
    more = [*COMBINATIONS, nested, lost]
    off = [one | {"enabled": False} for one in CHANNELS]
    assert ids(router(combinations=more)) == [
        *("panel", "plain", "of-panels"),
        *("b", "a", "c/d:e@f", "short", "s2", "p", "q"),
    ]
    assert ids(router(combinations=more, channels=off)) == []
    one_left = [CHANNELS[0], CHANNELS[1] | {"enabled": False}]
    assert {"panel", "plain", "of-panels", "p", "q"} <= set(ids(router(combinations=more, channels=one_left)))


def test_a_model_is_owned_by_a_channel_that_can_be_asked() -> None:
    first = {"name": "zero", "kind": "openai", "models": ["a"]}
    for off in ({"enabled": False}, {"weight": 0}):
        assert router(channels=[first | off, *CHANNELS]).card("a", ANONYMOUS).owned_by == "two"
    one = router(channels=[first, *CHANNELS])
    assert one.card("a", ANONYMOUS).owned_by == "zero"
    played(one.channels["zero"]).unavailable = "install it"
    assert one.card("a", ANONYMOUS).owned_by == "two"
    one.channels["two"].dismiss()
    assert one.card("a", ANONYMOUS).owned_by == "one"


async def test_a_model_whose_channels_cool_stays_listed() -> None:
    one = router()
    played(one.channels["one"]).scripts = [[RateLimited("slower", retry_after_s=60)]]
    assert isinstance(await failure(one.find("c/d:e@f")), RateLimited)
    assert "c/d:e@f" in ids(one)
    assert one.card("c/d:e@f", ANONYMOUS).id == "c/d:e@f"


def test_a_card_has_the_same_positive_time_after_each_start_and_a_word_for_its_owner() -> None:
    for card in router().cards(ANONYMOUS):
        assert card.created == router().card(card.id, ANONYMOUS).created > 0
        assert card.owned_by


@pytest.mark.parametrize("name", ["a", "c/d:e@f", "panel", "p", "s2"])
def test_one_model_is_told_as_in_the_list_an_alias_under_its_own_name(name: str) -> None:
    one = router()
    card = one.card(name, ANONYMOUS)
    assert card in one.cards(ANONYMOUS)
    assert card.id == name


@pytest.mark.parametrize(("name", "scope"), [("x", ()), ("", ()), ("b", ("a",)), ("p", ("a",))])
def test_one_model_that_is_unknown_or_not_allowed_is_404(name: str, scope: tuple[str, ...]) -> None:
    with pytest.raises(ModelNotFound) as raised:
        router().card(name, only(*scope) if scope else ANONYMOUS)
    assert raised.value.code == "model_not_found"


def test_cards_tell_what_is_known_of_a_model() -> None:
    cards = {card.id: card.extra for card in router().cards(ANONYMOUS)}
    assert cards["panel"] == {
        "kind": "combination",
        "strategy": "synthesize",
        "description": "both",
        "members": ["a", "b"],
    }
    assert cards["p"] == cards["panel"] | {"alias_of": "panel"}
    assert cards["plain"]["strategy"] == "direct"
    assert cards["a"] == {"kind": "model", "vision": True}
    assert cards["b"] == {"kind": "model"}
    assert cards["s2"] == {"kind": "model", "context_length": 8, "alias_of": "c/d:e@f"}


def test_what_is_known_of_sparks_models_is_told_where_the_configuration_is_silent() -> None:
    models = {
        "spark-lite": {},
        "spark-pro": {},
        "spark-max": {"vision": True},
        "spark-chat-vision": {"context_length": 5},
    }
    spark = {"name": "s", "kind": "spark", "models": models}
    told = router(channels=[*CHANNELS, spark])
    cards = {card.id: card.extra for card in told.cards(ANONYMOUS)}
    assert {name: cards[name]["vision"] for name in models} == {
        "spark-lite": False,
        "spark-pro": False,
        "spark-max": True,
        "spark-chat-vision": True,
    }
    assert [cards[name]["context_length"] for name in models] == [8192, 8192, 8192, 5]
    # Pro searches the web, which is a tool too.
    assert [told.models[name].channels[0][1].tools for name in models] == [False, None, True, False]


def beside_chats() -> ModelRouter:
    models = {"e": {"surfaces": ["embeddings"]}, "j": {"surfaces": ["moderations"]}, "a": {}}
    channels = [
        *CHANNELS,
        {"name": "three", "kind": "openai", "models": models},
        {"name": "four", "kind": "openai", "models": ["e", "k"], "surfaces": ["chat", "moderations"]},
    ]
    return router(channels=channels)


def test_a_surface_is_answered_by_the_channels_that_offer_it() -> None:
    made = beside_chats()
    found = made.choose_surface("e", EMBEDDINGS, ANONYMOUS)
    assert (found.model, [state.name for state, _ in found.channels]) == ("e", ["three"])
    assert made.choose_surface("e", EMBEDDINGS, ANONYMOUS) is found, "with its budget of further attempts"
    assert [state.name for state, _ in made.models["e"].channels] == ["four"], "which takes its chats"
    assert made.choose_surface("s2", EMBEDDINGS, ANONYMOUS).model == "c/d:e@f"
    assert isinstance(made.models["j"], SurfacesOnly)


def test_who_names_no_model_gets_the_first_that_was_configured_and_allowed_for_it() -> None:
    made = beside_chats()
    assert made.choose_surface("", MODERATIONS, ANONYMOUS).model == "e"
    assert made.choose_surface("", MODERATIONS, only("k", "j")).model == "j"
    for name, principal in (("", only("a")), ("", only())):
        with pytest.raises(InvalidRequest, match="model is missing"):
            made.choose_surface(name, MODERATIONS, principal)
    with pytest.raises(InvalidRequest, match="model is missing"):
        made.choose_surface("", EMBEDDINGS, ANONYMOUS)


def test_what_is_not_offered_known_or_allowed_is_told_apart() -> None:
    made = beside_chats()
    with pytest.raises(SurfaceNotOffered, match="panel is a combination"):
        made.choose_surface("p", EMBEDDINGS, ANONYMOUS)
    with pytest.raises(SurfaceNotOffered, match=r"surfaces of its channel \(four\)"):
        made.choose_surface("k", EMBEDDINGS, ANONYMOUS)
    with pytest.raises(NotAllowed):
        made.choose_surface("e", EMBEDDINGS, only("a"))
    with pytest.raises(ModelNotFound):
        made.choose_surface("nobody", EMBEDDINGS, ANONYMOUS)
