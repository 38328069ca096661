"""Before a run: how small a difference so many questions show, and how many questions a difference needs.

Two systems are compared on the same questions by the exact McNemar test, so what counts is the share of
questions on which exactly one of them is right. It is not known before a run: a pilot run tells it roughly,
else a table goes through several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orch_local.errors import InputError
from orch_local.plan.files import load_plan
from orch_local.results.summary import Estimate
from orch_local.results.systems import best_agent, systems
from orch_local.results.tables import ORCH, read_table
from orch_local.stats import mcnemar_power, minimum_detectable, pairs_of, questions_needed, wilson
from orch_local.store.store import RunFolder

SIZES = (100, 250, 500, 1_000, 2_500, 5_000, 10_000)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
_AROUND = (0.25, 0.5, 1, 2, 4)
"""The sizes reported with a wanted one, as its multiples."""
MOST_QUESTIONS = 10**7
LEAST_DIFFERENCE = 0.001
"""Smaller ones take millions of questions, and minutes to work that out."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a comparison; shares are within 0 and 1."""

    questions: int | None = None
    difference: float | None = None
    """Of the two accuracies."""
    discordant: tuple[float, ...] = ()
    """Shares of questions on which exactly one of the two systems is right; empty takes ``SHARES``."""
    alpha: float = 0.05
    power: float = 0.8


@dataclass(frozen=True, slots=True)
class SizeRow:
    """So many questions."""

    questions: int
    detectable: tuple[float | None, ...]
    """By discordant share: the smallest difference that shows; ``None`` where none does."""
    chance: tuple[float, ...]
    """By discordant share: how likely the wanted difference shows; empty where none is wanted."""


@dataclass(frozen=True, slots=True)
class PowerTable:
    """The content of `orch-local power`."""

    wish: Wish
    discordant: tuple[float, ...]
    """The columns."""
    sizes: tuple[SizeRow, ...]
    needed: tuple[int | None, ...]
    """By discordant share: the questions that the wanted difference needs; empty where none is wanted."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """What a finished run tells about ORCH against its best agent."""

    run: str
    agent: str
    n: int
    """Questions where both are scored."""
    difference: float
    discordant: Estimate
    """Share of questions where exactly one is right, Wilson interval."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Measured share and the ends of its interval, without 0, by which nothing can be planned."""
        one = self.discordant
        return tuple(share for share in sorted({one.low, one.value, one.high}) if share > 0)


def power_table(wish: Wish) -> PowerTable:
    """The numbers that a wish asks for.

    Raises
    ------
    InputError
        If the wish makes no sense.
    """
    _check(wish)
    shares = _shares(wish)
    difference, limits = wish.difference, (wish.power, wish.alpha)
    needed = () if difference is None else tuple(questions_needed(difference, s, *limits) for s in shares)
    sizes = tuple(_size_row(n, shares, wish) for n in _sizes(wish))
    return PowerTable(wish, shares, sizes, needed)


def pilot(folder: RunFolder) -> Pilot:
    """The discordant share of a finished run.

    Raises
    ------
    StoreError
        If the folder is not that of a finished run.
    InputError
        If no question was scored for both.
    """
    table = read_table(folder, load_plan(folder).names)
    best = best_agent(systems(table))
    pairs = pairs_of(table.verdicts[ORCH], table.verdicts[best]) if best else None
    n = sum(pairs) if pairs else 0
    if not best or not pairs or not n:
        message = (
            "no question is scored for ORCH and for an agent, so the run tells nothing of their difference"
        )
        raise InputError(message, where=str(folder.root), hint="take a run whose questions have gold answers")
    differing = pairs.gained + pairs.lost
    interval = wilson(differing, n)
    assert interval is not None
    share = Estimate(differing / n, interval.low, interval.high)
    return Pilot(folder.root.name, best, n, pairs.difference, share)


def _check(wish: Wish) -> None:
    if wish.questions is not None and not 1 <= wish.questions <= MOST_QUESTIONS:
        raise InputError(
            f"{wish.questions:,} questions cannot be planned for",
            where="--questions",
            hint=f"take 1 to {MOST_QUESTIONS:,}",
        )
    if wish.difference is not None and not LEAST_DIFFERENCE <= wish.difference < 1:
        raise InputError(
            f"a difference of {wish.difference:g} cannot be planned for",
            where="--difference",
            hint=f"take {LEAST_DIFFERENCE:g} or more; 0.02 is two points of accuracy",
        )
    for share in wish.discordant:
        if not 0 < share <= 1:
            raise InputError(
                f"{share:g} is no share of the questions",
                where="--discordant",
                hint="write 0.2 where on every fifth question exactly one of the two is right",
            )


def _shares(wish: Wish) -> tuple[float, ...]:
    """The columns: those that the wanted difference can be made of."""
    least = wish.difference or 0.0
    if not wish.discordant:
        return tuple(share for share in SHARES if share >= least) or (least, 1.0)
    shares = tuple(share for share in wish.discordant if share >= least)
    if not shares:
        raise InputError(
            f"accuracies cannot differ by {least:g} where the systems differ on "
            f"{max(wish.discordant):.3g} of the questions only",
            hint="take a smaller --difference, or a larger --discordant",
        )
    return shares


def _sizes(wish: Wish) -> Sequence[int]:
    if wish.questions is None:
        return () if wish.difference is not None else SIZES
    found = {min(MOST_QUESTIONS, max(1, round(wish.questions * part))) for part in _AROUND}
    return sorted(found)


def _size_row(n: int, shares: Sequence[float], wish: Wish) -> SizeRow:
    detectable = tuple(minimum_detectable(n, share, wish.power, wish.alpha) for share in shares)
    if wish.difference is None:
        return SizeRow(n, detectable, ())
    halves = [((share + wish.difference) / 2, (share - wish.difference) / 2) for share in shares]
    return SizeRow(n, detectable, tuple(mcnemar_power(n, *half, wish.alpha) for half in halves))
