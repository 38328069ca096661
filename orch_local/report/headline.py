"""The result of a run in one paragraph, with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterable

from orch_local.report.formatting import CHANCE_P, NBSP, counted, interval, p_value, percent
from orch_local.report.safe import visible
from orch_local.results.scoring import Metrics, PairedComparison, System


def headline(metrics: Metrics, *, routed: bool = False) -> str:
    """The result in plain words, with its uncertainty; no-break spaces hold numbers and units together.

    Of a ``routed`` run no best agent is named: its agents were asked about different questions.
    """
    orch, gold = metrics.total.orch, metrics.total.gold
    if not gold:
        return (
            f"No question has a gold answer, so nothing can be scored; "
            f"ORCH answered {metrics.answered:,} of {counted(metrics.questions, 'question')}."
        )
    if not orch.scored:
        return f"ORCH answered none of {counted(gold, 'question')} with a gold answer."
    texts = (_result_sentence(metrics, routed), *_oracle_sentence(metrics, routed))
    return " ".join((*texts, *_missing_sentences(metrics)))


def _result_sentence(metrics: Metrics, routed: bool) -> str:
    orch = metrics.total.orch
    result = f"ORCH answered {percent(orch.accuracy)} of {counted(orch.scored, 'question')} correctly"
    if orch.unscored:
        gold, share = counted(metrics.total.gold, "question"), percent(orch.accuracy)
        result = f"ORCH answered {orch.scored:,} of {gold}, {share} of them correctly"
    parts = [f"{result} (95{NBSP}% interval {interval(orch, f'{NBSP}to{NBSP}')})"]
    if metrics.best_agent is not None and not routed:
        name = visible(metrics.best_agent)
        versus = metrics.versus.agents[metrics.best_agent]
        parts.append(_versus(versus, f"the best single agent, {name}", orch))
    parts.append(_versus(metrics.versus.majority, "the majority vote", orch))
    texts = [part for part in parts if part]
    return ", ".join(texts[:2]) + "".join(f", and {part}" for part in texts[2:]) + "."


def _versus(comparison: PairedComparison, other: str, orch: System) -> str:
    if comparison.difference is None or comparison.p is None:
        return ""
    gap = f"{abs(100 * comparison.difference):.1f}"
    side = "above" if comparison.difference > 0 else "below"
    relation = "level with" if gap == "0.0" else f"{gap} points {side}"
    chance = ", within chance" if comparison.p >= CHANCE_P else ""
    both = f", on the {counted(comparison.n, 'question')} that both answered"
    basis = both if comparison.n < orch.scored else ""
    p = f"p{NBSP}{p_value(comparison.p, '=' + NBSP).replace(' ', NBSP)}"
    return f"{relation} {other}{basis} ({p}{chance})"


def _oracle_sentence(metrics: Metrics, routed: bool) -> Iterable[str]:
    if metrics.total.oracle.accuracy is not None:
        reach = percent(metrics.total.oracle.accuracy)
        if routed:
            yield f"An oracle that picks the right one of the agents that were asked would reach {reach}."
            yield "No agent is named as the best: agents were asked about different questions."
        else:
            yield f"An oracle that picks the right agent each time would reach {reach}."


def _missing_sentences(metrics: Metrics) -> Iterable[str]:
    total = metrics.total
    unscored = total.gold - total.orch.scored
    if unscored:
        share = percent(total.orch.accuracy_all)
        yield (
            f"Of all {total.gold:,} questions with a gold answer, the {unscored:,} unscored included, "
            f"ORCH has {share} right."
        )
    if metrics.no_gold:
        yield f"Left out for want of a gold answer: {counted(metrics.no_gold, 'question')}."
