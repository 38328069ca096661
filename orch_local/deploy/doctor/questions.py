"""The questions of the run, and the plan that they make with its agents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.digests import bytes_to_hash, too_long_to_hash
from orch_local.deploy.doctor.gpu import sight
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.models import broken
from orch_local.deploy.doctor.tools import one_line, size

if TYPE_CHECKING:
    from orch_local.deploy.doctor.subject import Subject

MOST_BYTES = 100 * 2**20
"""Benchmarks above it are not read here."""
_MOST_FILES = 20_000
_MOST_NAMED = 4
_SECONDS = 120.0
_DISK = "is the benchmark on a network disk that hangs?"


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Read the questions, then make the plan that a run would make."""
    inspection.step("questions", "reading the run file")
    if inspection.subject is None:
        yield unchecked("questions", "the run file cannot be read")
        yield unchecked("plan", "the run file cannot be read")
        return
    config = inspection.subject.config.benchmark
    inspection.step("questions", f"reading the questions of {config.name}", _SECONDS, _DISK)
    found = bytes_below(config.path)
    if found > MOST_BYTES:
        text = f"{size(found)} are too much to read here"
        yield unchecked("questions", text, "`orch-local plan RUN_FILE` reads them")
        yield unchecked("plan", f"the questions are {size(found)}", "`orch-local plan RUN_FILE` makes it")
        return
    from orch_local.benchmarks.loading import load_questions
    from orch_local.errors import OrchError

    try:
        loaded = load_questions(config)
    except OrchError as error:
        yield broken("questions", error, "")
        yield unchecked("plan", "there are no questions")
        return
    inspection.questions = len(loaded.questions)
    yield judge_questions(inspection.questions, len(loaded.bad_rows))
    yield from _plan(inspection, inspection.subject)


def bytes_below(path: Path) -> int:
    """Size of a file, or of what lies in a folder."""
    if path.is_file():
        return path.stat().st_size
    total = files = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_size
            except OSError:
                continue
            files += 1
            if files > _MOST_FILES or total > MOST_BYTES:
                return max(total, MOST_BYTES + 1)
    return total


def judge_questions(questions: int, bad_rows: int) -> Finding:
    """Whether all rows of the benchmark can be asked."""
    text = f"{questions:,} question{'' if questions == 1 else 's'}"
    if not bad_rows:
        return green("questions", f"{text}, no bad row")
    advice = "nothing, if they may be left out; the run records each with its reason in bad_rows.jsonl"
    return yellow("questions", f"{text}; {bad_rows:,} bad rows are skipped", advice)


def _plan(inspection: Inspection, subject: Subject) -> Iterator[Finding]:
    """Make the plan, as `orch-local plan` does it."""
    inspection.step("plan", "looking which weights are hashed already", 60)
    problem = "nvidia-smi does not answer" if sight().hangs else ""
    models = _models(subject)
    if not problem and models is not None:
        missing = 0 if inspection.request.fresh else bytes_to_hash(models)
        problem = too_long_to_hash(missing)
    if models is None or problem:
        yield unchecked("plan", problem or "not all models can be used")
        return
    from orch_local.errors import OrchError
    from orch_local.plan.differences import plan_changes
    from orch_local.run.planning import check, plan_run

    inspection.step("plan", "making the plan", 600, "`orch-local plan` does the same, and shows more")
    try:
        frozen = subject.frozen
        planned = plan_run(subject.config, subject.store, frozen)
        check(planned.plan, planned.questions)
    except OrchError as error:
        yield broken("plan", error, "")
        return
    if frozen is None:
        yield green("plan", "can be made; the run has not begun")
        return
    changed = plan_changes(frozen, planned.plan)
    yield judge_changes([str(one) for one in changed.plan], [str(one) for one in changed.environment])


def _models(subject: Subject) -> Sequence[Path] | None:
    from orch_local.errors import OrchError
    from orch_local.models.folders import open_model_folder

    try:
        return [open_model_folder(config).path for config in subject.models().values()]
    except OrchError:
        return None


def judge_changes(plan: Sequence[str], environment: Sequence[str]) -> Finding:
    """Whether the run of the run folder can be continued here."""
    if plan:
        advice = "choose another --out, or put back what is named; `orch-local run` refuses as it is"
        return red("plan", f"the run folder holds another run: {_named(plan)}", advice)
    if environment:
        advice = "go on where it began, or with `--accept-new-environment`, which generates all rows anew"
        return red("plan", f"the run was begun in another environment: {_named(environment)}", advice)
    return green("plan", "the same as in the run folder: the run can be continued")


def _named(changes: Sequence[str]) -> str:
    more = f"; and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
    return "; ".join(one_line(one, 160) for one in changes[:_MOST_NAMED]) + more
