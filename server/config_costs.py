"""What the types cannot say about a combination's budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.config_checks import Findings
from server.config_yaml import printable
from server.settings import Channel, ChannelModel, Combination

Served = Sequence[tuple[Channel, ChannelModel]]


def check_costs(found: Findings, one: Combination, models: Mapping[str, Served]) -> None:
    """``max_cost`` holds for calls of which it is known what they cost; ``models``: name → channels."""
    path = found.path(one)
    if one.max_cost is None:
        if found.given((*path, "over_budget")):
            found.doubt((*path, "over_budget"), "is not used without max_cost")
        return
    limits = {
        member.model: member.draft_max_tokens or one.draft_max_tokens
        for member in (*one.members, *one.vision_members)
    }
    # What these may say is limited by the client alone, or by their context.
    writers = [summary.model for summary in (one.summary, one.vision_summary) if summary is not None]
    for name in (*writers, one.judge.model, one.model, one.vision_model):
        if name is not None:
            limits[name] = None
    for name, limit in limits.items():
        served = models.get(name)
        if served is None:
            continue  # a combination, or told elsewhere
        if any(model.price is None for _, model in served):
            found.doubt(
                (*path, "max_cost"),
                f"does not hold for {printable(name)}, which has no price on {served[0][0].name}",
            )
        elif limit is None and any(model.context_length is None for _, model in served):
            found.doubt(
                (*path, "max_cost"),
                f"does not hold for {printable(name)} where a request sets no max_tokens: give it a "
                "context_length, or draft_max_tokens",
            )
