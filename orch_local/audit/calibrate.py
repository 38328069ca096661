"""A router state learnt from a finished run over a calibration split; needs no engine."""

from __future__ import annotations

from pathlib import Path

from orch_local.errors import InputError, StoreError
from orch_local.merge.panels import Panels
from orch_local.plan.files import load_plan
from orch_local.plan.plans import RouterPlan
from orch_local.plan.profiles import load_profile
from orch_local.results.finished import recorded_digest
from orch_local.router.averages import RouterState
from orch_local.router.feedback import FeedbackReader
from orch_local.router.states import StateFile, agent_identity, check_profile, profile_digest
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store


def calibrate(folder: RunFolder, alpha: float, prior: float, profile: Path | None) -> StateFile:
    """Learn a state from a finished run whose agents were all asked; needs no engine.

    Raises
    ------
    InputError
        If the run was routed, or none of its questions has a gold answer.
    StoreError
        If it is not finished, or rows are missing.
    """
    plan, questions = load_plan(folder), read_questions(folder.questions)
    if plan.config.router:
        hint = "run the calibration split without `router`, so that every agent is asked"
        raise InputError("this run was routed itself", where=str(folder.root), hint=hint)
    run_digest = recorded_digest(folder)
    measured = load_profile(profile) if profile else None
    check_profile(measured, plan.names, str(profile))
    reader = FeedbackReader(plan.model_copy(update={"router": RouterPlan(profile=measured)}))
    panels, state, gold = Panels(plan, Store(plan.store)), RouterState(len(plan.agents), prior), 0
    for question in questions:
        rows = panels.of(question).analyses
        if any(row is None for row in rows):
            hint = "run the same command again to generate them anew"
            raise StoreError(
                f"analyses of question {question.id} are missing", where=str(plan.store), hint=hint
            )
        signals = [reader.signal(place, row, question.gold) for place, row in enumerate(rows) if row]
        state.observe(alpha, question.category, signals)
        gold += question.gold is not None
    if not gold:
        raise InputError("no question of this run has a gold answer to learn from", where=str(folder.root))
    return StateFile(
        agents={agent.name: agent_identity(agent) for agent in plan.agents},
        run_digest=run_digest,
        alpha=alpha,
        profile=profile_digest(measured),
        questions=tuple(question.id for question in questions),
        state=state.to_dict(),
    )
