"""Which agents are asked about a question: pure, from the averages of what came back before.

After ORCH (Zhou & Chan 2026, arXiv 2602.01797), whose router chooses agents by historical accuracy, latency
or cost. The agents with the highest score are asked:

    score = w_acc * accuracy - w_lat * latency_norm - w_cost * cost_norm

See docs/routing.md for every symbol. Nothing here reads a clock or draws a number: the same observations in
the same order give the same routes on every machine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from orch_local.config.blocks import RouterConfig, RouterWeights
from orch_local.router.averages import OVERALL, RouterState, Signal, Track


class Phase(StrEnum):
    """Why the agents of a question were chosen."""

    WARM_UP = "warm_up"
    """Too little has come back from some agent yet: the agents that were asked least."""
    SCORE = "score"
    EXPLORE = "explore"
    """By score, but for the last one, whose turn it is by the exploration schedule."""


class AgentEstimate(NamedTuple):
    """What the router thinks of one agent, for one question."""

    accuracy: float
    latency: float
    cost: float
    score: float


class Route(NamedTuple):
    """Which agents are asked about one question, and the state that decided it."""

    agents: tuple[int, ...]
    """Places in agent order, ascending."""
    phase: Phase
    observed: int
    """Questions that had come back."""
    state: str
    """Digest of what had come back (16 hex digits; empty before the first)."""
    estimates: tuple[AgentEstimate, ...]
    """Of every agent, asked or not."""


class RoutingCase(NamedTuple):
    """A question with what every agent's analysis would tell, for routing over a frozen panel."""

    key: str
    category: str
    signals: tuple[Signal, ...]
    """By agent."""


class Router:
    """Chooses agents, question after question, and learns from what comes back."""

    def __init__(self, config: RouterConfig, agents: int, start: RouterState | None = None) -> None:
        self._config = config
        self._frozen = config.mode == "calibrated"
        if start and start.agents != agents:
            raise ValueError(f"a state of {start.agents} agents, where there are {agents}")
        self.state = copy.deepcopy(start) or RouterState(agents, config.prior)

    def route(self, key: str, category: str) -> Route:
        """Which agents are asked about the question with this key (16 hex digits)."""
        estimates = self._estimates(category)
        phase, agents = self._choose(key, estimates)
        if not self._frozen:
            for agent in agents:
                self.state.asked[agent] += 1
        state = self.state
        return Route(tuple(sorted(agents)), phase, state.observed, state.digest[:16], tuple(estimates))

    def observe(self, category: str, signals: Sequence[Signal | None]) -> None:
        """Take in what came back of the next question, in question order; a frozen router learns nothing."""
        if not self._frozen:
            self.state.observe(self._config.alpha, category, signals)

    def _choose(self, key: str, estimates: Sequence[AgentEstimate]) -> tuple[Phase, list[int]]:
        state, config = self.state, self._config
        if not self._frozen and min(state.returned) < config.warm_up:
            turn = sorted(range(state.agents), key=lambda agent: (state.asked[agent], agent))
            return Phase.WARM_UP, turn[: config.k or 1]
        ranked = sorted(range(state.agents), key=lambda agent: (-estimates[agent].score, agent))
        chosen = ranked[: config.k] if config.k else self._within_budget(ranked, estimates)
        others = [agent for agent in range(state.agents) if agent not in chosen]
        turn = self._turn(key, self._affordable(others, chosen[:-1], estimates))
        if turn:
            return Phase.EXPLORE, [*chosen[:-1], *turn]
        return Phase.SCORE, chosen

    def _within_budget(self, ranked: Sequence[int], estimates: Sequence[AgentEstimate]) -> list[int]:
        """The best ones whose expected costs together stay within the budget; the very best in any case."""
        chosen, left = [ranked[0]], (self._config.budget or 0.0) - estimates[ranked[0]].cost
        for agent in ranked[1:]:
            if estimates[agent].cost <= left:
                chosen.append(agent)
                left -= estimates[agent].cost
        return chosen

    def _affordable(
        self, others: Sequence[int], kept: Sequence[int], estimates: Sequence[AgentEstimate]
    ) -> Sequence[int]:
        """Those of the others that the budget has room for beside the ones that are kept."""
        if self._config.budget is None:
            return others
        left = self._config.budget - sum(estimates[agent].cost for agent in kept)
        return [agent for agent in others if estimates[agent].cost <= left]

    def _turn(self, key: str, others: Sequence[int]) -> list[int]:
        """The agent to explore with, where it is the question's turn: its key alone decides.

        So the schedule is the same in every shard and at every place in the order.
        """
        every, number = self._config.explore_every, int(key, 16)
        if not every or not others or number % every:
            return []
        return [others[number // every % len(others)]]

    def _estimates(self, category: str) -> list[AgentEstimate]:
        weights = self._config.weights
        tracks = self.state.tracks.get(category, self.state.of(OVERALL))
        known = [
            self._known(track, overall) for track, overall in zip(tracks, self.state.of(OVERALL), strict=True)
        ]
        slowest = max(latency or 0.0 for _, latency, _ in known)
        dearest = max(cost or 0.0 for *_, cost in known)
        return [
            _estimate(weights, accuracy or 0.0, (latency, slowest), (cost, dearest))
            for accuracy, latency, cost in known
        ]

    def _known(self, track: Track, overall: Track) -> tuple[float | None, float | None, float | None]:
        """Averages of the category, or over all where it has too few signals (back-off)."""
        enough = self._config.category_min
        pairs = (
            (track.accuracy, overall.accuracy),
            (track.latency, overall.latency),
            (track.cost, overall.cost),
        )
        accuracy, latency, cost = ((own if own.n >= enough else whole).value for own, whole in pairs)
        return accuracy, latency, cost


def _estimate(
    weights: RouterWeights,
    accuracy: float,
    latency: tuple[float | None, float],
    cost: tuple[float | None, float],
) -> AgentEstimate:
    """From the averages of latency and cost, each with the largest of all agents.

    What is not known counts as the largest: an agent whose every row failed is not a cheap one.
    """
    seconds, dear = (largest if value is None else value for value, largest in (latency, cost))
    slow, share = _share(seconds, latency[1]), _share(dear, cost[1])
    score = weights.accuracy * accuracy - weights.latency * slow - weights.cost * share
    return AgentEstimate(accuracy, seconds, dear, score)


def _share(value: float, largest: float) -> float:
    return value / largest if largest > 0 else 0.0


def horizon(config: RouterConfig, place: int) -> int:
    """How many questions, the first ones in order, have come back before the one at ``place`` is routed."""
    if config.mode == "online":
        return place // config.wave * config.wave
    return max(0, place - config.delay + 1) if config.mode == "delayed" else 0


def block(config: RouterConfig) -> int | None:
    """So many questions can be asked at once, before feedback is needed; ``None``: all of them."""
    return {"online": config.wave, "delayed": config.delay}.get(config.mode)


def simulate(
    config: RouterConfig, cases: Sequence[RoutingCase], start: RouterState | None = None
) -> Iterator[Route]:
    """The routes that a run with this router would have taken, over a frozen panel; costs no analysis."""
    agents = len(cases[0].signals) if cases else 0
    router, routes = Router(config, agents, start), list[tuple[int, ...]]()
    came_back = 0
    for place, case in enumerate(cases):
        while came_back < horizon(config, place):
            before, asked = cases[came_back], routes[came_back]
            router.observe(before.category, [s if i in asked else None for i, s in enumerate(before.signals)])
            came_back += 1
        route = router.route(case.key, case.category)
        routes.append(route.agents)
        yield route


def learn(config: RouterConfig, cases: Sequence[RoutingCase]) -> RouterState:
    """The state after all cases, every agent's signal taken in: what a calibration split teaches."""
    state = RouterState(len(cases[0].signals) if cases else 0, config.prior)
    for case in cases:
        state.observe(config.alpha, case.category, case.signals)
    return state
