"""What only the merge agent can tell: runs of their own over the store of a run, with other merges alone.

A variant is a run folder below ``RUN/ablations/``. Its analyses are those of the run; its merges go into
the same store. One that is finished is not run again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, permutations
from math import factorial
from pathlib import Path
from typing import Literal

from orch_local.ablate.votes import MOST_AGENTS, Places, subsets
from orch_local.config.blocks import MergeConfig
from orch_local.errors import StoreError
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.router.routes import Routes
from orch_local.run.context import Display, RunContext, StopRequest
from orch_local.run.missing import WantedMerges
from orch_local.run.pipeline import run
from orch_local.run.supervisor import Progress
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Spec, Store, atomic_write, read_json, write_json

Merges = Literal["few", "all", "none"]

_LONGEST_NAME = 100
_ENUMERABLE = 7
"""Up to so many agents all orders are listed and sorted by their hash (5,040)."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One run that differs in whom the merge agent reads, in which order, or by which rules."""

    family: str
    label: str
    places: Places
    """The agents, by place in the run, in the order in which the merge agent reads them."""
    when: str = ""
    """``merge.when``; empty: that of the run."""
    candidates: str = ""

    @property
    def name(self) -> str:
        """Name of its folder: letters, digits and ``-``."""
        text = "-".join(str(place + 1) for place in self.places)
        rules = "".join(f"-{rule}" for rule in (self.when, self.candidates) if rule)
        name = f"merge{rules}-of-{text}"
        if len(name) <= _LONGEST_NAME:
            return name
        return f"merge{rules}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def wanted(plan: Plan, merges: Merges, orders: int | None = None) -> list[Variant]:
    """The variants of a run; ``orders`` asks for so many seeded orders instead of the systematic ones."""
    if plan.merger is None or merges == "none":
        return []
    every = tuple(range(len(plan.agents)))
    return [*_rules(plan.config.merge, every), *_fewer(plan, merges), *_ordered(plan, merges, orders)]


def _rules(rules: MergeConfig, every: Places) -> list[Variant]:
    found = []
    if rules.when != "always":
        found.append(Variant("merge rules", "always", every, when="always"))
    if rules.candidates != "nominated":
        found.append(Variant("merge rules", "candidates nominated", every, candidates="nominated"))
    else:
        found.append(Variant("merge rules", "candidates all", every, candidates="all"))
    return found


def _fewer(plan: Plan, merges: Merges) -> list[Variant]:
    count, names = len(plan.agents), plan.names
    found = []
    for places in subsets(count):
        if len(places) == count - 1 and count > 1:
            (left,) = set(range(count)) - set(places)
            if places:
                found.append(Variant("merge, one agent left out", f"without {names[left]}", places))
        elif 1 < len(places) < count - 1 and merges == "all" and count <= MOST_AGENTS:
            label = " + ".join(names[place] for place in places)
            found.append(Variant("merge, other subsets", label, places))
    return found


def _ordered(plan: Plan, merges: Merges, count: int | None) -> list[Variant]:
    every = tuple(range(len(plan.agents)))
    if count is not None:
        chosen = seeded_orders(len(every), count)
    else:
        rotations = [every[by:] + every[:by] for by in range(1, len(every))]
        chosen = [every[::-1], *(rotations if merges == "all" else rotations[:1])]
    distinct = [order for order in dict.fromkeys(chosen) if order != every]
    return [Variant("merge, other order", _order_label(plan, order), order) for order in distinct]


def _order_label(plan: Plan, order: Places) -> str:
    return ", ".join(plan.names[place] for place in order)


def seeded_orders(agents: int, count: int) -> list[Places]:
    """So many different orders other than the usual one, as far as there are; always the same."""
    every = tuple(range(agents))
    most = min(count, factorial(agents) - 1)
    if agents <= _ENUMERABLE:
        others = islice(permutations(every), 1, None)
        return sorted(others, key=lambda order: _hash(f"order {order}"))[:most]
    found: dict[Places, None] = {}
    number = 0
    while len(found) < most:
        order = tuple(sorted(every, key=lambda place: _hash(f"order {number} {place}")))
        if order != every:
            found[order] = None
        number += 1
    return list(found)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def derived(plan: Plan, variant: Variant) -> Plan:
    """The plan of a variant: as that of the run, but for what the variant changes."""
    changed = {"when": variant.when, "candidates": variant.candidates}
    rules = plan.config.merge.model_copy(
        update={name: value for name, value in changed.items() if value}
        | {"quorum": min(plan.config.merge.quorum, len(variant.places))}
    )
    config = plan.config.model_copy(
        update={"merge": rules, "agents": tuple(plan.config.agents[place] for place in variant.places)}
    )
    agents = tuple(plan.agents[place] for place in variant.places)
    merger = plan.merger
    if merger and rules.candidates != plan.config.merge.candidates:
        merger = _with_panel(merger, rules)
    return plan.model_copy(update={"config": config, "agents": agents, "merger": merger})


def _with_panel(merger: AgentPlan, rules: MergeConfig) -> AgentPlan:
    """The merge agent by other rules for what it reads and answers: another spec of the same model."""
    panel = {**(merger.spec_content.get("panel") or {}), "candidates": rules.candidates}
    spec = Spec.of({**merger.spec_content, "panel": panel})
    return merger.model_copy(update={"spec": spec.digest, "spec_content": dict(spec.content)})


class Variants:
    """The variants of one run: run what is not finished, and count what that generated."""

    def __init__(self, folder: RunFolder, plan: Plan, digest: str) -> None:
        self._folder, self._plan, self._digest = folder, plan, digest
        self.generated = 0
        """Merges generated now."""

    def folder(self, variant: Variant) -> RunFolder:
        """The run folder of a variant."""
        return RunFolder(self._folder.root / "ablations" / variant.name)

    def finish(self, variants: Sequence[Variant], display: Display, stop: StopRequest | None) -> None:
        """Bring all of them to their end.

        Raises
        ------
        StoreError
            If an analysis would have had to be generated, or a folder cannot be written.
        KeyboardInterrupt
            If ``stop`` asked to finish early; the same command continues.
        """
        for variant in variants:
            if not self.finished(variant):
                self._run(variant, _VariantDisplay(display, variant.label), stop)

    def lacking(self, variant: Variant) -> int:
        """How many merges a variant needs that are not stored; nothing is changed.

        Raises
        ------
        StoreError
            If questions or rows cannot be read.
        """
        plan = derived(self._plan, variant)
        if plan.merger is None or self.finished(variant):
            return 0
        questions, everybody = read_questions(self._folder.questions), Routes(len(plan.agents))
        context = RunContext(self.folder(variant), plan, questions, Store(plan.store), read_only=True)
        return len(WantedMerges(context, everybody).missing(plan.merger).rows)

    def finished(self, variant: Variant) -> bool:
        """Whether a variant has its results, from this plan and these analyses."""
        folder = self.folder(variant)
        with suppress(StoreError):
            same = load_plan(folder).identity() == derived(self._plan, variant).identity()
            return same and folder.decisions.with_suffix(".parquet").exists() and self._is_of_this_run(folder)
        return False

    def _is_of_this_run(self, folder: RunFolder) -> bool:
        return folder.metrics.exists() and read_json(_basis(folder)) == {"run": self._digest}

    def _run(self, variant: Variant, display: Display, stop: StopRequest | None) -> None:
        folder = self.folder(variant)
        _basis(folder).unlink(missing_ok=True)
        for name in (self._folder.questions, self._folder.questions.with_suffix(".index")):
            if name.exists():
                _provide(name, folder.root / name.name)
        write_plan(folder, derived(self._plan, variant))
        result = run(RunContext.of(folder, display, stop))
        merger = self._plan.merger.name if self._plan.merger else ""
        analysed = sum(cost.generated_now for name, cost in result.costs.items() if name != merger)
        if analysed:
            message = f"{analysed:,} analyses were missing and were generated"
            hint = "somebody else changed the store: finish the run again, then ablate it again"
            raise StoreError(message, where=str(self._plan.store), hint=hint)
        self.generated += result.costs[merger].generated_now if merger in result.costs else 0
        write_json(_basis(folder), {"run": self._digest})


class _VariantDisplay:
    """A display that tells which variant a stage is of; agents, whose rows are all there, are not shown."""

    def __init__(self, display: Display, label: str) -> None:
        self._display, self._label = display, label

    def stage(self, name: str, total: int, done: int) -> Progress:
        if done >= total:
            return lambda done: None  # noqa: ARG005
        return self._display.stage(f"{name}: {self._label}", total, done)

    def again(self, name: str, rows: int) -> None:
        self._display.again(f"{name}: {self._label}", rows)


def _basis(folder: RunFolder) -> Path:
    """Which run a variant was finished from; written last."""
    return folder.root / "ablation_of.json"


def _provide(source: Path, target: Path) -> None:
    """The same file at another place: a link where the file system has them; it is never written to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
