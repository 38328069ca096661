"""`report.md` and the terminal form of a summary: what they say, that they fit, and that names stay text."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
from any_decisions import NAMES, letters, many_decisions, summary_from
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from orch_local.records import Decision
from orch_local.report.headline import headline
from orch_local.report.markdown import code, markdown
from orch_local.report.summary import print_summary
from orch_local.report.words import merge_sentences, right_sentence, spending_sentence, summary_headline
from orch_local.results.scoring import score
from orch_local.results.summary import CategorySummary, RouterSummary, Summary

FEW = settings(max_examples=25, deadline=None)
PAIR = ("quant", "chrono")
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = (
    "a | b |\n| c",
    "<script>alert(1)</script>",
    "`code` ``` more",
    "@octocat #1 GH-2 https://evil.example",
    "[click](javascript:alert(1)) ![i](http://evil.example/x.png)",
    "**bold** ~~gone~~ \\| \\",
    "\x1b[2J\u202eevil\x00",
    "# heading\n\n- list",
    "",
    " ",
)


def tokens(text: str) -> list[Token]:
    """All tokens, those inside paragraphs too."""
    return [inner for token in GITHUB.parse(text) for inner in (token, *(token.children or []))]


def renamed(summary: Summary, names: Sequence[str]) -> Summary:
    """The summary with other names of categories, of the run, and of all agents."""
    categories = tuple(replace(one, name=name) for one, name in zip(summary.categories, names, strict=False))
    return replace(
        summary,
        title=names[0],
        benchmark=names[1],
        digest=names[2],
        version=names[3],
        level_reasons=tuple(names),
        how=dict.fromkeys(names, 1),
        environment={"torch": names[4]},
        categories=categories,
    )


def printed(summary: Summary, width: int = 80, *, terminal: bool = False) -> str:
    file = io.StringIO()
    colors: Literal["standard"] | None = "standard" if terminal else None
    print_summary(Console(file=file, width=width, force_terminal=terminal, color_system=colors), summary)
    return file.getvalue()


@pytest.fixture(scope="module")
def usual() -> Summary:
    """Ten categories, some answers missing, confidences of all."""
    rows = ("AAA", "ABA", "BAA", "BBB", "-AA", "BAB", "AA-")
    made = letters(*(rows[number % len(rows)] for number in range(100)))
    return summary_from([replace(one, category=f"part {i % 10}") for i, one in enumerate(made)], PAIR)


# --- what it says -----------------------------------------------------------------------------------


@FEW
@given(many_decisions())
def test_the_headline_is_the_one_at_the_end_of_the_run(made: list[Decision]) -> None:
    assert summary_headline(summary_from(made)) == headline(score(made, NAMES))


def test_the_headline_of_a_run_without_gold_counts_what_was_answered() -> None:
    said = summary_headline(summary_from(letters("ABA", "BB-", "AAB", gold=None), PAIR))
    assert "ORCH answered 2 of 3 questions" in said


def test_each_section_is_there_once_and_in_order(usual: Summary) -> None:
    heads = re.findall(r"^#+ (.*)$", markdown(usual), re.MULTILINE)
    assert heads == [
        "Run `run`",
        "Accuracy",
        "Pairs on common questions",
        "Categories (accuracy %)",
        "The agents together",
        "Unscored (neither right nor wrong)",
        "Calibration",
        "Cost (rows, tokens, device-seconds)",
        "Reproduce",
    ]


def test_figures_of_the_summary_stand_in_their_rows(usual: Summary) -> None:
    text = markdown(usual)
    orch = next(one for one in usual.systems if one.name == "ORCH")
    assert orch.accuracy
    assert f"| **ORCH** | {100 * orch.accuracy.value:.1f} |" in text
    pair = usual.pairs[0]
    assert f"| ORCH - majority | {pair.n} | {pair.gained} | {pair.lost} |" in text
    assert "| ORCH | 14 | `merge invalid` |" in text
    assert f"digest: `{usual.digest}`" in text


def test_a_run_without_gold_has_no_accuracies() -> None:
    text = markdown(summary_from(letters("ABA", gold=None), PAIR))
    assert "nothing can be scored" in text
    assert "## Accuracy" not in text
    assert "## Reproduce" in text


def test_intervals_for_shared_sources_get_a_column() -> None:
    made = [
        replace(one, cluster=f"page {i // 5}") for i, one in enumerate(letters(*["AAA", "ABB", "BAA"] * 5))
    ]
    assert "| clustered interval |" in markdown(summary_from(made, PAIR))


def test_the_share_of_device_time_and_answers_per_hour_are_told(usual: Summary) -> None:
    spent = replace(usual.spending, device="cuda", load_s=10, generate_s=60, merge_s=20, idle_s=10)
    told = spending_sentence(replace(spent, correct_per_device_hour=1234.5)).replace("\xa0", " ")
    assert told == (
        "GPU-seconds held: 100.0, of these load 10.0 %, generate 60.0 %, merge 20.0 %, idle 10.0 %. "
        "Right answers per GPU-hour: 1,234."
    )
    assert "no answers per hour" in spending_sentence(spent)
    assert spending_sentence(usual.spending) == "No device time is recorded."


# --- routed -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def routed(usual: Summary) -> Summary:
    asked, phases = {"quant": 29, "chrono": 71}, {"score": 80, "warm_up": 20}
    return replace(usual, router=RouterSummary("online", asked, phases, ()))


def test_what_the_router_did_is_one_line(usual: Summary, routed: Summary) -> None:
    said = "asked 29 of 100, {chrono} 71; warm-up 20, score 80."
    assert f"Router: online; `quant` {said.format(chrono='`chrono`')}" in markdown(routed)
    assert f"Router: online; quant {said.format(chrono='chrono')}" in " ".join(printed(routed).split())
    assert "Router" not in markdown(usual) + printed(usual)


def test_a_routed_run_names_no_best_agent_and_its_oracle_is_of_those_asked(
    usual: Summary, routed: Summary
) -> None:
    before, after = (summary_headline(one).replace("\xa0", " ") for one in (usual, routed))
    assert "the best single agent" in before and "picks the right agent each time" in before
    assert "best single agent" not in after and "picks the right agent each time" not in after
    assert "the majority vote" in after
    assert "the right one of the agents that were asked would reach" in after
    assert "agents were asked about different questions" in after
    told = [right_sentence(one) + merge_sentences(one) for one in (usual, routed)]
    assert "right, of 2:" in told[0] and "the best agent, " in told[0]
    assert "right, of those asked:" in told[1] and "the best agent, " not in told[1]


def test_a_routed_run_without_gold_says_nothing_of_an_oracle(routed: Summary) -> None:
    bare = replace(summary_from(letters("ABA", gold=None), PAIR), router=routed.router)
    assert "oracle" not in summary_headline(bare)


def test_categories_name_the_agent_that_orch_is_compared_with(usual: Summary) -> None:
    assert f"| ORCH - `{usual.best_agent}` | p (Holm) |" in markdown(usual)


# --- it fits ----------------------------------------------------------------------------------------


def test_many_categories_and_agents_are_cut_and_counted(usual: Summary) -> None:
    """Every table at its longest, and still under 200 lines."""
    systems = usual.systems[:1] * 60 + usual.systems[-3:]
    systems = (*(replace(one, unscored={f"reason {n}": 1 for n in range(9)}) for one in systems),)
    pairs = replace(usual.complementarity, pairs=usual.complementarity.pairs * 500)
    many = replace(
        usual,
        systems=systems,
        pairs=usual.pairs * 300,
        categories=tuple(replace(usual.categories[0], name=f"part {n}") for n in range(5000)),
        complementarity=pairs,
        calibration=usual.calibration * 60,
        spending=replace(usual.spending, agents=usual.spending.agents * 60),
        level_reasons=("reason",) * 60,
    )
    text = markdown(many)
    assert text.count("\n") < 200
    assert "... and 4,980 more in `report.json`." in text
    assert text.count("more in `report.json`.") == 7


def test_one_category_is_no_table() -> None:
    assert "## Categories" not in markdown(summary_from(letters("ABA", "AAA"), PAIR))


def test_many_agents_leave_those_that_are_compared(usual: Summary) -> None:
    agents = tuple(replace(usual.systems[0], name=f"agent{n}") for n in range(9))
    one = usual.categories[0]
    wide = replace(one, systems=one.systems | {f"agent{n}": None for n in range(9)})
    text = markdown(replace(usual, systems=(*agents, *usual.systems), categories=(wide, wide)))
    assert f"| category | gold | `{usual.best_agent}` | majority | ORCH | oracle |" in text


# --- foreign text -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_becomes_one_code_span_and_nothing_else(name: str) -> None:
    (paragraph,) = [token for token in GITHUB.parse(f"before {code(name)} after") if token.type == "inline"]
    children = paragraph.children or []
    if name.strip():
        first, _, last = children
        assert (first.content, last.content) == ("before ", " after")
    assert [token.type for token in children if token.type != "text"] == ["code_inline"] * bool(name.strip())


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_name_stays_inside_its_cell(name: str) -> None:
    table = GITHUB.parse(f"| a | b |\n| --- | --- |\n| {code(name)} | 2 |\n")
    cells = [token.content for token in table if token.type == "inline"]
    assert cells == ["a", "b", code(name), "2"]
    assert not [t for token in table for t in token.children or [] if t.type in ("html_inline", "link_open")]


def test_hostile_names_make_no_markup_and_break_no_table(usual: Summary) -> None:
    plain, text = tokens(markdown(usual)), markdown(renamed(usual, HOSTILE))
    hostile = tokens(text)
    kinds = {token.type for token in hostile}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "s_open", "code_block", "fence"}
    for kind in ("table_open", "heading_open", "th_open", "td_open"):
        assert sum(t.type == kind for t in hostile) == sum(t.type == kind for t in plain), kind
    spoken = "".join(token.content for token in hostile if token.type == "text")
    assert not re.search(r"@octocat|GH-2|https?:|\x1b|\u202e", spoken)


def test_hostile_names_of_agents_are_as_harmless() -> None:
    """The names of agents are checked in run files, but a summary may come from anywhere."""
    summary = summary_from(letters("AAA", "ABA", "BAA"), PAIR)
    swap = dict(zip(PAIR, HOSTILE[:2], strict=True))

    def other(name: str | None) -> str | None:
        return swap.get(name or "", name)

    hostile = replace(
        summary,
        best_agent=other(summary.best_agent),
        systems=tuple(replace(one, name=swap.get(one.name, one.name)) for one in summary.systems),
        pairs=tuple(
            replace(one, first=swap.get(one.first, one.first), second=swap.get(one.second, one.second))
            for one in summary.pairs
        ),
        categories=(),
    )
    text = markdown(hostile)
    assert not {token.type for token in tokens(text)} & {"html_inline", "html_block"}
    assert "`a \\x7c b \\x7c\\x0a\\x7c c`" in text.split("## Accuracy")[0]


# --- the terminal -----------------------------------------------------------------------------------


def test_the_terminal_form_fits_80_columns_and_is_ascii(usual: Summary) -> None:
    text = printed(usual)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert [
        head for head in ("Pairs", "How agents err", "Calibration", "Cost") if f"\n{head}" not in text
    ] == []


@pytest.mark.parametrize("terminal", [False, True])
def test_foreign_text_moves_no_cursor(usual: Summary, terminal: bool) -> None:
    pairs = tuple(replace(one, second="\x1b[2J[bold]x") for one in usual.pairs)
    text = printed(replace(usual, pairs=(*usual.pairs, *pairs)), 200, terminal=terminal)
    assert "\\x1b[2J[bold]x" in text
    assert "\x1b[2J" not in text


@settings(max_examples=15, deadline=None)
@given(many_decisions())
def test_whatever_was_decided_can_be_shown(made: list[Decision]) -> None:
    summary = summary_from(made)
    assert "nan" not in printed(summary) + markdown(summary)


def test_a_category_without_comparison_has_dashes(usual: Summary) -> None:
    bare = CategorySummary("empty", 1, dict.fromkeys(usual.categories[0].systems), {}, None)
    assert "| `empty` | 1 | - | - | - | - | - | - | - |" in markdown(replace(usual, categories=(bare, bare)))
