"""A summary as Markdown of GitHub, for a pull request: short, and foreign text in it stays text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orch_local.report.findings import (
    EXPLANATION,
    HEADS,
    Findings,
    baseline_sentence,
    figures,
    findings,
    flat_sentence,
    label_shares,
    labels,
)
from orch_local.report.formatting import NBSP, counted, p_value, points
from orch_local.report.safe import visible
from orch_local.report.words import (
    cochran_sentence,
    ends,
    merge_sentences,
    multiplicity_sentences,
    number,
    ratio,
    right_sentence,
    router_sentence,
    signed,
    spending_sentence,
    summary_headline,
)
from orch_local.results.diagnostics import Diagnostics
from orch_local.results.summary import CategorySummary, Estimate, PairSummary, Summary
from orch_local.results.tables import MAJORITY, ORACLE, ORCH

MAX_ROWS = {"systems": 20, "pairs": 21, "categories": 20, "unscored": 12, "agents": 15}
"""With all tables at their longest the file has fewer than 200 lines."""
MAX_COLUMNS = 8
MAX_REASONS = 10
MAX_NAME = 60
ABSTAIN_AT = "0.05"
_OURS = (MAJORITY, ORCH, ORACLE)
_Rows = Sequence[Sequence[str]]


def markdown(summary: Summary) -> str:
    """The content of ``report.md``."""
    found = findings(summary.diagnostics, summary.policy, code)
    parts = [
        f"# Run {code(summary.title)}",
        summary_headline(summary, code),
        *(f"> {text}" for text in found.headline),
        _about(summary),
        *filter(None, [router_sentence(summary, code)]),
        *(_results(summary) if summary.gold else ()),
        *_unscored(summary),
        *(_diagnostics(summary.diagnostics, found) if summary.diagnostics else ()),
        *_calibration(summary),
        *_cost(summary),
        _proof(summary),
    ]
    return "\n\n".join(parts).replace(NBSP, " ") + "\n"


def code(text: str, longest: int = MAX_NAME) -> str:
    r"""Foreign text as a code span: no markup, link, mention or number of an issue is read from it.

    What would end the span, or a cell of a table, is written as its escape, such as ``\x60``, like the
    characters that cannot be seen.
    """
    if len(text) > longest:
        text = f"{text[: longest - 3]}..."
    inert = visible(text).replace("`", "\\x60").replace("|", "\\x7c")
    return f"`{inert}`" if inert.strip() else "(no name)"


def _name(system: str) -> str:
    return system if system in _OURS else code(system)


def _about(summary: Summary) -> str:
    texts = [f"{code(summary.benchmark)}, {counted(summary.questions, 'question')}"]
    texts += [f"{counted(summary.bad_rows, 'bad row')} skipped"] if summary.bad_rows else []
    how = ", ".join(f"{code(name)} {count:,}" for name, count in summary.how.items())
    texts += [f"decided by: {how}"] if how else []
    if summary.agreement is not None:
        texts.append(f"the agents agreed on {points(summary.agreement)} % of their panels")
    return "; ".join(texts) + "."


def _results(summary: Summary) -> Iterator[str]:
    yield from _accuracies(summary)
    yield from _pairs(summary)
    yield from _categories(summary)
    yield from _together(summary)


def _table(heads: Sequence[str], rows: _Rows, cut: int) -> Iterator[str]:
    """A table whose first column is of names and the others of numbers, and how many rows it leaves out."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows[:cut]]
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    if len(rows) > cut:
        yield f"... and {len(rows) - cut:,} more in `report.json`."


def _accuracies(summary: Summary) -> Iterator[str]:
    clustered = any(one.clustered for one in summary.systems)
    heads = ["system", "accuracy %", "95 % interval", "of all %", "correct", "scored", "unscored"]
    *agents, majority, orch, oracle = summary.systems
    rows = [
        [
            _bold(_name(one.name), one.name == ORCH),
            _value(one.accuracy),
            ends(one.accuracy),
            points(one.accuracy_all),
            f"{one.correct:,}",
            f"{one.scored:,}",
            f"{sum(one.unscored.values()):,}",
            *([ends(one.clustered)] if clustered else []),
        ]
        for one in (orch, majority, oracle, *agents)  # what must not be cut comes first
    ]
    yield "## Accuracy"
    yield from _table([*heads, *(["clustered interval"] if clustered else [])], rows, MAX_ROWS["systems"])


def _value(estimate: Estimate | None) -> str:
    return points(estimate.value if estimate else None)


def _bold(text: str, really: bool) -> str:
    return f"**{text}**" if really else text


def _pairs(summary: Summary) -> Iterator[str]:
    heads = ["pair", "n", "won", "lost", "points", "95 % interval", "odds ratio", "p", "mid-p", "p (Holm)"]
    rows = [_pair(one) for one in summary.pairs]
    if any(one.clustered for one in summary.pairs):
        heads.append("clustered interval")
        rows = [[*row, ends(one.clustered)] for row, one in zip(rows, summary.pairs, strict=True)]
    yield "## Pairs on common questions"
    yield from _table(heads, rows, MAX_ROWS["pairs"])
    exact = f"Exact McNemar; Holm's correction is over all {counted(len(summary.pairs), 'pair')}."
    yield f"{exact} {cochran_sentence(summary)}".strip()


def _pair(one: PairSummary) -> list[str]:
    counts = (f"{count:,}" for count in (one.n, one.gained, one.lost))
    p_values = (p_value(p) for p in (one.p, one.p_mid, one.p_holm))
    names = f"{_name(one.first)} - {_name(one.second)}"
    return [names, *counts, signed(one.difference), ends(one.difference), ratio(one.odds_ratio), *p_values]


def _categories(summary: Summary) -> Iterator[str]:
    if len(summary.categories) < 2:
        return
    names = [one.name for one in summary.systems]
    shown = names if len(names) <= MAX_COLUMNS else [*filter(None, [summary.best_agent]), *_OURS]
    heads = ["category", "gold", *map(_name, shown), f"ORCH - {_best(summary)}", "p (Holm)"]
    yield "## Categories (accuracy %)"
    yield from _table(heads, [_category(one, shown) for one in summary.categories], MAX_ROWS["categories"])


def _best(summary: Summary) -> str:
    """The agent that is best over all, not in the category."""
    return "agent" if summary.best_agent is None else code(summary.best_agent)


def _category(one: CategorySummary, shown: Sequence[str]) -> list[str]:
    shares = [_value(one.systems[name]) for name in shown]
    pair = one.versus_best
    versus = [signed(pair.difference), p_value(pair.p_holm)] if pair else ["-", "-"]
    return [code(one.name), f"{one.gold:,}", *shares, *versus]


def _together(summary: Summary) -> Iterator[str]:
    pairs = summary.complementarity.pairs
    yield "## The agents together"
    if pairs:
        heads = ["agents", "n", "disagree %", "error correlation", "Yule's Q", "same wrong answer %"]
        rows = [
            [
                f"{code(one.first)}, {code(one.second)}",
                f"{one.n:,}",
                points(one.disagreement),
                number(one.error_correlation),
                number(one.q_statistic),
                points(one.same_wrong),
            ]
            for one in pairs
        ]
        yield from _table(heads, rows, MAX_ROWS["agents"])
    yield f"{right_sentence(summary)} {merge_sentences(summary, code)}"
    if summary.multiplicity:
        yield "\n".join(f"- {text}" for text in multiplicity_sentences(summary, code))


def _unscored(summary: Summary) -> Iterator[str]:
    rows = [
        [_name(one.name), f"{count:,}", code(reason)]
        for one in summary.systems
        for reason, count in one.unscored.items()
    ]
    if rows:
        yield "## Unscored (neither right nor wrong)"
        yield from _table(["system", "questions", "reason"], rows, MAX_ROWS["unscored"])


def _diagnostics(summary: Diagnostics, found: Findings) -> Iterator[str]:
    rows = [[code(name), *figures(one)] for name, one in summary.agents.items()]
    yield "## How the agents answered"
    if found.agents:
        yield "\n".join(f"- {text}" for text in found.agents)
    yield from _table(["agent", *HEADS], rows, MAX_ROWS["agents"])
    yield EXPLANATION
    shares = [[code(name) if name else "**gold**", *cells] for name, cells in label_shares(summary)]
    if shares:
        yield from _table(["answers %", *labels(summary)], shares, MAX_ROWS["agents"])
        yield baseline_sentence(summary)


def _calibration(summary: Summary) -> Iterator[str]:
    if not summary.calibration:
        return
    kept = f"answered at risk {100 * float(ABSTAIN_AT):g} %"
    rows = []
    for one in summary.calibration:
        point = one.abstain.get(ABSTAIN_AT)
        answered = f"{points(point.coverage)} % (from {point.threshold:.6g})" if point else "none"
        figures = (f"{value:.3f}" for value in (one.ece, one.brier, one.aurc))
        rows.append([_name(one.system), one.signal, f"{one.n:,}", *figures, answered])
    yield "## Calibration"
    yield from _table(["system", "signal", "n", "ECE", "Brier", "AURC", kept], rows, MAX_ROWS["agents"])
    yield from filter(None, [flat_sentence(summary.calibration, _name)])


def _cost(summary: Summary) -> Iterator[str]:
    heads = [
        "agent",
        "model",
        "rows",
        "generated now",
        "prompt",
        "cached",
        "generated",
        "load s",
        "generate s",
    ]
    rows = [
        [
            code(one.name),
            code(summary.agents.get(one.name, {}).get("model", "")),
            *(f"{count:,}" for count in (one.rows, one.generated_now)),
            *(f"{count:,}" for count in (one.prompt_tokens, one.cached_tokens, one.generated_tokens)),
            *(f"{seconds:,.1f}" for seconds in (one.load_s, one.generate_s)),
        ]
        for one in summary.spending.agents
    ]
    yield "## Cost (rows, tokens, device-seconds)"
    yield from _table(heads, rows, MAX_ROWS["agents"])
    yield spending_sentence(summary.spending)


def _proof(summary: Summary) -> str:
    again = f"{summary.same:,} of {counted(summary.generated_again, 'row')} generated again came to the same"
    lines = [
        f"- level: {code(summary.level)} ({again})",
        *(f"  - {code(reason, 2 * MAX_NAME)}" for reason in summary.level_reasons[:MAX_REASONS]),
        f"- digest: {code(summary.digest, 2 * MAX_NAME)}",
        f"- orch-local {code(summary.version)}; {_environment(summary)}",
        "- again: `orch-local run` with the same run file gives the same digest, `orch-local replay RUN` "
        "decides again from the stored rows, `orch-local verify RUN` generates rows again and compares bytes",
    ]
    return "## Reproduce\n\n" + "\n".join(lines)


def _environment(summary: Summary) -> str:
    wanted = "fake vllm transformers torch cuda gpu cpu driver dtype batch_invariant".split()
    known: Iterable[str] = (name for name in wanted if summary.environment.get(name, "none") != "none")
    return ", ".join(f"{name} {code(summary.environment[name])}" for name in known) or "environment unknown"
