"""What the order of the agents does to the merge agent: flips, and which positions it chooses from.

Where the agents do not agree, a merge agent without a bias for positions would choose what the agent in
position 1 said as often as its answers deserve. Over all rotations every agent stands in every position
once, so all positions are right equally often, and chosen equally often unless their place matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orch_local.ablate.frozen import Frozen
from orch_local.ablate.scores import estimate
from orch_local.ablate.votes import Places
from orch_local.results.summary import Estimate
from orch_local.stats import wilson


@dataclass(frozen=True, slots=True)
class PanelPosition:
    """One place in the panel as the merge agent reads it, over the contested questions."""

    position: int
    """From 1."""
    chosen: int
    """Questions where the final answer is what stands there."""
    right: int
    """Questions where what stands there is right."""


@dataclass(frozen=True, slots=True)
class AgentOrder:
    """One order of the agents against the order of the run."""

    order: tuple[str, ...]
    n: int
    """Questions that have a final answer in both orders."""
    unscored: int
    """Questions that have one in at most one of them."""
    flips: int
    """Questions with another final answer."""
    rate: Estimate | None
    """flips / n; Wilson interval."""
    to_wrong: int
    """Right in the order of the run, wrong in this one."""
    to_right: int
    contested: int
    """Questions with gold, a final answer and at least two different answers in the panel."""
    positions: tuple[PanelPosition, ...]


def audit(
    frozen: Frozen, order: Places, before: Sequence[str | None], now: Sequence[str | None]
) -> AgentOrder:
    """Compare final answers in the order of the run (``before``) and in another (``now``)."""
    answered = [(a, b, g) for a, b, g in zip(before, now, frozen.gold, strict=True) if a and b]
    flips = [(a, b, gold) for a, b, gold in answered if a != b]
    contested, positions = _positions(frozen, order, now)
    return AgentOrder(
        order=tuple(frozen.plan.names[place] for place in order),
        n=len(answered),
        unscored=len(frozen) - len(answered),
        flips=len(flips),
        rate=estimate(len(flips) / len(answered), wilson(len(flips), len(answered))) if answered else None,
        to_wrong=sum(gold is not None and a == gold for a, _, gold in flips),
        to_right=sum(gold is not None and b == gold for _, b, gold in flips),
        contested=contested,
        positions=positions,
    )


def _positions(
    frozen: Frozen, order: Places, final: Sequence[str | None]
) -> tuple[int, tuple[PanelPosition, ...]]:
    contested, chosen, right = 0, [0] * len(order), [0] * len(order)
    for row, answer, gold in zip(frozen.usable, final, frozen.gold, strict=True):
        answers = [each.answer if (each := row[place]) else None for place in order]
        if answer is None or gold is None or len(set(answers) - {None}) < 2:
            continue
        contested += 1
        for position, one in enumerate(answers):
            chosen[position] += one == answer
            right[position] += one == gold
    found = (PanelPosition(i, *counts) for i, counts in enumerate(zip(chosen, right, strict=True), 1))
    return contested, tuple(found)
