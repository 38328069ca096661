"""Prepares a run folder: a run file is checked and frozen into it before the first model is loaded."""

from __future__ import annotations

import dataclasses
import json
import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path

from orch_local.config.run_files import RunConfig
from orch_local.errors import StoreError
from orch_local.plan.differences import Change, plan_changes
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.plans import Plan
from orch_local.router.routes import write_routes
from orch_local.run import waves
from orch_local.run.planning import check, plan_run
from orch_local.store.questions import read_questions, write_questions
from orch_local.store.store import RunFolder, write_text

log = logging.getLogger(__name__)

_LONGEST_CHANGE = 160


def prepare(config: RunConfig, folder: RunFolder, store: Path, accept_new_environment: bool = False) -> Plan:
    """Check a run file against models and questions and freeze it into the run folder.

    Parameters
    ----------
    accept_new_environment:
        Take over a folder whose run was begun with other libraries or on another device. All its rows are
        then generated anew: the environment is part of every spec.

    Raises
    ------
    InputError
        Whatever of the input cannot be used, before any model is loaded.
    StoreError
        If the folder belongs to another plan, or cannot be written.
    """
    begun = load_plan(folder) if folder.plan.exists() else None
    plan, questions, bad_rows, _ = plan_run(config, store, begun)
    check(plan, questions)
    if begun:
        _refuse_other_plan(folder, begun, plan, accept_new_environment)
    write_questions(folder.questions, questions)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in bad_rows]
    write_text(folder.bad_rows, "".join(lines))
    write_plan(folder, plan)
    if plan.config.router and not waves.size(plan.config):
        write_routes(folder, plan, read_questions(folder.questions))
    return plan


def _refuse_other_plan(folder: RunFolder, begun: Plan, now: Plan, accept_new_environment: bool) -> None:
    """Rows of two plans, or of two environments, are never mixed in one run without a word."""
    changed = plan_changes(begun, now)
    if changed.plan:
        fast = any(one.field.endswith("engine.fast") for one in changed.plan)
        way = (
            "give or leave out --fast as before, or choose another --out" if fast else "choose another --out"
        )
        raise StoreError(
            f"this folder holds a run of a different plan; it differs in: {_told(changed.plan)}",
            where=str(folder.root),
            hint=f"{way}; rows that both plans need are taken from the store, not made again",
        )
    if changed.environment and accept_new_environment:
        # There is no log yet: this goes to standard error.
        log.warning("Another environment, so all rows are made anew: %s.", _told(changed.environment))
    elif changed.environment:
        raise StoreError(
            f"this run was begun in another environment; it differs in: {_told(changed.environment)}",
            where=str(folder.root),
            hint="continue it there, choose another --out, or make its rows anew by --accept-new-environment",
        )


def _told(changed: Sequence[Change]) -> str:
    return "; ".join(textwrap.shorten(str(one), _LONGEST_CHANGE, placeholder=" ...") for one in changed)
