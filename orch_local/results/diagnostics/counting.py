"""Counts the figures in one pass: rows go through, hashes and counters stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import combinations
from typing import TypeVar

from orch_local.config.answers import schema_for
from orch_local.errors import PromptError
from orch_local.merge.merging import Panel
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.prompts.template import fill
from orch_local.records import Analysis, Outcome, Question
from orch_local.results.diagnostics.copying import Instructions, letters
from orch_local.results.diagnostics.figures import (
    ENOUGH,
    AgainstLabel,
    AgentDiagnostics,
    Baselines,
    Diagnostics,
    NeverDiffer,
    spread_of,
)
from orch_local.results.diagnostics.repeats import Repeats
from orch_local.results.diagnostics.statements import Verdict, verdict
from orch_local.results.tables import ORCH
from orch_local.stats import mcnemar_exact

_Key = TypeVar("_Key")
_Pair = tuple[str | None, str | None]
_Pairs = Mapping[_Pair, int]
"""Multiple-choice questions by answer and gold."""
_OK = Outcome.OK
END = 50
"""Texts with the same so many letters at each end were hardly written for different questions."""


class DiagnosticsCounter:
    """Takes in the questions of a run one by one; memory does not grow with their number."""

    def __init__(self, plan: Plan) -> None:
        self._agents = {agent.name: _AgentCounter(agent) for agent in plan.workers}
        self._merger = self._agents[plan.merger.name] if plan.merger else None
        self._finals: dict[tuple[str | None, str, int], int] = {}
        """Multiple-choice questions by final answer, gold and number of choices."""
        self._same = dict.fromkeys(combinations(self._agents, 2), 0)
        """Questions that two agents both answered, while they gave the same answer to each."""

    def add(self, question: Question, panel: Panel, merged: Analysis | None, final: str | None) -> None:
        """Count one question: the rows of its panel and of the merge agent, and the final answer."""
        agents, answers = self._agents, {}
        for name, row in zip(panel.names, panel.analyses, strict=True):
            if row is not None and row.outcome is _OK:
                agents[name].add(question, row)
                answers[name] = row.answer
        if merged is not None and merged.outcome is _OK and self._merger:
            self._merger.add(question, merged)
            answers[self._merger.name] = merged.answer
        if self._same:
            self._compare(answers)
        if question.choices and question.gold is not None:
            key = (final, question.gold, len(question.choices))
            self._finals[key] = self._finals.get(key, 0) + 1

    def diagnostics(self) -> Diagnostics:
        """All figures, of what was counted so far."""
        never = (NeverDiffer(*pair, count) for pair, count in self._same.items() if count >= ENOUGH)
        agents = {name: one.figures() for name, one in self._agents.items()}
        return Diagnostics(self._baselines(), agents, tuple(never))

    def _compare(self, answers: Mapping[str, str | None]) -> None:
        for first, second in list(self._same):
            if first in answers and second in answers:
                if answers[first] == answers[second]:
                    self._same[first, second] += 1
                else:
                    del self._same[first, second]

    def _baselines(self) -> Baselines:
        finals = self._finals.items()
        gold = _summed((label, count) for (_, label, _), count in finals)
        chance = sum(Fraction(count, choices) for (_, _, choices), count in finals)
        questions, label = gold.total(), _most_frequent(gold)
        systems = {one.name: one.pairs for one in self._agents.values() if one is not self._merger}
        systems[ORCH] = _summed(((final, label), count) for (final, label, _), count in finals if final)
        found = {name: _against(label, pairs) for name, pairs in systems.items()} if label else {}
        return Baselines(
            questions=questions,
            gold=_by_name(gold),
            label=label,
            label_accuracy=gold[label] / questions if label else None,
            chance=float(chance / questions) if questions else None,
            against={name: one for name, one in found.items() if one.questions},
        )


class _AgentCounter:
    """Counts the usable rows of one agent."""

    def __init__(self, plan: AgentPlan) -> None:
        self.name = plan.name
        self._plan = plan
        self._reasons = plan.answer.reasoning_chars > 0
        self._instructions: dict[int, Instructions] = {}
        """By number of choices."""
        self._answers = self._empty = self._cut = self._copied = 0
        self._contradicted = self._undecided = 0
        self._short, self._long, self._ends = Repeats(), Repeats(), Repeats()
        self._rows: dict[tuple[_Pair | None, int | None, int | None], int] = {}
        """Rows by answer and gold, stated confidence and probability, the last two in whole per cent."""

    # All this is done for each row of a run, so it is spelled out where that saves time.
    def add(self, question: Question, row: Analysis) -> None:
        self._answers += 1
        share = row.probabilities.get(row.answer or "") if row.probabilities else None
        key = (
            (row.answer, question.gold) if question.choices else None,
            row.confidence,
            None if share is None else int(100 * share + 0.5),
        )
        self._rows[key] = self._rows.get(key, 0) + 1
        if self._reasons:
            self._add_reasoning(question, row)

    @property
    def pairs(self) -> _Pairs:
        """Multiple-choice questions by answer and gold."""
        return _summed((pair, count) for (pair, _, _), count in self._rows.items() if pair)

    def figures(self) -> AgentDiagnostics:
        pairs, rows = self.pairs.items(), self._rows.items()
        return AgentDiagnostics(
            answers=self._answers,
            labels=_by_name(_summed((answer, count) for (answer, _), count in pairs if answer)),
            gold=_by_name(_summed((gold, count) for (_, gold), count in pairs if gold)),
            reasoning_chars=self._plan.answer.reasoning_chars,
            reasonings=self._answers if self._reasons else 0,
            empty=self._empty,
            cut=self._cut,
            copied=self._copied,
            identical=self._short.repeated + self._long.repeated,
            alike=self._short.repeated + self._ends.repeated,
            contradicted=self._contradicted,
            undecided=self._undecided,
            confidence=spread_of(_summed((one, count) for (_, one, _), count in rows if one is not None)),
            probability=spread_of(_summed((one, count) for (_, _, one), count in rows if one is not None)),
        )

    def _add_reasoning(self, question: Question, row: Analysis) -> None:
        content = row.reasoning.encode("utf-8", "surrogatepass")
        text = letters(content)
        if not text and not row.reasoning.strip():
            self._empty += 1
            return
        if row.cut:
            self._cut += 1
        # In a short text numbers and marks may be all that differs.
        if len(text) < END:
            self._short.add(content)
        else:
            self._long.add(content)
            self._ends.add(text[:END] + text[-END:])
        instructions = self._instructions.get(len(question.choices)) or self._instructions_for(question)
        if instructions.are_copied(text):
            self._copied += 1
        found = verdict(question, row)
        if found is not Verdict.NOTHING:
            self._contradicted += found is Verdict.CONTRADICTED
            self._undecided += found is Verdict.UNDECIDED

    def _instructions_for(self, question: Question) -> Instructions:
        text = Instructions(instructions(self._plan, question.labels))
        return self._instructions.setdefault(len(question.choices), text)


def _against(label: str, pairs: _Pairs) -> AgainstLabel:
    """What a system and always answering ``label`` have right of the questions that the system answered."""
    known = {pair: count for pair, count in pairs.items() if pair[1] is not None}
    gained = sum(count for (answer, gold), count in known.items() if answer == gold != label)
    lost = sum(count for (answer, gold), count in known.items() if answer != gold == label)
    both = pairs.get((label, label), 0)
    return AgainstLabel(sum(known.values()), gained + both, lost + both, mcnemar_exact(gained, lost).p)


def _summed(counts: Iterable[tuple[_Key, int]]) -> Counter[_Key]:
    total: Counter[_Key] = Counter()
    for key, count in counts:
        total[key] += count
    return total


def _most_frequent(counts: Counter[str]) -> str | None:
    return min(counts, key=lambda label: (-counts[label], label), default=None)


def _by_name(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def instructions(plan: AgentPlan, labels: str) -> Iterable[str]:
    """The prompt of an agent for a question with these labels, without its data."""
    present = frozenset(
        {"question", *(["choices"] if labels else ()), *(["panel"] if plan.kind == "merge" else ())}
    )
    try:
        messages = plan.parsed_template.messages(schema_for(labels, plan.answer), present)
    except PromptError:
        return ()  # then no prompt was ever made of it
    return [part for message in messages for part in fill(message.content, {})]
