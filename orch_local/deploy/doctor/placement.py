"""Whether the models fit this machine, and whether equal bytes are promised.

The placement is that of `orch-local plan`. The plan is made without digests here: no placement depends on
them, and hashing large weights takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from orch_local.deploy.doctor.checks import Finding, green, unchecked, yellow
from orch_local.deploy.doctor.gpu import sight
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.models import broken
from orch_local.deploy.doctor.tools import one_line

if TYPE_CHECKING:
    from orch_local.deploy.doctor.subject import Subject
    from orch_local.placement.replicas import Placement
    from orch_local.plan.plans import AgentPlan, Plan

_QUESTIONS = 1000
"""Taken for the estimates where the run file has no limit; a placement hardly depends on it."""


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Place the run on this machine."""
    inspection.step("placement", "reading the run file")
    if inspection.subject is None:
        yield from _neither("the run file cannot be read")
        return
    if sight().hangs:
        yield from _neither("nvidia-smi does not answer")
        return
    from orch_local.errors import OrchError
    from orch_local.run.planning import machine_for, placed

    inspection.step("placement", "placing the models", 90)
    try:
        plan = provisional(inspection.subject)
    except OrchError as error:
        yield from _neither(f"not all models can be used: {one_line(error.message)}")
        return
    machine = machine_for(plan)
    try:
        yield judge_placement(placed(plan, machine), _widths(plan))
    except OrchError as error:
        yield broken("placement", error, "")
    if plan.config.engine.name == "fake":
        yield unchecked("batch-invariance", "the fake engine computes nothing")
        return
    yield from judge_obstacles({agent.name: agent.obstacles for agent in plan.workers})


def _neither(why: str) -> Iterator[Finding]:
    yield unchecked("placement", why)
    yield unchecked("batch-invariance", why)


def provisional(subject: Subject) -> Plan:
    """A plan as far as placement needs it: no digests, no specs.

    Raises
    ------
    InputError
        If a model cannot be used.
    """
    from orch_local import __version__
    from orch_local.plan.plans import Plan, QuestionsPlan

    workers = {name: _worker(subject, name) for name in subject.model_names}
    merger = workers.pop("merge", None)
    count = subject.config.benchmark.limit or _QUESTIONS
    return Plan(
        version=__version__,
        config=subject.config,
        agents=tuple(workers.values()),
        merger=merger,
        questions=QuestionsPlan(count=count, bad_rows=0, digest=""),
        store=subject.store,
        environment={},
    )


def _worker(subject: Subject, name: str) -> AgentPlan:
    from orch_local.config.model_configs import load_model_config
    from orch_local.models.folders import open_model_folder
    from orch_local.plan.execution import engine_settings
    from orch_local.plan.plans import AgentPlan

    model = load_model_config(subject.model_names[name])
    return AgentPlan(
        name=name,
        kind="merge" if name == "merge" else "analysis",
        model=model,
        settings=engine_settings(model, open_model_folder(model), subject.config.engine),
        template="",
        answer=subject.config.answer,
        thinking=None,
        max_tokens=None,
        spec="",
        spec_content={},
    )


def _widths(plan: Plan) -> dict[str, int]:
    from orch_local.placement.estimates import width

    return {agent.name: width(agent.settings) for agent in plan.workers}


def judge_placement(placement: Placement, widths: Mapping[str, int]) -> Finding:
    """How the models are spread over the machine."""
    machine = placement.machine
    models = "1 model fits" if len(widths) == 1 else f"{len(widths)} models fit"
    together = len({replica.devices for replica in placement.replicas})
    if machine.kind == "cpu":
        memory = (
            f"{machine.memory_gib:.1f} GiB of memory" if machine.memory_gib else "memory that is not told"
        )
        workers = f"{together} worker{'' if together == 1 else 's'} side by side"
        return green("placement", f"{models} into {memory}; {workers}")
    gpus = f"{machine.devices} GPU{'' if machine.devices == 1 else 's'}"
    wide = [f"{name} over {width}" for name, width in widths.items() if width > 1]
    spread = f"; spread: {', '.join(wide)}" if wide else ""
    if not machine.memory_gib:
        text = f"whether the models fit on {gpus} is not known: their memory is not told{spread}"
        return yellow("placement", text, "see `gpu-driver`, and compare `orch-local plan` with the GPU")
    return green("placement", f"{models} on {gpus} of {machine.memory_gib:.0f} GiB{spread}")


def judge_obstacles(obstacles: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Whether the same bytes come in any batch; agents with the same reasons are one finding."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, reasons in obstacles.items():
        alike.setdefault(reasons, []).append(name)
    for reasons, names in alike.items():
        about = ", ".join(names) if len(alike) > 1 else ""
        if reasons:
            text = f"not available: {'; '.join(reasons)}"
            advice = (
                "nothing, if the level `verified` will do (docs/determinism.md); else change what is named"
            )
            yield yellow("batch-invariance", text, advice, about)
        else:
            yield green("batch-invariance", "available: the same bytes in any batch (level `bitwise`)", about)
