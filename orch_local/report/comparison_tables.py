"""What a comparison of runs says, in sentences and as plain tables, for the terminal, Markdown and a page.

Foreign names are marked as :class:`Name`, and made harmless by whoever shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orch_local.report.formatting import CHANCE_P, NBSP, counted, p_value, percent, points
from orch_local.report.words import ends, signed
from orch_local.results.compare.comparing import ComparedRun, Comparison
from orch_local.results.summary import CategorySummary, Estimate, PairSummary
from orch_local.results.tables import ORCH

Shown = Callable[[str], str]


class Name(str):
    """Text from outside: the name of a run, an agent or a category."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: names in the first column, numbers in the others."""

    id: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def headline(comparison: Comparison, shown: Shown) -> str:
    """Which run is best, and how sure that is."""
    count, runs = counted(comparison.common, "question"), f"{len(comparison.entries)} runs"
    if _all_alike(comparison):
        return f"All {runs} came to the same decisions, byte for byte, on {count}."
    if not comparison.gold:
        return f"No run can be called better: none of the {count} common to {runs} has gold answers in all."
    first = comparison.ranked[0]
    share = first.orch.accuracy
    if share is None:
        return f"Of the {counted(comparison.gold, 'question')} common to {runs} none was answered by any run."
    common = f"On the {counted(comparison.gold, 'question')} common to {runs}"
    interval = f"95{NBSP}% interval {ends(share).replace(' ', NBSP)}"
    result = f"{common}, {shown(first.name)} has the most right: {percent(share.value)} ({interval})"
    return f"{result}, {_against(comparison.pairs[0], shown)}."


def _all_alike(comparison: Comparison) -> bool:
    return any(len(names) == len(comparison.entries) for names in comparison.alike)


def _against(pair: PairSummary, shown: Shown) -> str:
    """The first run against the second one."""
    if pair.difference is None:
        return f"and shares no scored question with {shown(pair.second)}"
    gap = f"{abs(100 * pair.difference.value):.1f}"
    side = "above" if pair.difference.value > 0 else "below"
    relation = "level with" if gap == "0.0" else f"{gap} points {side}"
    chance = ", within chance" if pair.p_holm is not None and pair.p_holm >= CHANCE_P else ""
    return f"{relation} {shown(pair.second)} ({_p(pair.p)}, with Holm's correction {_p(pair.p_holm)}{chance})"


def sentences(comparison: Comparison, shown: Shown) -> Iterator[str]:
    """What must be known to read the tables."""
    yield from _coverage(comparison, shown)
    if _all_alike(comparison):
        return
    for names in comparison.alike:
        yield f"The same decisions, byte for byte: {', '.join(map(shown, names))}."
    found = comparison.cochran
    if found is not None:
        verdict = "could all be equally good" if found.p >= CHANCE_P else "are not all equally good"
        test = f"Cochran's Q{NBSP}={NBSP}{found.statistic:,.1f}, df{NBSP}{found.df}, {_p(found.p)}"
        basis = f"on the {counted(found.n, 'question')} that all answered"
        yield f"The {found.systems} runs {verdict} ({test}, {basis})."


def _coverage(comparison: Comparison, shown: Shown) -> Iterator[str]:
    more = [(one.name, one.questions - comparison.common) for one in comparison.entries]
    own = [f"{shown(name)} {count:,}" for name, count in more if count]
    if own:
        common = counted(comparison.common, "question")
        yield f"{common} {'is' if comparison.common == 1 else 'are'} in all runs; left out: {', '.join(own)}."
    missing = comparison.common - comparison.gold
    if missing:
        yield f"Left out for want of a gold answer in one of the runs: {counted(missing, 'question')}."


def grids(comparison: Comparison, agents: bool = True) -> list[Grid]:
    """The tables; ``agents`` adds the best run against every agent of every run."""
    made = [_runs(comparison), _pairs(comparison), _parts(comparison), _costs(comparison)]
    if len(comparison.categories) > 1:
        made.insert(2, _categories(comparison))
    if agents:
        made.insert(-1, _agents(comparison))
    return [grid for grid in made if grid.rows]


def _runs(comparison: Comparison) -> Grid:
    heads = ["run", "accuracy", "interval", "of all", "correct", "unscored", "all its questions"]
    return Grid(
        "runs",
        "ORCH on the common questions (%, 95 % interval)",
        heads,
        [_run(one) for one in comparison.ranked],
        "of all = correct of all common questions with gold; all its questions = accuracy on its own",
    )


def _run(one: ComparedRun) -> list[str]:
    orch, own = one.orch, one.own
    return [
        Name(one.name),
        _value(orch.accuracy),
        ends(orch.accuracy),
        points(orch.accuracy_all),
        f"{orch.correct:,}/{orch.scored:,}",
        f"{sum(orch.unscored.values()):,}",
        f"{_value(own.accuracy)} of {own.scored:,}",
    ]


def _pairs(comparison: Comparison) -> Grid:
    return Grid(
        "pairs",
        "Pairs of runs (95 % interval, exact McNemar)",
        ["first - second", *_PAIR_HEADS],
        [[Name(f"{one.first} - {one.second}"), *_pair(one)] for one in comparison.pairs],
        f"won, lost = right in the first only, in the second only; Holm's correction is over "
        f"{counted(len(comparison.pairs), 'pair')}",
    )


_PAIR_HEADS = ("n", "won", "lost", "points", "interval", "p", "mid-p", "p (Holm)")


def _pair(one: PairSummary) -> list[str]:
    counts = (f"{count:,}" for count in (one.n, one.gained, one.lost))
    p_values = (p_value(p) for p in (one.p, one.p_mid, one.p_holm))
    return [*counts, signed(one.difference), ends(one.difference), *p_values]


def _parts(comparison: Comparison) -> Grid:
    heads = [
        "run",
        "best agent",
        "its accuracy",
        "oracle",
        "saved",
        "broken",
        "saved (vote)",
        "broken (vote)",
    ]
    note = (
        "saved, broken = ORCH right and the best agent wrong, and the other way round; (vote) = against the "
        "majority vote"
    )
    if any(one.router for one in comparison.entries):
        note += (
            "; a run with a router (see its policy) asked its agents about different questions: its best "
            "agent is the one with most right answers, its oracle is of the agents that were asked"
        )
    return Grid(
        "merge",
        "What each run's merge made of its panels, on the common questions",
        heads,
        [_part(one) for one in comparison.ranked],
        note,
    )


def _part(one: ComparedRun) -> list[str]:
    best = one.system(one.best_agent).accuracy if one.best_agent is not None else None
    counts = (one.saves_against_best, one.breaks_against_best, one.saves, one.breaks)
    return [
        Name(one.name),
        Name(one.best_agent) if one.best_agent is not None else "-",
        _value(best),
        _value(one.oracle.accuracy),
        *(f"{count:,}" for count in counts),
    ]


def _categories(comparison: Comparison) -> Grid:
    names = [one.name for one in comparison.ranked]
    return Grid(
        "categories",
        "Accuracy by category (%)",
        ["category", "gold", *map(Name, names), "1st - 2nd", "p (Holm)"],
        [_category(one, names) for one in comparison.categories],
        "runs in the order of their rank; 1st - 2nd = points between the first two; Holm's correction is "
        f"over {len(comparison.categories):,} categories",
    )


def _category(one: CategorySummary, names: Sequence[str]) -> list[str]:
    versus = one.versus_best
    difference, p = (versus.difference, versus.p_holm) if versus else (None, None)
    shares = (_value(one.systems[name]) for name in names)
    return [Name(one.name), f"{one.gold:,}", *shares, signed(difference), p_value(p)]


def _agents(comparison: Comparison) -> Grid:
    return Grid(
        "agents",
        f"{ORCH} of the first run against the agents of all runs",
        ["run / agent", "in runs", "accuracy", *_PAIR_HEADS],
        [
            [Name(one.name), f"{len(one.runs):,}", _value(one.accuracy), *_pair(one.versus)]
            for one in comparison.agents
        ],
        "an agent with the same spec and the same verdicts in several runs stands once; won, lost = right in "
        "the first run only, by the agent only; Holm's correction is over "
        f"{counted(len(comparison.agents), 'agent')}",
    )


def _costs(comparison: Comparison) -> Grid:
    heads = [
        "run",
        "policy",
        "agents",
        "rows",
        "stored",
        "prompt",
        "generated",
        "tokens / right",
        "generate s",
    ]
    return Grid(
        "cost",
        "Cost of all its questions (rows, tokens, seconds)",
        heads,
        [_cost(one) for one in comparison.ranked],
        "tokens / right = prompt and generated tokens for each right answer of ORCH; rows that were stored "
        "before took no seconds now",
    )


def _cost(one: ComparedRun) -> list[str]:
    cost = one.cost
    counts = (len(one.agents), cost.rows, cost.rows - cost.generated_now, cost.prompt_tokens)
    tokens = "-" if cost.tokens_per_right is None else f"{cost.tokens_per_right:,.1f}"
    numbers = [
        *(f"{count:,}" for count in (*counts, cost.generated_tokens)),
        tokens,
        f"{cost.generate_s:,.1f}",
    ]
    policy = one.policy if one.router is None else f"{one.policy}, router {one.router}"
    return [Name(one.name), policy, *numbers]


def _value(estimate: Estimate | None) -> str:
    return points(estimate.value if estimate else None)


def _p(p: float | None) -> str:
    return f"p{NBSP}{p_value(p, '=' + NBSP).replace(' ', NBSP)}"
