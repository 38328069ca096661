"""Every vote over every subset of the agents, by the functions that decide a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from orch_local.ablate.frozen import Frozen
from orch_local.merge.merging import confidence_vote, majority, probability_pool
from orch_local.records import Analysis
from orch_local.results.tables import Verdicts

VOTES = ("majority", "confidence", "probability")
MOST_AGENTS = 6
"""Up to so many agents all subsets are counted: 63."""

Places = tuple[int, ...]
"""Some of the agents, by place in agent order, ascending."""


def subsets(agents: int) -> list[Places]:
    """All subsets but the empty one, smaller ones first; of many agents those of 1, n-1 and n agents."""
    sizes = range(1, agents + 1) if agents <= MOST_AGENTS else (1, agents - 1, agents)
    return [places for size in sizes for places in combinations(range(agents), size)]


def voted(vote: str, usable: Sequence[Analysis], labels: str, quorum: int) -> str | None:
    """The answer of one vote; ``None`` below the quorum."""
    if len(usable) < quorum:
        return None
    if vote == "confidence":
        return confidence_vote(usable)
    if vote == "probability":
        return probability_pool(usable, labels) or majority(usable)
    return majority(usable)


class Votes:
    """Answers and verdicts of votes over a frozen panel, counted when asked for, once.

    The quorum is that of the run, and at most the number of agents asked.
    """

    def __init__(self, frozen: Frozen) -> None:
        self._frozen = frozen
        self._quorum = frozen.plan.config.merge.quorum
        self._known: dict[tuple[str, Places], Verdicts] = {}

    @property
    def main(self) -> str:
        """The vote to look at first: by confidence where confidences are stated."""
        return "confidence" if self._frozen.has_confidences else "majority"

    def answers(self, vote: str, places: Places) -> Iterator[str | None]:
        """The answer of the agents at ``places`` to each question."""
        quorum = min(self._quorum, len(places))
        for row, labels in zip(self._frozen.usable, self._frozen.labels, strict=True):
            usable = [one for place in places if (one := row[place]) is not None]
            yield voted(vote, usable, labels, quorum)

    def verdicts(self, vote: str, places: Places) -> Verdicts:
        """Shape (n,): which of these answers are right."""
        if (vote, places) not in self._known:
            self._known[vote, places] = self._frozen.verdicts(list(self.answers(vote, places)))
        return self._known[vote, places]
