"""The panel of a finished run, read once and held in memory without its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orch_local.config.blocks import MergeConfig
from orch_local.errors import InputError, StoreError
from orch_local.merge.deciding import Deciding, RunDigest
from orch_local.merge.merging import Panel, decide, needs_merge
from orch_local.plan.files import load_plan
from orch_local.plan.plans import Plan
from orch_local.records import Analysis, Question
from orch_local.results.finished import recorded_digest
from orch_local.results.tables import Verdicts
from orch_local.router.feedback import FeedbackReader
from orch_local.router.routing import RoutingCase
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store

AS_RUN = "as run"
ON_DISAGREEMENT = "on disagreement"


@dataclass(frozen=True, eq=False)
class RuleReplay:
    """Final answers by a merge rule whose merges are all stored, and the tokens of those merges."""

    answers: Sequence[str | None]
    tokens: int


@dataclass(frozen=True, eq=False)
class Frozen:
    """All analyses of a run in question order: ``n`` questions, ``a`` agents."""

    plan: Plan
    digest: str
    """Of the run."""
    usable: Sequence[tuple[Analysis | None, ...]]
    """By question: each agent's analysis where it counts, without its texts."""
    labels: Sequence[str]
    gold: Sequence[str | None]
    cases: Sequence[RoutingCase]
    tokens: npt.NDArray[np.int64]
    """Shape (a, n): prompt and generated tokens of each analysis."""
    replays: Mapping[str, RuleReplay]
    """By merge rule; :data:`AS_RUN` is always there."""

    def __len__(self) -> int:
        return len(self.gold)

    @property
    def agents(self) -> int:
        """How many agents were asked."""
        return len(self.plan.agents)

    @property
    def has_confidences(self) -> bool:
        """Whether any analysis states how sure it is."""
        return any(one is not None and one.confidence is not None for row in self.usable for one in row)

    def verdicts(self, answers: Sequence[str | None]) -> Verdicts:
        """Shape (n,): which of these answers are right."""
        pairs = zip(answers, self.gold, strict=True)
        return np.array([_verdict(answer, gold) for answer, gold in pairs], dtype=np.int8)


def _verdict(answer: str | None, gold: str | None) -> int:
    return -1 if answer is None or gold is None else int(answer == gold)


def freeze(folder: RunFolder) -> Frozen:
    """Read the panel of a finished run.

    Raises
    ------
    InputError
        If a router chose whom to ask: what was not asked cannot be replayed.
    StoreError
        If the run is not finished, or the store no longer holds what it was decided from.
    """
    plan = load_plan(folder)
    if plan.config.router:
        message = "a router chose the agents of this run, so the panel is not whole"
        hint = "run it without the `router` block into another --out: what was asked before is reused"
        raise InputError(message, where=str(folder.root), hint=hint)
    recorded = recorded_digest(folder)
    reading = _Reading(plan, Store(plan.store))
    for question in read_questions(folder.questions):
        reading.add(question)
    frozen = reading.frozen()
    if frozen.digest != recorded:
        message = "the stored rows lead to another digest than the run wrote down"
        hint = "`orch-local replay` says where they differ; the command that made the run decides it anew"
        raise StoreError(message, where=str(folder.root), hint=hint)
    return frozen


class _Reading:
    """Takes in question after question."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._deciding, self._total = plan, Deciding(plan, store), RunDigest(plan.names)
        self._feedback = FeedbackReader(plan)
        self._rules = replayable(plan.config.merge)
        self._answers: dict[str, list[str | None]] = {AS_RUN: [], **{name: [] for name in self._rules}}
        self._merge_tokens = dict.fromkeys(self._rules, 0)
        self._usable: list[tuple[Analysis | None, ...]] = []
        self._labels: list[str] = []
        self._gold: list[str | None] = []
        self._cases: list[RoutingCase] = []
        self._tokens: list[tuple[int, ...]] = []

    def add(self, question: Question) -> None:
        panel = self._deciding.panel(question)
        decision = self._deciding.decide(question, panel)
        rows = [row for row in panel.analyses if row is not None]
        if len(rows) < len(panel.analyses):
            return  # it is counted as missing
        self._total.add(decision)
        self._answers[AS_RUN].append(decision.answer)
        self._replay(question, panel)
        signals = tuple(self._feedback.signal(i, row, question.gold) for i, row in enumerate(rows))
        self._cases.append(RoutingCase(question.key, question.category, signals))
        self._usable.append(tuple(_slim(row) if row.usable else None for row in rows))
        self._tokens.append(tuple(row.usage.prompt + row.usage.generated for row in rows))
        self._labels.append(question.labels)
        self._gold.append(question.gold)

    def _replay(self, question: Question, panel: Panel) -> None:
        merged = self._deciding.merged(question, panel) if self._rules else None
        for name, rules in self._rules.items():
            self._answers[name].append(decide(question, panel, rules, merged).answer)
            if merged is not None and needs_merge(panel, rules):
                self._merge_tokens[name] += merged.usage.prompt + merged.usage.generated

    def frozen(self) -> Frozen:
        missing = {name: count for name, count in self._deciding.missing.items() if count}
        if missing:
            text = ", ".join(f"{count:,} of {name}" for name, count in missing.items())
            hint = "continue the run first: an ablation generates no analysis"
            raise StoreError(f"rows are missing: {text}", where=str(self._plan.store), hint=hint)
        merger = self._plan.merger
        usage = self._deciding.usage[merger.name] if merger else None
        tokens = {AS_RUN: usage.prompt + usage.generated if usage else 0, **self._merge_tokens}
        shape = (len(self._gold), len(self._plan.agents))
        return Frozen(
            plan=self._plan,
            digest=self._total.value,
            usable=self._usable,
            labels=self._labels,
            gold=self._gold,
            cases=self._cases,
            tokens=np.array(self._tokens, dtype=np.int64).reshape(shape).T,
            replays={name: RuleReplay(answers, tokens[name]) for name, answers in self._answers.items()},
        )


def replayable(rules: MergeConfig) -> dict[str, MergeConfig]:
    """Merge rules, by name, that need no merge that a run by ``rules`` has not stored."""
    if rules.policy != "agent" or rules.when != "always":
        return {}
    return {ON_DISAGREEMENT: rules.model_copy(update={"when": "disagreement"})}


def _slim(row: Analysis) -> Analysis:
    return Analysis(row.key, row.outcome, row.answer, row.confidence, probabilities=row.probabilities)
