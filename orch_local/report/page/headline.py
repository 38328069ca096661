"""The first screen: is ORCH better, by how much, and how sure is that?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orch_local.report.formatting import CHANCE_P
from orch_local.report.page.wording import counted, name, p_sentence, percent, signed, signed_span, span
from orch_local.results.summary import Estimate, PairSummary, Summary, SystemSummary
from orch_local.results.tables import MAJORITY, ORACLE, ORCH


@dataclass(frozen=True, slots=True)
class Card:
    """One key figure."""

    label: str
    value: str
    unit: str
    note: str
    estimate: Estimate | None = None
    """To be drawn; of a difference where ``zero`` is set."""
    zero: bool = False


@dataclass(frozen=True, slots=True)
class Headline:
    """The result in words and in a few figures."""

    title: str
    text: str
    cards: tuple[Card, ...]


def headline(summary: Summary) -> Headline:
    """The first statement about a run."""
    orch = system(summary, ORCH)
    if not summary.gold:
        return Headline(
            "No question has a gold answer, so nothing can be scored",
            f"The run has {counted(summary.questions, 'question')}. "
            "Answers, agreement and cost are below; accuracies are not known.",
            (),
        )
    if orch is None or orch.accuracy is None:
        return Headline(
            f"ORCH answered none of {counted(summary.gold, 'question')} with a gold answer",
            "Why its questions are unscored is told below.",
            (),
        )
    return Headline(_title(summary, orch), " ".join(_sentences(summary, orch)), tuple(_cards(summary, orch)))


def system(summary: Summary, wanted: str) -> SystemSummary | None:
    """A system by its name."""
    return next((one for one in summary.systems if one.name == wanted), None)


def versus(summary: Summary, other: str | None) -> PairSummary | None:
    """ORCH against another system."""
    return next((one for one in summary.pairs if (one.first, one.second) == (ORCH, other)), None)


def within_chance(pair: PairSummary) -> bool:
    """Whether the difference may well be chance."""
    return pair.p is None or pair.p >= CHANCE_P


def _best_agent(summary: Summary) -> str | None:
    """The best agent; nobody in a routed run, whose agents were asked about different questions."""
    return None if summary.router else summary.best_agent


def _title(summary: Summary, orch: SystemSummary) -> str:
    pair = versus(summary, _best_agent(summary))
    if pair is None or pair.difference is None:
        share = percent(orch.accuracy.value if orch.accuracy else None)
        return f"ORCH answered {share} of {counted(orch.scored, 'question')} correctly"
    if within_chance(pair):
        return "ORCH and the best single agent cannot be told apart"
    gap = f"{abs(100 * pair.difference.value):.1f}"
    side = "better" if pair.difference.value > 0 else "worse"
    return f"ORCH is {gap} points {side} than the best single agent"


def _sentences(summary: Summary, orch: SystemSummary) -> Iterator[str]:
    assert orch.accuracy is not None
    asked = counted(orch.scored, "question")
    answered = f"{percent(orch.accuracy.value)} of {asked} correctly (95 % interval {span(orch.accuracy)})"
    yield f"ORCH answered {answered}."
    against = [
        text
        for other, words in ((_best_agent(summary), "the best single agent"), (MAJORITY, "the majority vote"))
        if (text := _against(summary, other, words))
    ]
    if against:
        yield f"It stands {', and '.join(against)}."
    oracle = system(summary, ORACLE)
    if oracle and oracle.accuracy:
        reach = percent(oracle.accuracy.value)
        chosen = "a right one of the agents that were asked" if summary.router else "a right agent"
        yield f"An oracle that picks {chosen} wherever there is one would reach {reach}."
    yield from _missing(summary, orch)


def _against(summary: Summary, other: str | None, words: str) -> str:
    pair = versus(summary, other)
    if other is None or pair is None or pair.difference is None:
        return ""
    called = words if other == MAJORITY else f"{words}, {name(other)}"
    gap = f"{abs(100 * pair.difference.value):.1f}"
    side = "above" if pair.difference.value > 0 else "below"
    relation = "level with" if gap == "0.0" else f"{gap} points {side}"
    chance = ", within chance" if within_chance(pair) else ""
    return f"{relation} {called} (interval {signed_span(pair.difference)}; {p_sentence(pair.p)}{chance})"


def _missing(summary: Summary, orch: SystemSummary) -> Iterator[str]:
    unscored = sum(orch.unscored.values())
    if unscored:
        yield (
            f"{counted(unscored, 'question')} with a gold answer stayed unscored, which is not wrong; "
            f"of all {summary.gold:,} ORCH has {percent(orch.accuracy_all)} right."
        )
    if summary.no_gold:
        yield f"Left out for want of a gold answer: {counted(summary.no_gold, 'question')}."


def _cards(summary: Summary, orch: SystemSummary) -> Iterator[Card]:
    assert orch.accuracy is not None
    share = f"{100 * orch.accuracy.value:.1f}"
    right = f"{span(orch.accuracy)}; {orch.correct:,} of {orch.scored:,}"
    yield Card("ORCH, right answers", share, "%", right, orch.accuracy)
    best = _best_agent(summary)
    if best:
        yield from _difference(summary, best, f"against {name(best, 24)}, the best agent")
    yield from _difference(summary, MAJORITY, "against the majority vote")


def _difference(summary: Summary, other: str, label: str) -> Iterator[Card]:
    pair = versus(summary, other)
    if pair is not None and pair.difference is not None:
        note = f"{signed_span(pair.difference)}; {p_sentence(pair.p)}"
        if within_chance(pair):
            note += ", within chance"
        yield Card(label, signed(pair.difference.value), "points", note, pair.difference, zero=True)
