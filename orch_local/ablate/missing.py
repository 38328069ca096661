"""Merges that variants of an ablation need and the store does not hold, and roughly what they would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orch_local.results.summarise import read_recorded
from orch_local.results.timeline import read_all
from orch_local.store.store import RunFolder


@dataclass(frozen=True, slots=True)
class Missing:
    """A variant that the stored rows alone do not tell."""

    family: str
    label: str
    merges: int
    """How many of its merges are not stored."""


@dataclass(frozen=True, slots=True)
class Price:
    """What generating missing merges would take, judged by those of the run."""

    merges: int
    """At most: variants may have some in common."""
    tokens: int | None
    """Prompt and generated; ``None`` where the run has no merge to judge by."""
    seconds: float | None
    """Of one worker after another, loading included; ``None`` where no timeline has a merge."""


def price(folder: RunFolder, merger: str, missing: Sequence[Missing]) -> Price:
    """What generating all of it would take.

    Raises
    ------
    StoreError
        If ``metrics.json`` of the run is damaged.
    """
    merges = sum(one.merges for one in missing)
    each = _tokens_of_a_merge(folder, merger)
    seconds = _seconds(folder, merger, merges, loads=len(missing))
    return Price(merges, None if each is None else round(each * merges), seconds)


def _tokens_of_a_merge(folder: RunFolder, merger: str) -> float | None:
    cost = read_recorded(folder).cost.get(merger)
    return (cost.usage.prompt + cost.usage.generated) / cost.rows if cost and cost.rows else None


def _seconds(folder: RunFolder, merger: str, merges: int, loads: int) -> float | None:
    spans = [one for timeline in read_all(folder).read for one in timeline.spans if one.agent == merger]
    loaded = [(one, one.loaded_s) for one in spans if one.loaded_s is not None and one.rows]
    rows = sum(one.rows for one, _ in loaded)
    if not rows:
        return None
    load_s = sum(at - one.start_s for one, at in loaded) / len(loaded)
    generate_s = sum(one.end_s - at - one.recheck_s for one, at in loaded)
    return loads * load_s + merges * generate_s / rows
