"""What the workers of an execution took and generated, as the stages return it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Timing:
    """Wall seconds of one agent's workers, and how often one died."""

    load_s: float = 0.0
    generate_s: float = 0.0
    """What generating rows again took is part of it."""
    deaths: int = 0
    recheck_s: float = 0.0
    rechecked: int = 0
    """Rows that were generated again, in ``recheck_s``."""

    def __str__(self) -> str:
        again = f", {self.rechecked} rows of it again in {self.recheck_s:.1f} s" if self.rechecked else ""
        died = f", {self.deaths} of its workers died" if self.deaths else ""
        return f"loaded in {self.load_s:.1f} s, generated in {self.generate_s:.1f} s{again}{died}"

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.load_s + other.load_s,
            self.generate_s + other.generate_s,
            self.deaths + other.deaths,
            self.recheck_s + other.recheck_s,
            self.rechecked + other.rechecked,
        )


@dataclass(frozen=True, slots=True)
class RunStats:
    """What one stage, or several together, came to."""

    timings: Mapping[str, Timing] = field(default_factory=dict)
    """By agent, of all its workers."""
    generated: Mapping[str, int] = field(default_factory=dict)
    """Rows that were missing and were to be generated, by agent."""
    damaged: frozenset[Path] = frozenset()
    """Chunks of the store that were damaged and were set aside."""

    @classmethod
    def set_aside(cls, chunks: Iterable[Path]) -> RunStats:
        """Of a stage that set chunks aside and generated nothing."""
        return cls(damaged=frozenset(chunks))

    def __add__(self, other: RunStats) -> RunStats:
        timings, generated = dict(self.timings), dict(self.generated)
        for name, timing in other.timings.items():
            timings[name] = timings.get(name, Timing()) + timing
        for name, rows in other.generated.items():
            generated[name] = generated.get(name, 0) + rows
        return RunStats(timings, generated, self.damaged | other.damaged)
