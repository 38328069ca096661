"""What the router remembers: exponential moving averages of what came back, and their digest.

For agent a, in a category and over all categories, each signal has an average that is updated by

    ema <- (1 - alpha) * ema + alpha * signal
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
