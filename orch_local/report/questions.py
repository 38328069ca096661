"""What the gold answers say of a set of questions, in words: for a plan, and for the start of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.console import Console

from orch_local.benchmarks.gold_checks import (
    DOUBLE_DIGITS,
    GoldFacts,
    LabelGolds,
    frequent_labels,
    narrowed_by_limit,
    only_label,
)
from orch_local.config.blocks import BenchmarkConfig
from orch_local.plan.plans import Plan
from orch_local.report.console import print_paragraph
from orch_local.report.formatting import NBSP, counted, p_value, percent
from orch_local.report.safe import visible

_LONGEST_EXAMPLE = 40


def print_golds(console: Console, facts: GoldFacts, plan: Plan) -> None:
    """Print how the golds are spread over the labels, where there are labels, and what is odd about them."""
    if facts.labels:
        print_paragraph(console, gold_sentence(facts))
    print_gold_warnings(console, facts, plan)


def print_gold_warnings(console: Console, facts: GoldFacts, plan: Plan) -> None:
    """Print what is odd about the golds; nothing where nothing is."""
    for warning in gold_warnings(facts, plan):
        print_paragraph(console, f"Warning: {warning}", style="yellow")


def gold_sentence(facts: GoldFacts) -> str:
    """The share of each label, and what needs no model: the most frequent label always, and a guess."""
    total, most = facts.labelled, facts.majority
    shares = ", ".join(f"{one.label}{NBSP}{percent(one.count / total)}" for one in facts.labels)
    text = f"Golds by label ({counted(total, 'question')}): {shares}."
    if most is None:
        return text
    always, chance = percent(most.count / total), percent(facts.chance)
    return f"{text} Always answering {most.label} is right on {always}, a random guess on {chance}."


def gold_warnings(facts: GoldFacts, plan: Plan) -> list[str]:
    """One or two sentences for each thing that is odd: what it is, what follows, what to do."""
    return [
        *_missing(facts, plan.config.benchmark),
        *_labels(facts),
        *_digits(facts),
        *_categories(facts, plan),
    ]


def _missing(facts: GoldFacts, benchmark: BenchmarkConfig) -> Iterator[str]:
    missing = facts.questions - facts.golds
    if not facts.golds:
        yield f"no question has a gold answer, so nothing can be scored. {_where_golds_are(facts, benchmark)}"
    elif missing:
        asked = counted(facts.questions, "question")
        yield f"{missing:,} of {asked} have no gold answer: they are asked, but not scored."


def _where_golds_are(facts: GoldFacts, benchmark: BenchmarkConfig) -> str:
    if facts.column is None:
        return "Many datasets publish no golds for their test split; is there another `split`?"
    name = visible(facts.column.name)
    example = textwrap.shorten(visible(facts.column.example), _LONGEST_EXAMPLE, placeholder="...")
    key = "`answer`" if benchmark.name == "jsonl" else "`answer` of a file for `name: jsonl`"
    return f"The column {name!r} looks like it holds them (e.g. {example}): copy it to {key}."


def _labels(facts: GoldFacts) -> Iterator[str]:
    only = only_label(facts)
    if only:
        yield (
            f"all {only.count:,} golds are {only.label}: a model that always answers {only.label} would be "
            f"right every time. Shuffle the choices of each question in the file, and its gold with them."
        )
        return
    for one in frequent_labels(facts):
        yield f"{_share(one)}. A model that prefers {one.label} gains by that. Were the choices put in order?"


def _share(one: LabelGolds) -> str:
    return (
        f"{one.label} is the gold of {one.count:,} of {counted(one.possible, 'question')} that have it "
        f"({percent(one.count / one.possible)}), where {percent(one.expected / one.possible)} would be "
        f"expected (p{NBSP}{p_value(one.p, '=' + NBSP).replace(' ', NBSP)})"
    )


def _digits(facts: GoldFacts) -> Iterator[str]:
    if facts.long_numbers:
        yield (
            f"golds with more than {DOUBLE_DIGITS} digits: {facts.long_numbers:,}. An answer is right only "
            f"if every digit is the same, also those that come from rounding."
        )


def _categories(facts: GoldFacts, plan: Plan) -> Iterator[str]:
    benchmark, held = plan.config.benchmark, plan.questions.categories
    if not narrowed_by_limit(facts, benchmark, held):
        return
    way = "`shuffle_seed: 0`" if benchmark.per_category else "`shuffle_seed: 0` or `per_category: N`"
    number = "one" if facts.categories == 1 else f"{facts.categories:,}"
    yield (
        f"the {counted(facts.questions, 'question')} are from {number} of {held:,} categories only, since "
        f"`limit` takes them in the order of the files. Set {way} to ask from all."
    )
