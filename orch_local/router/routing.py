"""Which agents are asked about a question: pure, by exponential moving averages of what came back before.

After ORCH (Zhou & Chan 2026, arXiv 2602.01797), whose router chooses agents by historical accuracy, latency
or cost. For agent a, in a category and over all categories, each signal has an average that is updated by

    ema <- (1 - alpha) * ema + alpha * signal

and the agents with the highest score are asked:

    score = w_acc * accuracy - w_lat * latency_norm - w_cost * cost_norm

See docs/routing.md for every symbol. Nothing here reads a clock or draws a number: the same observations in
the same order give the same routes on every machine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from orch_local.config.blocks import RouterConfig, RouterWeights
from orch_local.records import digest

OVERALL = ""
"""Key of the averages over all categories; no category has an empty name."""


class Signal(NamedTuple):
    """What came back from one agent that was asked; ``None`` where there is no such signal."""

    accuracy: bool | None
    """Whether it delivered the right answer; no answer is not the right one. ``None`` without gold."""
    latency: float | None
    """Seconds of a pinned profile, or generated tokens."""
    cost: float | None
    """Device-seconds of a pinned profile, or tokens."""


class Ema(NamedTuple):
    """An exponential moving average; ``value`` is the prior, or nothing, before the first signal."""

    n: int = 0
    value: float | None = None

    def updated(self, alpha: float, signal: float | None) -> Ema:
        """The average with one more signal; without a prior it begins with the first one."""
        if signal is None:
            return self
        if self.value is None:
            return Ema(self.n + 1, signal)
        return Ema(self.n + 1, (1 - alpha) * self.value + alpha * signal)


@dataclass(slots=True)
class Track:
    """The averages of one agent, in one category or over all."""

    accuracy: Ema
    latency: Ema = field(default_factory=Ema)
    cost: Ema = field(default_factory=Ema)

    def observe(self, alpha: float, signal: Signal) -> None:
        """Take in what came back."""
        right = None if signal.accuracy is None else float(signal.accuracy)
        self.accuracy = self.accuracy.updated(alpha, right)
        self.latency = self.latency.updated(alpha, signal.latency)
        self.cost = self.cost.updated(alpha, signal.cost)


class Phase(StrEnum):
    """Why the agents of a question were chosen."""

    WARM_UP = "warm_up"
    """Too little has come back from some agent yet: those who were asked least."""
    SCORE = "score"
    EXPLORE = "explore"
    """By score, but for the last one, whose turn it is by the exploration schedule."""


class Estimate(NamedTuple):
    """What the router thinks of one agent, for one question."""

    accuracy: float
    latency: float
    cost: float
    score: float


class Route(NamedTuple):
    """Who is asked about one question, and the state that this was told from."""

    agents: tuple[int, ...]
    """Places in agent order, ascending."""
    phase: Phase
    observed: int
    """Questions that had come back."""
    state: str
    """Digest of what had come back (16 hex digits; empty before the first)."""
    estimates: tuple[Estimate, ...]
    """Of every agent, asked or not."""


class Case(NamedTuple):
    """A question with what every agent's analysis would tell, for routing over a frozen panel."""

    key: str
    category: str
    signals: tuple[Signal, ...]
    """By agent."""


@dataclass(slots=True)
class RouterState:
    """All that the router remembers."""

    agents: int
    prior: float
    asked: list[int] = field(default_factory=list)
    """How often each agent was chosen."""
    returned: list[int] = field(default_factory=list)
    """How often each agent was chosen and came back."""
    tracks: dict[str, list[Track]] = field(default_factory=dict)
    """By category, and under :data:`OVERALL`: a track for each agent."""
    observed: int = 0
    """Questions that came back."""
    digest: str = ""
    """SHA-256 over everything that came back, in order (a chain: each step covers the one before)."""

    def __post_init__(self) -> None:
        self.asked = self.asked or [0] * self.agents
        self.returned = self.returned or [0] * self.agents
        self.of(OVERALL)

    def of(self, category: str) -> list[Track]:
        """The tracks of a category; new ones, which start from what is known over all, if it is new."""
        if category not in self.tracks:
            overall = self.tracks.get(OVERALL, [Track(Ema(0, self.prior))] * self.agents)
            self.tracks[category] = [Track(Ema(0, one.accuracy.value)) for one in overall]
        return self.tracks[category]

    def observe(self, alpha: float, category: str, signals: Sequence[Signal | None]) -> None:
        """Take in what came back of one question; ``None`` for an agent that was not asked."""
        known = [signal and _as_floats(signal) for signal in signals]
        # Both are looked up before one learns: a new category starts from what was known before it.
        for tracks in {key: self.of(key) for key in (OVERALL, category)}.values():
            for track, signal in zip(tracks, known, strict=True):
                if signal is not None:
                    track.observe(alpha, signal)
        self.returned = [n + (signal is not None) for n, signal in zip(self.returned, known, strict=True)]
        self.observed += 1
        self.digest = digest([self.digest, category, [signal and list(signal) for signal in known]])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        tracks = {
            category: [[list(one.accuracy), list(one.latency), list(one.cost)] for one in tracks]
            for category, tracks in sorted(self.tracks.items())
        }
        return {
            "agents": self.agents,
            "prior": self.prior,
            "asked": list(self.asked),
            "returned": list(self.returned),
            "tracks": tracks,
            "observed": self.observed,
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RouterState:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If ``values`` are not of that form.
        """
        if values.keys() != cls(0, 0.0).to_dict().keys():
            raise ValueError("other fields than a state has")
        agents, tracks = values["agents"], values["tracks"]
        if not isinstance(tracks, dict) or OVERALL not in tracks:
            raise ValueError("no averages over all categories")
        if any(len(one) != agents for one in (*tracks.values(), values["asked"], values["returned"])):
            raise ValueError("not as many tracks as agents")
        read = {str(category): [_as_track(one) for one in tracks] for category, tracks in tracks.items()}
        counts = {name: [int(n) for n in values[name]] for name in ("asked", "returned")}
        return cls(**{**values, **counts, "tracks": read})


def _as_floats(signal: Signal) -> Signal:
    """The same signal, whatever kind of number it came as, so that equal ones have equal digests."""
    latency = None if signal.latency is None else float(signal.latency)
    cost = None if signal.cost is None else float(signal.cost)
    return Signal(None if signal.accuracy is None else bool(signal.accuracy), latency, cost)


def _as_track(values: Sequence[Sequence[Any]]) -> Track:
    accuracy, latency, cost = (_as_ema(*one) for one in values)
    return Track(accuracy, latency, cost)


def _as_ema(n: Any, value: Any) -> Ema:
    average = None if value is None else float(value)
    if int(n) < 0 or not math.isfinite(average or 0.0):
        raise ValueError(f"no average: {n}, {value}")
    return Ema(int(n), average)


class Router:
    """Chooses agents, question after question, and learns from what comes back."""

    def __init__(self, config: RouterConfig, agents: int, start: RouterState | None = None) -> None:
        self._config = config
        self._frozen = config.mode == "calibrated"
        if start and start.agents != agents:
            raise ValueError(f"a state of {start.agents} agents, where there are {agents}")
        self.state = copy.deepcopy(start) or RouterState(agents, config.prior)

    def route(self, key: str, category: str) -> Route:
        """Who is asked about the question with this key (16 hex digits)."""
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

    def _choose(self, key: str, estimates: Sequence[Estimate]) -> tuple[Phase, list[int]]:
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

    def _within_budget(self, ranked: Sequence[int], estimates: Sequence[Estimate]) -> list[int]:
        """The best ones whose expected costs together stay within the budget; the very best in any case."""
        chosen, left = [ranked[0]], (self._config.budget or 0.0) - estimates[ranked[0]].cost
        for agent in ranked[1:]:
            if estimates[agent].cost <= left:
                chosen.append(agent)
                left -= estimates[agent].cost
        return chosen

    def _affordable(
        self, others: Sequence[int], kept: Sequence[int], estimates: Sequence[Estimate]
    ) -> Sequence[int]:
        """Those of the others that the budget has room for beside the ones that are kept."""
        if self._config.budget is None:
            return others
        left = self._config.budget - sum(estimates[agent].cost for agent in kept)
        return [agent for agent in others if estimates[agent].cost <= left]

    def _turn(self, key: str, others: Sequence[int]) -> list[int]:
        """The agent to explore with, where it is the question's turn: told by its key alone.

        So the schedule is the same in every shard and at every place in the order.
        """
        every, number = self._config.explore_every, int(key, 16)
        if not every or not others or number % every:
            return []
        return [others[number // every % len(others)]]

    def _estimates(self, category: str) -> list[Estimate]:
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
) -> Estimate:
    """From the averages of latency and cost, each with the largest of all agents.

    What is not known counts as the largest: an agent whose every row failed is not a cheap one.
    """
    seconds, dear = (largest if value is None else value for value, largest in (latency, cost))
    slow, share = _share(seconds, latency[1]), _share(dear, cost[1])
    score = weights.accuracy * accuracy - weights.latency * slow - weights.cost * share
    return Estimate(accuracy, seconds, dear, score)


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
    config: RouterConfig, cases: Sequence[Case], start: RouterState | None = None
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


def learn(config: RouterConfig, cases: Sequence[Case]) -> RouterState:
    """The state after all cases, every agent's signal taken in: what a calibration split teaches."""
    state = RouterState(len(cases[0].signals) if cases else 0, config.prior)
    for case in cases:
        state.observe(config.alpha, case.category, case.signals)
    return state
