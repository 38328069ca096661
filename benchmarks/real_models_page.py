"""The page of the study in `real_models.py`, from its stored runs:

    python benchmarks/real_models_page.py OUT > docs/real-models.md

What each run comes to is kept in `results/real_models.json`, so that one run can be made again without the
others: its figures are replaced where OUT has at least as many questions of it. Without OUT the page is made
of what is kept. A run that is not finished is shown with the questions for which all its rows are there, and
without agents that have not begun.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from orch_local.merge.merging import (
    Panel,
    confidence_vote,
    majority,
    merge_task,
    needs_merge,
    probability_pool,
)
from orch_local.plan.files import load_plan
from orch_local.plan.plans import Plan
from orch_local.records import Analysis, Question
from orch_local.results.diagnostics import Diagnostics, DiagnosticsCounter
from orch_local.stats import ece, holm, mcnemar_exact, reliability, wilson
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store

HERE = Path(__file__).resolve().parent
KEPT = HERE / "results" / "real_models.json"
RUNS = ("arc-single", "arc-reversed", "arc-panel", "gsm8k-single", "gsm8k-panel", "arc-large")
SINGLE_OF = {"arc-panel": "arc-single", "gsm8k-panel": "gsm8k-single"}
"""The runs with single answers to the same questions."""
BEHAVIOUR = (
    "| run, agent | rows | unusable | labels answered "
    "| copied | cut | identical | contradicted | undecided |",
    "|---|---|---|---|---|---|---|---|---|",
)
CALIBRATION = (
    "| run, agent | stated confidence | ECE of confidence | ECE of probability | tokens read + written |",
    "|---|---|---|---|---|",
)
Results = dict[str, dict[str, Any]]
"""By run: how many questions it has, and lines of Markdown."""
Answers = Mapping[str, str | None]
"""Question id -> answer."""


@dataclass(frozen=True)
class Run:
    """What is stored of one run: questions of which every row is there."""

    name: str
    plan: Plan
    questions: list[Question]
    rows: dict[str, dict[str, Analysis]]
    """Agent -> question id -> row; the merge agent where it was asked."""
    names: tuple[str, ...]
    """Agents that have begun, in agent order, without the merge agent."""

    @property
    def gold(self) -> dict[str, str]:
        return {one.id: one.gold for one in self.questions if one.gold is not None}

    def answers(self, agent: str) -> Answers:
        return {id_: row.answer if row.usable else None for id_, row in self.rows[agent].items()}

    def panel(self, question: Question) -> Panel:
        return Panel(self.names, tuple(self.rows[name][question.id] for name in self.names))

    def voted(self, vote: Callable[[Question, list[Analysis]], str | None]) -> Answers:
        return {one.id: vote(one, self.panel(one).usable) for one in self.questions}


def load(root: Path, name: str) -> Run | None:
    """A run of the study; ``None`` where it has not begun, or no question has all its rows."""
    folder = RunFolder(root / "runs" / name)
    if not folder.plan.exists():
        return None
    plan, store = load_plan(folder), Store(root / "runs" / "store")
    stored = {worker.name: store.read(worker.spec) for worker in plan.workers}
    names = tuple(agent.name for agent in plan.agents if stored[agent.name])
    kept: list[Question] = []
    rows: dict[str, dict[str, Analysis]] = {worker.name: {} for worker in plan.workers}
    for question in read_questions(folder.questions):
        found = {name: stored[name].get(question.key) for name in names}
        if not all(found.values()):
            continue
        panel = Panel(names, tuple(found.values()))
        if plan.merger and stored[plan.merger.name] and needs_merge(panel, plan.config.merge):
            key = merge_task(question, panel, plan.config.merge).key
            found[plan.merger.name] = stored[plan.merger.name].get(key)
            if found[plan.merger.name] is None:
                continue
        kept.append(question)
        for agent, row in found.items():
            if row is not None:
                rows[agent][question.id] = row
    return Run(name, plan, kept, rows, names) if kept else None


def accuracy_table(run: Run, single: Run | None, reference: str) -> list[str]:
    """All systems on the same questions; each is compared with the single answer of ``reference``."""
    ids = [one.id for one in run.questions if one.gold is not None]
    systems: dict[str, Answers] = {}
    if single is not None:
        ids = [id_ for id_ in ids if all(id_ in single.rows[name] for name in single.names)]
        systems |= {name: single.answers(name) for name in single.names}
    systems |= {name: run.answers(name) for name in run.names}
    if len(run.names) > 1:
        systems |= {
            "majority vote": run.voted(lambda _, usable: majority(usable)),
            "confidence vote": run.voted(lambda _, usable: confidence_vote(usable)),
        }
        if run.questions[0].labels:
            systems["probability pool"] = run.voted(lambda q, u: probability_pool(u, q.labels) or majority(u))
    if run.plan.merger and run.rows[run.plan.merger.name]:
        systems["**merge agent (ORCH)**"] = run.answers(run.plan.merger.name)
    right = {name: _verdicts(answers, run.gold, ids) for name, answers in systems.items()}
    agents = np.array([right[name] for name in run.names])
    lines = [f"n = {len(ids)} questions, the same for all.", ""]
    lines += ["| system | right | accuracy, 95 % interval | against " + reference + " | p, Holm |"]
    lines += ["|---|---|---|---|---|"]
    compared = {name: one for name, one in right.items() if name != reference and reference in right}
    tests = {name: _test(one, right[reference]) for name, one in compared.items()}
    adjusted = dict(zip(tests, holm([p for _, _, p in tests.values()]), strict=True))
    for name, one in right.items():
        versus = "-"
        if name in tests:
            gained, lost, _ = tests[name]
            versus = f"+{gained} -{lost}"
        p = f"{adjusted[name]:.3f}" if name in adjusted else "-"
        lines.append(f"| {name} | {int(one.sum())} | {_share(int(one.sum()), len(ids))} | {versus} | {p} |")
    if len(run.names) > 1:
        best = int(agents.max(axis=0).sum())
        lines.append(f"| any agent right (oracle) | {best} | {_share(best, len(ids))} | - | - |")
    counts = Counter(run.gold[id_] for id_ in ids)
    if run.questions[0].labels:
        label, most = counts.most_common(1)[0]
        lines.append(f"| always {label} | {most} | {_share(most, len(ids))} | - | - |")
        chance = mean(1 / len(one.labels) for one in run.questions)
        lines += ["", f"Chance is {100 * chance:.1f} %. Gold: {_labels(counts)}."]
    return lines


def behaviour_rows(run: Run) -> list[str]:
    """How the reasonings look: copied from the prompt, cut, repeated, at odds with their own answer."""
    lines = []
    for agent, one in _diagnosed(run).agents.items():
        rows = len(run.rows[agent])
        if not rows:
            continue
        counts = [one.copied, one.cut, one.identical, one.contradicted, one.undecided]
        told = [str(count) if one.reasonings else "-" for count in counts]
        unusable = str(rows - one.answers)
        cells = [f"{run.name}, {agent}", str(rows), unusable, _labels(one.labels) or "-", *told]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _diagnosed(run: Run) -> Diagnostics:
    counter = DiagnosticsCounter(run.plan)
    for question in run.questions:
        merged = run.rows[run.plan.merger.name].get(question.id) if run.plan.merger else None
        counter.add(question, run.panel(question), merged, merged.answer if merged else None)
    return counter.diagnostics()


def calibration_rows(run: Run) -> list[str]:
    """What the rows state of themselves, and what they cost."""
    return [_calibration(run, agent, list(found.items())) for agent, found in run.rows.items() if found]


def _calibration(run: Run, agent: str, found: Sequence[tuple[str, Analysis]]) -> str:
    rows = [row for _, row in found if row.usable]
    stated = Counter(row.confidence for row in rows if row.confidence is not None)
    cells = [
        f"{run.name}, {agent}",
        ", ".join(f"{value}: {count}" for value, count in stated.most_common(3)) or "-",
        _ece(
            [(row.confidence and row.confidence / 100, row.answer == run.gold.get(id_)) for id_, row in found]
        ),
        _ece([(_own(row), row.answer == run.gold.get(id_)) for id_, row in found]),
        f"{mean(r.usage.prompt for r in rows):.0f} + {mean(r.usage.generated for r in rows):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def letters_table(root: Path, single: Run) -> list[str]:
    """Single answers in JSON against the letter that the same model finds most probable in a plain chat."""
    lines = ["| model | n | JSON right | letter right | JSON alone right | letter alone right | p |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for agent in single.plan.agents:
        file = root / "letters" / f"{agent.model.name}.json"
        if not file.exists():
            continue
        letters: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        ids = [one.id for one in single.questions if one.id in letters]
        ours = _verdicts(single.answers(agent.name), single.gold, ids)
        theirs = _verdicts(letters, single.gold, ids)
        gained, lost, p = _test(ours, theirs)
        lines.append(
            f"| {agent.model.name} | {len(ids)} | {_share(int(ours.sum()), len(ids))} "
            f"| {_share(int(theirs.sum()), len(ids))} | {gained} | {lost} | {p:.2f} |"
        )
    return lines


def flips_table(single: Run, turned: Run) -> list[str]:
    """How often the text of the answer changes when the choices stand in the opposite order."""
    lines = ["| agent | n | other choice | same label |", "|---|---|---|---|"]
    by_text = {one.text: one for one in turned.questions}
    for name in single.names:
        pairs = [(one, by_text[one.text]) for one in single.questions if one.text in by_text]
        flips = same = 0
        for one, other in pairs:
            first, second = single.answers(name)[one.id], turned.answers(name)[other.id]
            if first is None or second is None:
                continue
            flips += _choice(one, first) != _choice(other, second)
            same += first == second
        lines.append(f"| {name} | {len(pairs)} | {_share(flips, len(pairs))} | {_share(same, len(pairs))} |")
    return lines


def _choice(question: Question, label: str) -> str:
    return question.choices[question.labels.index(label)]


def _verdicts(answers: Answers, gold: Mapping[str, str], ids: Sequence[str]) -> np.ndarray:
    return np.array([answers.get(id_) == gold[id_] for id_ in ids], dtype=bool)


def _test(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float]:
    gained, lost = int((one & ~other).sum()), int((~one & other).sum())
    return gained, lost, mcnemar_exact(gained, lost).p


def _share(count: int, n: int) -> str:
    interval = wilson(count, n)
    if interval is None:
        return "-"
    return f"{100 * count / n:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _labels(counts: Mapping[str, int]) -> str:
    return " ".join(f"{label} {counts[label]}" for label in sorted(counts))


def _own(row: Analysis) -> float | None:
    return (row.probabilities or {}).get(row.answer or "")


def _ece(pairs: Sequence[tuple[float | None, bool]]) -> str:
    known = [(min(1.0, value), right) for value, right in pairs if value is not None]
    if not known:
        return "-"
    values, right = (np.array(column) for column in zip(*known, strict=True))
    return f"{ece(reliability(values.astype(float), right.astype(bool))):.2f}"


def measured(root: Path) -> Results:
    """What the runs below a folder come to."""
    runs = {name: run for name in RUNS if (run := load(root, name))}
    found: Results = {}
    for name, run in runs.items():
        single = runs.get(SINGLE_OF[name]) if name in SINGLE_OF else None
        reference = "coder-single" if name in SINGLE_OF else run.names[-1]
        found[name] = {
            "questions": len(run.questions),
            "table": accuracy_table(run, single, reference),
            "behaviour": behaviour_rows(run),
            "calibration": calibration_rows(run),
        }
    if "arc-single" in runs:
        single = runs["arc-single"]
        found["letters"] = {"questions": len(single.questions), "table": letters_table(root, single)}
        if turned := runs.get("arc-reversed"):
            found["flips"] = {"questions": len(turned.questions), "table": flips_table(single, turned)}
    return found


def page(results: Results) -> str:
    """The page, with the tables of all results in it."""
    text = (HERE / "real_models_page.md").read_text(encoding="utf-8")
    tables = {name: one["table"] for name, one in results.items()}
    for kind, head in (("behaviour", BEHAVIOUR), ("calibration", CALIBRATION)):
        tables[kind] = [*head, *(row for name in RUNS for row in results.get(name, {}).get(kind, []))]
    for name in ("letters", "flips", *RUNS, "behaviour", "calibration"):
        text = text.replace(f"[{name}]\n", "\n".join(tables.get(name, ["*Not run yet.*"])) + "\n")
    return text


def main() -> None:
    results: Results = json.loads(KEPT.read_text(encoding="utf-8"))
    for name, one in (measured(Path(sys.argv[1])) if sys.argv[1:] else {}).items():
        if one["questions"] >= results.get(name, one)["questions"]:
            results[name] = one
    KEPT.write_text(
        json.dumps(results, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )
    sys.stdout.write(page(results))


if __name__ == "__main__":
    main()
