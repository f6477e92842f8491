"""Who may change what a combination does, by the ``antiphon`` field of a request."""

from __future__ import annotations

from server.auth import Principal
from server.chat import ChatRequest
from server.coordinator.plan import chosen_models
from server.errors import NotAllowed
from server.router import ModelRouter
from server.settings import Combination


def check_right(principal: Principal, router: ModelRouter, settings: Combination, chat: ChatRequest) -> None:
    """Raise ``NotAllowed`` for a key that may not override, or that picks a member which it may not call.

    What is overridden, and how far, is the combination's to check.
    """
    for key in chat.fields.antiphon or {}:
        if not principal.override:
            raise NotAllowed(
                f"This key may not change what {settings.name} does; leave antiphon.{key[:100]} out.",
                param=f"antiphon.{key[:100]}",
                code="override_not_allowed",
            )
    for model in chosen_models(settings, chat):
        if not router.may(principal, model):
            raise NotAllowed(
                "This key may not call a picked member's model; pick others, or leave members out.",
                param="antiphon.members",
            )
