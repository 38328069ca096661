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

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from orch_local.config import RouterConfig
from orch_local.records import canonical_json

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
        before = signal if self.value is None else self.value
        return Ema(self.n + 1, (1 - alpha) * before + alpha * signal)


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
    """Too little is known of some agent yet: those who were asked least."""
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
    """Digest of what had come back (16 hex digits)."""
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
    tracks: dict[str, list[Track]] = field(default_factory=dict)
    """By category, and under :data:`OVERALL`: a track for each agent."""
    observed: int = 0
    """Questions that came back."""
    digest: str = ""
    """SHA-256 over everything that came back, in order (a chain: each step covers the one before)."""

    def __post_init__(self) -> None:
        self.asked = self.asked or [0] * self.agents
        self.of(OVERALL)

    def of(self, category: str) -> list[Track]:
        """The tracks of a category; new ones where nothing is known of it."""
        if category not in self.tracks:
            self.tracks[category] = [Track(Ema(0, self.prior)) for _ in range(self.agents)]
        return self.tracks[category]

    def observe(self, alpha: float, category: str, signals: Sequence[Signal | None]) -> None:
        """Take in what came back of one question; ``None`` for an agent that was not asked."""
        for key in {OVERALL: None, category: None}:
            for track, signal in zip(self.of(key), signals, strict=True):
                if signal is not None:
                    track.observe(alpha, signal)
        self.observed += 1
        line = canonical_json([self.digest, category, [signal and list(signal) for signal in signals]])
        self.digest = hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        tracks = {
            category: [[list(one.accuracy), list(one.latency), list(one.cost)] for one in tracks]
            for category, tracks in sorted(self.tracks.items())
        }
        return {
            "agents": self.agents,
            "prior": self.prior,
            "asked": self.asked,
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
        tracks = {
            str(category): [Track(*(Ema(*ema) for ema in track)) for track in tracks]
            for category, tracks in values["tracks"].items()
        }
        if any(len(tracks) != values["agents"] for tracks in (*tracks.values(), values["asked"])):
            raise ValueError("not as many tracks as agents")
        return cls(**{**values, "tracks": tracks})


class Router:
    """Chooses agents, question after question, and learns from what comes back."""

    def __init__(self, config: RouterConfig, agents: int, start: RouterState | None = None) -> None:
        self._config = config
        self._frozen = config.mode == "calibrated"
        self.state = start or RouterState(agents, config.prior)

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
        if not self._frozen and min(state.asked) < config.warm_up:
            turn = sorted(range(state.agents), key=lambda agent: (state.asked[agent], agent))
            return Phase.WARM_UP, turn[: config.k or 1]
        ranked = sorted(range(state.agents), key=lambda agent: (-estimates[agent].score, agent))
        chosen = ranked[: config.k] if config.k else self._within_budget(ranked, estimates)
        turn = self._turn(key, [agent for agent in range(state.agents) if agent not in chosen])
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
        slowest = max(latency for _, latency, _ in known)
        dearest = max(cost for *_, cost in known)
        return [
            Estimate(
                accuracy,
                latency,
                cost,
                weights.accuracy * accuracy
                - weights.latency * _share(latency, slowest)
                - weights.cost * _share(cost, dearest),
            )
            for accuracy, latency, cost in known
        ]

    def _known(self, track: Track, overall: Track) -> tuple[float, float, float]:
        """Averages of the category, or over all where it has too few signals (back-off)."""
        enough = self._config.category_min
        pairs = (
            (track.accuracy, overall.accuracy),
            (track.latency, overall.latency),
            (track.cost, overall.cost),
        )
        accuracy, latency, cost = ((own if own.n >= enough else whole).value or 0.0 for own, whole in pairs)
        return accuracy, latency, cost


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
