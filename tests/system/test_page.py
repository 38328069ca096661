"""The report as a file: complete in itself, the same bytes each time, small, and closed to hostile text."""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_runs import (
    chrono,
    finished,
    hostile,
    hostile_questions,
    quant,
    questions,
    spoken,
    timeline,
    written,
)
from run_folders import Run, finished_run
from summaries import AGENTS, HOSTILE, bare, usual
from summaries import hostile as hostile_summary

from orch_local.errors import StoreError
from orch_local.records import Analysis, Question
from orch_local.report.page import Page, base, body, details, index, render, write_page, writing
from orch_local.report.page.base import json_for_script
from orch_local.report.page.details import Blocks, pack
from orch_local.report.page.headline import headline
from orch_local.report.page.index import choose
from orch_local.report.page.writing import page_of
from orch_local.results.summarise import summarise
from orch_local.results.tables import read_table

RAW = ("script", "style")
SECTIONS = [
    "accuracy",
    "answers",
    "pairs",
    "categories",
    "panel",
    "router",
    "calibration",
    "unscored",
    "cost",
    "provenance",
]


class Seen(HTMLParser):
    """Elements, attributes and texts of a page, as a browser would take them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[tuple[str, str]] = set()
        self.values: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.inside.append(tag)
        for name, value in attrs:
            self.attributes.add((tag, name))
            self.values.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        if self.inside[-1:] not in (["script"], ["style"]):
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    @property
    def addresses(self) -> set[str]:
        """Whatever could be loaded or followed."""
        wanted = ("href", "src", "srcset", "action", "formaction", "xlink:href", "data", "poster", "srcdoc")
        return {value for name, value in self.values if name in wanted}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished_run(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("many"), questions(300), (quant, chrono))


@pytest.fixture(scope="module")
def small_page(small: Run) -> str:
    return written(small).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def many_page(many: Run) -> str:
    return written(many).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual_page() -> str:
    return render(page_of(usual(), [timeline("quant", "chrono")]))


def data_of(html: str) -> dict[str, Any]:
    """What the script reads, by id."""
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text), -15))


# Complete in itself


def test_nothing_is_loaded_from_anywhere(small_page: str) -> None:
    seen = Seen(small_page)
    assert all(address.startswith("#") for address in seen.addresses)
    assert not {"link", "img", "iframe", "object", "base", "form", "video"} & set(seen.elements)


def test_the_policy_allows_its_own_style_and_script_alone(usual_page: str) -> None:
    seen = Seen(usual_page)
    (policy,) = (value for name, value in seen.values if name == "content" and "default-src" in value)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy and "http" not in policy
    for element in RAW:
        (code,) = re.findall(f"<{element}>(.*?)</{element}>", usual_page, re.DOTALL)
        assert base._hash(code) == rules[f"{element}-src"]


def test_no_style_or_handler_is_inline(usual_page: str) -> None:
    names = {name for _, name in Seen(usual_page).attributes}
    assert "style" not in names and not any(name.startswith("on") for name in names)


def test_the_style_and_the_script_load_nothing() -> None:
    for file in ("page.css", "page.js"):
        text = base._resource(file)
        assert not re.search(
            r"url\(|@import|fetch\(|XMLHttp|WebSocket|innerHTML|outerHTML|eval\(|import\(", text
        )


def test_each_id_occurs_once_and_is_what_links_and_labels_name(small_page: str) -> None:
    seen = Seen(small_page)
    assert len(seen.ids) == len(set(seen.ids))
    assert {address[1:] for address in seen.addresses} <= set(seen.ids)
    named = {one for name, value in seen.values if name == "aria-labelledby" for one in value.split()}
    assert named and named <= set(seen.ids)


# The same bytes


def test_the_same_run_gives_the_same_bytes(small: Run, small_page: str) -> None:
    assert written(small).read_text(encoding="utf-8") == small_page


def test_a_page_names_no_host(usual_page: str) -> None:
    assert "Began 2026-01-01" in usual_page
    assert timeline("quant").host not in usual_page


def test_what_was_drawn_before_does_not_matter(usual_page: str) -> None:
    render(page_of(usual(router=False)))
    import matplotlib as mpl

    with mpl.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        assert render(page_of(usual(), [timeline("quant", "chrono")])) == usual_page


# Every part, and none without a content


def test_every_part_is_there_in_order() -> None:
    assert [one.id for one in page_of(usual()).sections] == SECTIONS


def test_questions_stand_before_cost(small_page: str) -> None:
    seen = Seen(small_page)
    assert [one for one in seen.ids if one in (*SECTIONS, "questions")][-3:] == [
        "questions",
        "cost",
        "provenance",
    ]


def test_parts_without_a_content_are_left_out() -> None:
    ids = [one.id for one in page_of(bare()).sections]
    assert "router" not in ids and "calibration" not in ids
    assert render(page_of(bare()))


@pytest.mark.parametrize(
    "said",
    [
        "ORCH answered 74.0 % of 100 questions correctly",
        "4 degrees of freedom",
        "12 rows were generated again",
        "0123456789abcdef" * 4,
        "2 engines of 4 are not batch-invariant",
        "of device time (GPU-seconds)",
        "merge invalid",
        "Mode: online",
        "ORCH is right on 5 questions where no agent is",
    ],
)
def test_it_says(usual_page: str, said: str) -> None:
    text = Seen(usual_page).text.replace("\N{NO-BREAK SPACE}", " ")
    assert said in text


def test_plots_have_a_title_and_a_description(usual_page: str) -> None:
    figures = re.findall(r'<svg[^>]*class="figure"[^>]*>(.*?)</svg>', usual_page, re.DOTALL)
    assert len(figures) == 2 * 2 + 2 + 2  # reliability, risk and coverage, router
    assert all("<title" in one and "<desc" in one for one in figures)


def test_agents_are_counted_without_the_merge_agent() -> None:
    told = usual()
    known = {**told.agents, "merge": {"model": "merge-7b"}}
    text = Seen(render(page_of(replace(told, agents=known)))).text
    assert re.search(rf"Agents\s*{len(AGENTS)}\s", text)


def test_a_better_orch_is_called_better() -> None:
    assert "ORCH is 20.0 points better than the best single agent" in render(page_of(usual(router=False)))


def test_a_worse_orch_is_called_worse() -> None:
    told = usual(router=False)
    turned = [
        replace(one, difference=replace(one.difference, value=-one.difference.value))
        if one.difference
        else one
        for one in told.pairs
    ]
    assert "ORCH is 20.0 points worse" in render(page_of(replace(told, pairs=tuple(turned))))


def test_within_chance_is_not_called_better() -> None:
    told = usual(router=False)
    even = tuple(replace(one, p=0.4, p_holm=1.0) for one in told.pairs)
    html = render(page_of(replace(told, pairs=even, categories=(), calibration=())))
    assert "cannot be told apart" in html and "▲ +" not in html


# The table of questions


def test_the_table_holds_every_question_and_its_details(many: Run, many_page: str) -> None:
    data = data_of(many_page)
    listed, meta = unpacked(data["index"]), data["meta"]
    assert listed["ids"] == [one.id for one in many.questions]
    assert sum(meta["blocks"]) == len(many.questions) == len(set(meta["detailed"]))
    told = [one for number in range(len(meta["blocks"])) for one in unpacked(data[f"block-{number}"])]
    for place, one in zip(meta["detailed"], told, strict=True):
        assert one[0] == many.questions[place].text == listed["text"][place]
        assert one[2][1][5] == f"chrono thinks of {place}"


def test_wrong_and_disputed_questions_come_first(many: Run) -> None:
    table = read_table(many.folder, many.plan.names)
    chosen = choose(table, 100)
    right = table.final == table.gold
    assert len(chosen.rows) == 100 and sorted(chosen.urgent) == list(chosen.rows)
    assert not right[chosen.urgent[: int((~right).sum())]].any()


def test_a_million_questions_are_cut_to_what_fits() -> None:
    class Table:
        """As much of a table as the choice looks at."""

        answer = np.zeros((5, 1_000_000), np.int32)
        final = np.zeros(1_000_000, np.int32)
        verdicts: Mapping[str, Any] = {"ORCH": np.ones(1_000_000, np.int8)}

        def __len__(self) -> int:
            return 1_000_000

    chosen = choose(Table())  # type: ignore[arg-type]
    assert len(chosen.rows) == index.MOST_QUESTIONS and chosen.of == 1_000_000


def noise(many: int, dice: random.Random) -> str:
    """Text that cannot be compressed, nor be written in fewer bytes."""
    return "".join(chr(dice.randrange(0x4E00, 0x9FFF)) for _ in range(many))


def test_the_file_stays_within_its_budget_whatever_the_texts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(5)
    asked = [replace(one, category=noise(60, dice)) for one in questions(150)]
    texts = [noise(3000, dice) for _ in asked]

    def loud(question: Question, number: int) -> Analysis:
        return spoken(question.key, "AB"[number % 2], texts[number])

    run = finished(tmp_path, asked, (loud, quant))
    monkeypatch.setattr(writing, "MOST_BYTES", 600_000)
    html = written(run).read_text(encoding="utf-8")
    shown = data_of(html)["meta"]
    assert 400_000 < len(html.encode()) <= 600_000
    assert 0 < sum(shown["blocks"]) < 150 == len(unpacked(data_of(html)["index"])["ids"])
    assert "open to the whole panel" in html


def test_the_list_is_clipped_until_it_fits(many: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MOST_BYTES", 1)
    html = written(many).read_text(encoding="utf-8")
    listed = unpacked(data_of(html)["index"])
    assert len(listed["ids"]) == 300 and set(listed["text"]) == {""}
    assert "The search looks" not in html


def test_details_are_packed_as_far_as_they_fit() -> None:
    dice = random.Random(3)
    many = [[dice.randbytes(60).hex()] for _ in range(500)]
    blocks = pack(many, 15_000)
    size = sum(len(text) + details.BLOCK_COST for text in blocks.texts)
    assert 7_000 < size <= 15_000 and 100 < blocks.questions < 500
    told = [one for text in blocks.texts for one in unpacked(text)]
    assert told == many[: blocks.questions]
    assert pack(many, 0) == Blocks([], []) and pack([], 100) == Blocks([], [])


def test_long_texts_are_cut_with_a_mark(tmp_path: Path) -> None:
    asked = [replace(one, text=f"{number} {'long ' * 2000}") for number, one in enumerate(questions(3))]
    html = written(finished(tmp_path, asked, (quant, chrono))).read_text(encoding="utf-8")
    data = data_of(html)
    assert "[cut: 4,000 of 10,002 characters]" in unpacked(data["block-0"])[0][0]


# Refused


def test_an_unfinished_run_is_refused(tmp_path: Path, small: Run) -> None:
    run = Run.begin(tmp_path)
    with pytest.raises(StoreError):
        write_page(summarise(small.folder), run.folder, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_old_report_survives_a_failure(
    small: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "report.html"
    old.write_text("old")
    monkeypatch.setattr(writing, "render", lambda page: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(summarise(small.folder), small.folder, old)
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


# Hostile text


def shape(html: str) -> tuple[set[str], set[tuple[str, str]]]:
    """What kinds of elements and attributes there are."""
    seen = Seen(html)
    return set(seen.elements), seen.attributes


@pytest.fixture(scope="module")
def known(usual_page: str, many_page: str) -> tuple[set[str], set[tuple[str, str]]]:
    elements, attributes = shape(usual_page)
    more = shape(many_page)
    return elements | more[0], attributes | more[1]


def assert_same_kinds(html: str, known: tuple[set[str], set[tuple[str, str]]]) -> None:
    elements, attributes = shape(html)
    assert elements <= known[0] and attributes <= known[1]
    assert all(address.startswith("#") for address in Seen(html).addresses)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", html)


@pytest.mark.parametrize("first", range(0, len(HOSTILE), 4))
def test_a_hostile_summary_adds_no_element(first: int, known: tuple[set[str], set[tuple[str, str]]]) -> None:
    texts = [*HOSTILE[first:], *HOSTILE[:first]]
    html = render(page_of(hostile_summary(_turns(texts)), [timeline(*texts)]))
    assert_same_kinds(html, known)
    assert len(html.encode()) < 1_000_000


def test_hostile_questions_add_no_element(
    tmp_path: Path, known: tuple[set[str], set[tuple[str, str]]]
) -> None:
    run = finished(tmp_path, hostile_questions(), (hostile, hostile))
    html = written(run).read_text(encoding="utf-8")
    assert_same_kinds(html, known)
    assert html.count("<script") == html.count("</script>") == len(data_of(html)) + 1


ANY = st.text(st.characters(), max_size=40)
NASTY = st.sampled_from(
    ("<", ">", '"', "'", "&", "</script>", "<!--", "-->", "]]>", "javascript:", "{{", "\ud800")
)
MARKUP = st.lists(NASTY | ANY, max_size=6).map("".join)


@given(st.lists(MARKUP, min_size=1, max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_adds_an_element(known: tuple[set[str], set[tuple[str, str]]], texts: list[str]) -> None:
    summary = replace(
        hostile_summary(_turns(texts)), calibration=(), router=None
    )  # plots take most of the time
    assert_same_kinds(render(page_of(summary, [timeline(*texts)])), known)


def _turns(texts: list[str]) -> Any:
    numbers = iter(range(10**6))
    return lambda: texts[next(numbers) % len(texts)]


@given(
    st.recursive(
        MARKUP | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner)
    )
)
def test_data_stay_inside_their_element_and_come_back_the_same(value: Any) -> None:
    text = json_for_script(value)
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


@given(ANY)
def test_titles_are_text(text: str) -> None:
    html = render(Page(text, body("unscored.html.j2", rows=[], more=0), []))
    assert Seen(html).elements.count("title") == 1 and "pwned" not in Seen(html).elements


def test_a_routed_run_has_no_best_agent_in_its_headline() -> None:
    made = usual()
    assert made.router and made.best_agent
    routed, unrouted = headline(made), headline(replace(made, router=None))
    assert "best" not in routed.title + routed.text and "best" not in "".join(
        one.label for one in routed.cards
    )
    assert "of the agents that were asked" in routed.text
    assert made.best_agent in unrouted.text and len(unrouted.cards) == len(routed.cards) + 1
