"""Stored analyses into signals for the router: always the same ones, since no clock is read."""

from __future__ import annotations

from orch_local.plan.plans import Plan
from orch_local.records import Analysis
from orch_local.router.averages import Signal


class FeedbackReader:
    """Turns rows of a plan's agents into signals.

    With a pinned profile latency is in seconds and cost in device-seconds. Without one latency is the number
    of generated tokens, and cost that of all tokens, times the model's parameters (10^9) where the config of
    every agent's model states them.
    """

    def __init__(self, plan: Plan) -> None:
        self._profiles = plan.router.profile.agents if plan.router and plan.router.profile else None
        sizes = [agent.model.parameters_b for agent in plan.agents]
        self._sizes = [size or 1.0 for size in sizes] if all(sizes) else [1.0] * len(sizes)
        self._names = plan.names

    def signal(self, agent: int, row: Analysis, gold: str | None) -> Signal:
        """The signal of a row of the agent at this place, for a question with this gold."""
        right = None if gold is None else row.usable and row.answer == gold
        usage = row.usage
        if not usage.generated:  # it never ran: that says nothing of how long it takes
            return Signal(right, None, None)
        if self._profiles is not None:
            profile = self._profiles[self._names[agent]]
            return Signal(right, profile.latency(usage), profile.cost(usage))
        return Signal(right, float(usage.generated), self._sizes[agent] * (usage.prompt + usage.generated))
