"""A router over a frozen panel, and what it is measured by: chance, the best fixed choice, the oracle.

All choose ``k`` agents for each question, and the same vote decides. Chosen in hindsight, the best fixed
agents are the same ``k`` for all questions, and the oracle's are some ``k`` that are right, where there are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

from orch_local.ablate.frozen import Frozen
from orch_local.ablate.votes import Places, Votes
from orch_local.config.blocks import RouterConfig, RouterWeights
from orch_local.results.tables import Verdicts
from orch_local.router.routing import simulate

ALPHAS = (0.05, 0.1, 0.3)
USUAL_ALPHA = 0.1
WEIGHTS = {
    "accuracy": RouterWeights(),
    "accuracy - latency": RouterWeights(latency=1),
    "accuracy - cost": RouterWeights(cost=1),
    "accuracy - latency - cost": RouterWeights(latency=1, cost=1),
}
USUAL_WEIGHTS = "accuracy"
MOST_CHOICES = 64
"""A ``k`` with more ways to choose so many agents is left out."""

Choice = npt.NDArray[np.int32]
"""Shape (n,): for each question a place in the list of all ways to choose k agents."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One router of the grid."""

    mode: str
    k: int
    alpha: float
    weights: str

    @property
    def config(self) -> RouterConfig:
        """As a run file would say it; the wave, the delay and the warm-up are the usual ones."""
        return RouterConfig.model_validate(
            {"mode": self.mode, "k": self.k, "alpha": self.alpha, "weights": WEIGHTS[self.weights]}
        )

    @property
    def usual(self) -> bool:
        """Whether only ``k`` was chosen."""
        return self.mode == "online" and (self.alpha, self.weights) == (USUAL_ALPHA, USUAL_WEIGHTS)


def sizes(agents: int) -> list[int]:
    """The numbers of agents to ask that are tried: all but all, where the ways to choose are not too many."""
    return [k for k in range(1, agents) if comb(agents, k) <= MOST_CHOICES]


def grid(agents: int) -> list[Setting]:
    """All routers that are tried."""
    settings = list[Setting]()
    for k in sizes(agents):
        settings += [Setting("online", k, alpha, weights) for alpha in ALPHAS for weights in WEIGHTS]
        settings.append(Setting("delayed", k, USUAL_ALPHA, USUAL_WEIGHTS))
    return settings


class Choices:
    """All ways to choose ``k`` of the agents, with one vote over each."""

    def __init__(self, frozen: Frozen, votes: Votes, k: int, vote: str) -> None:
        self.ways: list[Places] = list(combinations(range(frozen.agents), k))
        self.verdicts = np.stack([votes.verdicts(vote, way) for way in self.ways])
        """Shape (ways, n)."""
        self._frozen = frozen
        self._numbers = {way: number for number, way in enumerate(self.ways)}

    def routed(self, setting: Setting) -> Choice:
        """What a router would have chosen: each time from what came back before."""
        routes = simulate(setting.config, self._frozen.cases)
        return np.array([self._numbers[route.agents] for route in routes], dtype=np.int32)

    def random(self) -> Choice:
        """Chosen by the hash of each question's key."""
        keys = (case.key for case in self._frozen.cases)
        return np.array([_drawn(key, len(self.ways)) for key in keys], dtype=np.int32)

    def fixed(self) -> Choice:
        """The same for all questions: with the most right answers, the first of equals."""
        best = int((self.verdicts == 1).sum(axis=1).argmax()) if len(self._frozen) else 0
        return np.full(len(self._frozen), best, dtype=np.int32)

    def oracle(self) -> Choice:
        """For each question the first that is right; else the first that is scored."""
        first: Choice = self.verdicts.argmax(axis=0).astype(np.int32)
        return first

    def chosen(self, choice: Choice) -> Verdicts:
        """Shape (n,): which answers are right."""
        picked: Verdicts = np.take_along_axis(self.verdicts, choice[None, :], axis=0)[0]
        return picked

    def tokens(self, choice: Choice) -> int:
        """Of the analyses that are asked for."""
        total = np.stack([self._frozen.tokens[list(way)].sum(axis=0) for way in self.ways])
        return int(np.take_along_axis(total, choice[None, :], axis=0).sum())

    def expected(self) -> float | None:
        """Right answers for each question with gold, when agents are chosen by chance: exact."""
        gold = sum(one is not None for one in self._frozen.gold)
        return float((self.verdicts == 1).sum() / len(self.ways) / gold) if gold else None


def _drawn(key: str, ways: int) -> int:
    return int.from_bytes(hashlib.sha256(f"random agents for {key}".encode()).digest()[:8]) % ways
