"""The agents of several runs against one of these runs, on the same questions. Pure, on columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from orch_local.results.summary import Estimate, PairSummary
from orch_local.results.systems import accuracy, adjusted, compared
from orch_local.results.tables import Verdicts
from orch_local.stats import pairs_of


@dataclass(frozen=True, slots=True)
class Competitor:
    """One agent on the common questions; of runs with the same spec and the same verdicts it stands once."""

    name: str
    """``run / agent``."""
    runs: tuple[str, ...]
    accuracy: Estimate | None
    versus: PairSummary
    """The first ranked run against it."""


class RunAgent(NamedTuple):
    """One agent of one run on the common questions."""

    run: str
    agent: str
    spec: str
    verdicts: Verdicts

    def same(self, other: RunAgent) -> bool:
        """Whether it is the same agent and did the same."""
        return (self.agent, self.spec) == (other.agent, other.spec) and np.array_equal(
            self.verdicts, other.verdicts
        )


def competitors(leader: str, final: Verdicts, agents: Sequence[RunAgent]) -> tuple[Competitor, ...]:
    """One run, by its final verdicts, against all these agents."""
    groups: list[list[RunAgent]] = []
    for agent in agents:
        alike = next((group for group in groups if group[0].same(agent)), None)
        if alike:
            alike.append(agent)
        else:
            groups.append([agent])
    named = [(f"{group[0].run} / {group[0].agent}", group) for group in groups]
    pairs = adjusted([compared(leader, name, pairs_of(final, group[0].verdicts)) for name, group in named])
    return tuple(
        Competitor(name, tuple(one.run for one in group), share(group[0].verdicts), pair)
        for (name, group), pair in zip(named, pairs, strict=True)
    )


def share(verdicts: Verdicts) -> Estimate | None:
    """The accuracy."""
    return accuracy(int(np.count_nonzero(verdicts == 1)), int(np.count_nonzero(verdicts >= 0)))
