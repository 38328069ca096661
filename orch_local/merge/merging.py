"""From a panel to a decision: votes, tie-breaks, quorum, and what the merge agent is asked.

Everything here is pure. The policies follow ORCH (Zhou & Chan 2026, arXiv 2602.01797: many analyses, one
merge); the votes are the usual baselines:

* ``majority``: most usable analyses.
* ``confidence``: largest sum of stated confidences. A stated confidence is the probability, in per cent, that
  the answer is right. The probability of a label is something else (behind a written analysis it is near 1
  whatever the model thinks), so the two are never added: where an analysis of the panel states no confidence,
  all of them count by the probability of their answer, and where one has no probability either, one each.
* ``probability``: log-linear pool (Genest & Zidek 1986, Statistical Science 1(1)): the label with the
  largest sum of log-probabilities over the analyses that have them; without any, as ``majority``.

Ties go to the answer named first in agent order; in the pool, to the first in label order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from orch_local.config.answers import AnswerSchema, schema_for
from orch_local.config.blocks import MergeConfig
from orch_local.prompts.data import Data, one_line_json, question_data
from orch_local.prompts.tasks import Task
from orch_local.records import Analysis, Decision, How, Outcome, Question, digest

PROBABILITY_FLOOR = 1e-12
"""Smallest probability entering the pool, so that one agent's zero is no veto."""

_Value = TypeVar("_Value")


class Panel(NamedTuple):
    """The analyses of one question in agent order; ``None`` where a row is missing."""

    names: tuple[str, ...]
    analyses: tuple[Analysis | None, ...]

    @property
    def usable(self) -> list[Analysis]:
        """The analyses that count."""
        # Asked for several times for each question of a run, so spelled out.
        return [one for one in self.analyses if one is not None and one.outcome is Outcome.OK]

    @property
    def nominated(self) -> tuple[str, ...]:
        """The distinct answers of the usable analyses, sorted."""
        return tuple(sorted({analysis.answer for analysis in self.usable if analysis.answer is not None}))


def majority(usable: Sequence[Analysis]) -> str | None:
    """Answer of most analyses; ``None`` for an empty panel."""
    return _heaviest(usable, [1] * len(usable))


def confidence_vote(usable: Sequence[Analysis]) -> str | None:
    """Answer with the largest sum of one signal in whole per cents; ``None`` for an empty panel."""
    return _heaviest(usable, _weights(usable))


def probability_pool(usable: Sequence[Analysis], labels: str) -> str | None:
    """Label with the largest sum of log-probabilities; ``None`` where no analysis has probabilities."""
    shares = [analysis.probabilities for analysis in usable if analysis.probabilities]
    if not shares or not labels:
        return None
    pooled = [
        math.fsum(math.log(max(share.get(label, 0.0), PROBABILITY_FLOOR)) for share in shares)
        for label in labels
    ]
    return labels[pooled.index(max(pooled))]


def _heaviest(usable: Sequence[Analysis], weights: Sequence[int]) -> str | None:
    totals: dict[str, int] = {}
    for analysis, weight in zip(usable, weights, strict=True):
        if analysis.answer is not None:
            totals[analysis.answer] = totals.get(analysis.answer, 0) + weight
    # A dict keeps the order of insertion and max() the first of equals: ties fall by agent order.
    return max(totals, key=lambda answer: totals[answer], default=None)


def _weights(usable: Sequence[Analysis]) -> Sequence[int]:
    """What each analysis counts in the confidence vote, by the first signal that all of them have."""
    stated = [one.confidence for one in usable if one.confidence is not None]
    if len(stated) == len(usable):
        return stated
    shares = [(one.probabilities or {}).get(one.answer or "") for one in usable]
    known = [round(100 * share) for share in shares if share is not None]
    return known if len(known) == len(usable) else [1] * len(usable)


def needs_merge(panel: Panel, config: MergeConfig) -> bool:
    """Whether the merge agent is asked about this panel."""
    if config.policy != "agent" or len(panel.usable) < config.quorum:
        return False
    return config.when == "always" or len(panel.nominated) > 1


def merge_schema(question: Question, panel: Panel, config: MergeConfig) -> AnswerSchema:
    """What the merge agent may answer."""
    candidates = panel.nominated if config.candidates == "nominated" else None
    return schema_for(question.labels, config.answer, candidates, question.texts)


def merge_task(question: Question, panel: Panel, config: MergeConfig) -> Task:
    """The request to the merge agent; its key covers the question and what is read of the panel."""
    data = question_data(question)
    data["panel"] = Data(_panel_text(panel, config.names == "shown"))
    schema = merge_schema(question, panel, config)
    key = digest([question.key, data["panel"], schema.candidates])[:16]
    return Task(key, data, schema)


def merge_of(question: Question, panel: Panel, config: MergeConfig) -> Task | None:
    """The request to the merge agent about this panel; ``None`` where it is not asked."""
    return merge_task(question, panel, config) if needs_merge(panel, config) else None


def _panel_text(panel: Panel, shown: bool) -> str:
    """One JSON object a line: its escapes keep any analysis inside its own line."""
    lines = []
    for number, (name, analysis) in enumerate(zip(panel.names, panel.analyses, strict=True), start=1):
        entry: dict[str, object] = {"agent": name if shown else str(number)}
        lines.append(one_line_json(entry | _panel_entry(analysis)))
    return "\n".join(lines)


def _panel_entry(analysis: Analysis | None) -> dict[str, object]:
    if analysis is None or not analysis.usable:
        return {"unusable": "missing" if analysis is None else str(analysis.outcome)}
    fields: dict[str, object] = {
        "reasoning": analysis.reasoning,
        "answer": analysis.answer,
        "eliminated": list(analysis.eliminated),
        "confidence": analysis.confidence,
    }
    return {name: value for name, value in fields.items() if value not in ("", [], None)}


def decide(
    question: Question, panel: Panel, config: MergeConfig, merged: Analysis | None, cluster: str = ""
) -> Decision:
    """The final answer to one question. ``merged`` is the merge agent's row, where it was asked."""
    answer, how, reason = _choose(question, panel, config, merged)
    usable = panel.usable
    by_merge = merged if how is How.MERGE else None
    return Decision(
        question_id=question.id,
        category=question.category,
        gold=question.gold,
        answers=_by_name(panel, [_answer(analysis) for analysis in panel.analyses]),
        confidences=_by_name(panel, [a.confidence if a and a.usable else None for a in panel.analyses]),
        outcomes=_by_name(panel, [str(a.outcome) if a else "missing" for a in panel.analyses]),
        answer=answer,
        how=how,
        reason=reason,
        majority=majority(usable) if len(usable) >= config.quorum else None,
        probabilities=_by_name(panel, [_own_probability(analysis) for analysis in panel.analyses]),
        confidence=by_merge.confidence if by_merge else None,
        probability=_own_probability(by_merge),
        cluster=cluster,
    )


class _Choice(NamedTuple):
    answer: str | None
    how: How
    reason: str = ""


def _choose(question: Question, panel: Panel, config: MergeConfig, merged: Analysis | None) -> _Choice:
    usable = panel.usable
    if len(usable) < config.quorum:
        total = len(panel.analyses)
        return _Choice(
            None, How.UNSCORED, f"{len(usable)} of {total} analyses usable, quorum {config.quorum}"
        )
    if config.policy == "majority":
        return _Choice(majority(usable), How.MAJORITY)
    if config.policy == "confidence":
        return _Choice(confidence_vote(usable), How.CONFIDENCE)
    if config.policy == "probability":
        pooled = probability_pool(usable, question.labels)
        return _Choice(pooled, How.PROBABILITY) if pooled else _Choice(majority(usable), How.MAJORITY)
    if not needs_merge(panel, config):
        return _Choice(usable[0].answer, How.UNANIMOUS)
    if merged is None or not merged.usable:
        return _Choice(None, How.UNSCORED, f"merge {merged.outcome if merged else 'missing'}")
    return _Choice(merged.answer, How.MERGE)


def _answer(analysis: Analysis | None) -> str | None:
    return analysis.answer if analysis is not None and analysis.usable else None


def _own_probability(analysis: Analysis | None) -> float | None:
    if analysis is None or not analysis.usable or analysis.answer is None:
        return None
    return (analysis.probabilities or {}).get(analysis.answer)


def _by_name(panel: Panel, values: Sequence[_Value]) -> dict[str, _Value]:
    return dict(zip(panel.names, values, strict=True))
