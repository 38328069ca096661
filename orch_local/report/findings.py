"""How the agents answered, in sentences and as table rows, for all reports alike.

``shown`` makes a foreign name harmless where the sentence goes, as in :mod:`orch_local.report.words`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orch_local.plan.plans import MERGE
from orch_local.records import LABELS
from orch_local.report.formatting import CHANCE_P, NBSP, counted, p_value, percent, points
from orch_local.report.safe import visible
from orch_local.results.diagnostics import AgainstLabel, AgentDiagnostics, Diagnostics, Spread
from orch_local.results.diagnostics.figures import ENOUGH
from orch_local.results.summary import Calibration
from orch_local.results.tables import ORCH

Shown = Callable[[str], str]
NOTICEABLE = 0.05
"""Of the rows. The interval of an accuracy over 1,000 questions is about as wide: fewer hide in it."""
REPEATED = 0.10
"""Of the reasonings. Short ones such as ``7 + 5 = 12`` may be the same by chance, but not one in ten."""
LABEL_GAP = 0.20
"""An agent that guesses in the shares of gold comes as far off with 20 questions in one run of twenty."""
ONE_LABEL = 0.90
"""Share of one label where there is no gold to hold it against."""
_LABELS = tuple(LABELS)
"""Nothing else is reported as a label, whatever stands in a file that was changed by hand."""
MOST_NAMES = 8
"""Agents that one sentence names."""


class Findings(NamedTuple):
    """Sentences; none where there is nothing to say."""

    headline: tuple[str, ...]
    """What belongs near the headline: it is about the final answers."""
    agents: tuple[str, ...]
    """What is about the agents, and the merge agent."""

    def __bool__(self) -> bool:
        return bool(self.headline or self.agents)


def findings(found: Diagnostics | None, policy: str, shown: Shown = visible) -> Findings:
    """All sentences about a run; ``policy`` is its ``merge.policy``."""
    if found is None:
        return Findings((), ())
    headline = [*_baseline(found), *_confidence_vote(found, policy, shown)]
    agents = [
        *_labels(found, shown),
        *_agent_baselines(found, shown),
        *_repeated(found, shown),
        *_faults(found, shown),
        *_constant(found, shown),
        *_never_differ(found, shown),
    ]
    return Findings(tuple(headline), tuple(agents))


def _baseline(found: Diagnostics) -> Iterator[str]:
    known, orch = found.baselines, found.baselines.against.get(ORCH)
    if orch is None or orch.questions < ENOUGH or known.label not in _LABELS:
        return
    if known.label_accuracy == 1:
        asked = counted(known.questions, "multiple-choice question")
        yield f"The gold of all {asked} is {known.label}: accuracy shows no more than who prefers that label."
    elif _is_not_above(orch):
        yield f"{_against(ORCH, orch, known.label)}; chance is {percent(known.chance)}."


def _agent_baselines(found: Diagnostics, shown: Shown) -> Iterator[str]:
    known = found.baselines
    if known.label not in _LABELS or known.label_accuracy == 1:
        return
    poor = [
        _against(shown(name), one, known.label)
        for name, one in known.against.items()
        if name != ORCH and one.questions >= ENOUGH and _is_not_above(one)
    ]
    yield from _clauses(poor)


def _is_not_above(one: AgainstLabel) -> bool:
    return one.right <= one.label_right or one.p >= CHANCE_P


def _against(name: str, one: AgainstLabel, label: str) -> str:
    side = "below" if one.right < one.label_right and one.p < CHANCE_P else "not above"
    p = f"p{NBSP}{p_value(one.p, '=' + NBSP).replace(' ', NBSP)}"
    right, other = percent(one.right / one.questions), percent(one.label_right / one.questions)
    asked = counted(one.questions, "question")
    return f"{name} ({right} of {asked}) is {side} always answering {label} ({other}; {p})"


def _confidence_vote(found: Diagnostics, policy: str, shown: Shown) -> Iterator[str]:
    constant = [(shown(name), one) for name, one in found.agents.items() if _is_constant(one.confidence)]
    if policy != "confidence" or not constant:
        return
    stated = _listed(f"{name} stated {_value(one.confidence)}" for name, one in constant if one.confidence)
    instead = _instead([(name, one.probability) for name, one in constant])
    yield f"merge.policy: confidence weighs a signal that does not vary: {stated}. {instead}"


def _is_constant(one: Spread | None) -> bool:
    return one is not None and one.is_constant


def _instead(probabilities: Sequence[tuple[str, Spread | None]]) -> str:
    """What to take instead of a confidence that does not vary; by agent the spread of its probability."""
    varied = [name for name, one in probabilities if one and not one.is_flat]
    flat = [f"{name} ({_value(one, NBSP + '%')})" for name, one in probabilities if one and one.is_flat]
    parts = [f"the probabilities of {_listed(varied)} vary"] if varied else []
    parts += [f"the probabilities of {_listed(flat)} do not vary either"] if flat else []
    if not parts:
        return "There are no probabilities either; merge.policy: majority is the same plain vote."
    offer = "merge.policy: probability decides the same stored rows anew and generates no analysis"
    return f"{offer}; {'; '.join(parts)}."


def _labels(found: Diagnostics, shown: Shown) -> Iterator[str]:
    texts = [_preferred(shown(name), one) for name, one in found.agents.items()]
    yield from _clauses(filter(None, texts))


def _preferred(name: str, one: AgentDiagnostics) -> str:
    """The label that an agent answers too often; empty where there is none."""
    answers, golds = sum(one.labels.values()), sum(one.gold.values())
    if answers < ENOUGH:
        return ""
    over = {
        label: one.labels.get(label, 0) / answers - (one.gold.get(label, 0) / golds if golds else 0.0)
        for label in _LABELS
    }
    label = max(_LABELS, key=lambda label: over[label])
    if over[label] < (LABEL_GAP if golds else ONE_LABEL):
        return ""
    share = f"{percent(one.labels[label] / answers)} of {counted(answers, 'question')}"
    gold = f" (gold: {label} {percent(one.gold.get(label, 0) / golds)})" if golds else ""
    return f"{name} answered {label} on {share}{gold}"


def _repeated(found: Diagnostics, shown: Shown) -> Iterator[str]:
    same = {name: (one.identical, one.reasonings) for name, one in found.agents.items()}
    alike = {name: (one.alike - one.identical, one.reasonings) for name, one in found.agents.items()}
    shares = _shares(same, REPEATED, shown)
    yield from _statement(shares, " are identical to another reasoning of the same agent")
    shares = _shares(alike, REPEATED, shown)
    yield from _statement(shares, " begin and end like another one, with other words or numbers between")


def _faults(found: Diagnostics, shown: Shown) -> Iterator[str]:
    faults = {
        "copied": " copy instructions of the prompt instead of reasoning",
        "cut": " reached their bound and end where it cut them; raise answer.reasoning_chars or ask for less",
        "empty": " are empty, though the form asks for one",
        "contradicted": " contradict their own answer: the last statement in the text names another one",
        "undecided": " name several labels as the answer",
    }
    for fault, says in faults.items():
        counts = {name: (getattr(one, fault), one.reasonings) for name, one in found.agents.items()}
        yield from _statement(_shares(counts, NOTICEABLE, shown), says)


def _shares(counts: Mapping[str, tuple[int, int]], least: float, shown: Shown) -> list[str]:
    """``12.0 % of the reasonings of smol``, ``8.0 % of those of qwen``: the agents with so large a share."""
    found = [
        (shown(name), _share(part, whole))
        for name, (part, whole) in counts.items()
        if whole >= ENOUGH and part >= least * whole
    ]
    return [
        f"{share} of {'those' if at else 'the reasonings'} of {name}"
        for at, (name, share) in enumerate(found)
    ]


def _constant(found: Diagnostics, shown: Shown) -> Iterator[str]:
    stated = [(name, one.confidence) for name, one in found.agents.items() if one.confidence]
    texts = [
        (name, f"{shown(name)} stated {one.value} for confidence {_where(one)}")
        for name, one in stated
        if one.is_constant
    ]
    yield from _statement(
        [text for name, text in texts if name != MERGE], ", so a vote weighted by it is a plain vote"
    )
    yield from _statement(
        [text for name, text in texts if name == MERGE],
        ", which does not tell its right answers from its wrong ones",
    )
    two = [f"{shown(name)} ({_value(one)})" for name, one in stated if one.is_flat and not one.is_constant]
    yield from _statement(two, " stated only two values for confidence")


def _never_differ(found: Diagnostics, shown: Shown) -> Iterator[str]:
    texts = [
        f"{shown(one.first)} and {shown(one.second)} gave the same answer to all "
        f"{counted(one.questions, 'question')} that both answered: together they say no more than one of them"
        for one in found.never_differ
    ]
    yield from _clauses(texts)


def _value(one: Spread, unit: str = "") -> str:
    """The most frequent value of a signal, and where it stands."""
    return f"{one.value}{unit} {_where(one)}"


def _where(one: Spread) -> str:
    all_ = one.with_value == one.rows
    return "in every row" if all_ else f"in {_share(one.with_value, one.rows)} of rows"


def _share(part: int, whole: int) -> str:
    """A share in per cent; what is not all is not written as 100."""
    if part < whole and points(part / whole) == "100.0":
        return f"over 99.9{NBSP}%"
    return percent(part / whole)


def _clauses(texts: Iterable[str]) -> Iterator[str]:
    """One sentence of clauses, if there are any."""
    known = list(texts)
    if known:
        yield f"{'; '.join(_few(known))}."


def _statement(subjects: Iterable[str], says: str) -> Iterator[str]:
    """One sentence that says the same of some subjects, if there are any."""
    known = list(subjects)
    if known:
        yield f"{_listed(known)}{says}."


def _listed(names: Iterable[str]) -> str:
    *head, last = _few(list(names))
    return f"{', '.join(head)} and {last}" if head else last


def _few(texts: Sequence[str]) -> list[str]:
    more = len(texts) - MOST_NAMES
    return [*texts[:MOST_NAMES], *([f"{more:,} more"] if more > 0 else [])]


def baseline_sentence(found: Diagnostics) -> str:
    """What needs no model; empty where no multiple-choice question has gold."""
    known = found.baselines
    if known.label not in _LABELS:
        return ""
    asked = counted(known.questions, "multiple-choice question")
    right, always = percent(known.label_accuracy), f"Always answering {known.label}, the most frequent gold,"
    return f"{always} is right on {right} of {asked}; chance is {percent(known.chance)}."


HEADS = ("answers", "identical", "alike", "cut", "copied", "empty", "contradict", "several", "confidence")
"""Of the figures of an agent; all from ``identical`` to ``several`` are per cent of its reasonings."""
EXPLANATION = (
    "In per cent of the reasonings: identical to another one of the same agent; alike, which begin and end "
    "the same; cut at their bound; copied from the prompt's instructions; empty; those whose last statement "
    "names another answer (contradict) or several. Confidence: the most frequent value, and its share."
)


def figures(one: AgentDiagnostics) -> list[str]:
    """The cells below ``HEADS``."""
    counts = (one.identical, one.alike, one.cut, one.copied, one.empty, one.contradicted, one.undecided)
    shares = (points(count / one.reasonings if one.reasonings else None) for count in counts)
    stated = one.confidence
    text = f"{stated.value} ({points(stated.with_value / stated.rows)}{NBSP}%)" if stated else "-"
    return [f"{one.answers:,}", *shares, text]


def labels(found: Diagnostics) -> list[str]:
    """The labels that are gold or answered anywhere."""
    known = {label for one in found.agents.values() for label in one.labels} | set(found.baselines.gold)
    return [label for label in _LABELS if label in known]


def label_shares(found: Diagnostics) -> list[tuple[str | None, list[str]]]:
    """By agent (``None`` for gold) the share of each of :func:`labels` in per cent."""
    counted_ = [(None, found.baselines.gold), *((name, one.labels) for name, one in found.agents.items())]
    known = labels(found)
    return [
        (name, [points(counts.get(label, 0) / total) for label in known])
        for name, counts in counted_
        if (total := sum(counts.values()))
    ]


def flat_sentence(found: Sequence[Calibration], shown: Shown = visible) -> str:
    """The signals that have no calibration; empty where all vary."""
    flat = [
        f"{one.signal} of {shown(one.system)} ({_value(one.spread, NBSP + '%')})"
        for one in found
        if one.spread and one.spread.is_constant
    ]
    if not flat:
        return ""
    return f"A signal that does not vary cannot tell right answers from wrong ones: {_listed(flat)}."
