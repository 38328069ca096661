"""What differs between two nested mappings, field by field; for specs, plans and environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from orch_local.plan.plans import AgentPlan, Plan

ABSENT = "(absent)"
"""Stands for a field that one side does not have."""


class Change(NamedTuple):
    """One field with two values."""

    field: str
    """Dotted path of the field, e.g. ``environment.torch``."""
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {self.before} -> {self.after}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[Change]:
    """The fields in which two mappings differ, in the order of ``before``; lists are compared whole."""
    found: list[Change] = []
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(Change(f"{prefix}{name}", old, new))
    return found


class PlanChanges(NamedTuple):
    """What differs between two plans."""

    plan: list[Change]
    """Questions, agents, prompts, weights, rules: another run."""
    environment: list[Change]
    """Libraries, device and what else can change bytes: the same run elsewhere."""


def plan_changes(before: Plan, now: Plan) -> PlanChanges:
    """What differs between two plans; both lists are empty where :meth:`Plan.identity` is the same.

    A change of environment that all workers share is listed once, as ``environment.torch``, any other for its
    worker, as ``agent quant: environment.torch``. Fields of a worker that one plan does not have are not
    listed, ``agents`` or ``merge.policy`` shows it.
    """
    found = changes(_run_fields(before), _run_fields(now))
    old, new = _by_name(before), _by_name(now)
    places: dict[str, list[Change]] = {}
    for name in (name for name in old if name in new):
        differing = changes(old[name].spec_content, new[name].spec_content)
        free = _machine_chooses_dtype(old[name], new[name])
        places[name] = [one for one in differing if _is_of_environment(one, free)]
        found += _told_for(name, [one for one in differing if not _is_of_environment(one, free)])
    environment = [
        one for one in next(iter(places.values()), []) if all(one in place for place in places.values())
    ]
    everywhere = set(map(str, environment))
    for name, place in places.items():
        environment += _told_for(name, [one for one in place if str(one) not in everywhere])
    return PlanChanges(found, environment)


def _run_fields(plan: Plan) -> dict[str, Any]:
    """What of the identity of a plan is no worker's own."""
    return {name: value for name, value in plan.identity().items() if name not in _by_name(plan)}


def _by_name(plan: Plan) -> dict[str, AgentPlan]:
    """The workers, by the names that they have in the identity of a plan."""
    names = [f"agent {agent.name}" for agent in plan.agents] + ["merge agent"]
    return dict(zip(names, plan.workers, strict=False))


def _is_of_environment(change: Change, machine_chooses_dtype: bool) -> bool:
    """Whether a field of a spec follows from the machine, and not from the run file or the model."""
    if change.field == "environment.dtype":
        return machine_chooses_dtype
    return change.field.startswith("environment.")


def _machine_chooses_dtype(*workers: AgentPlan) -> bool:
    """Whether another dtype may be due to another machine; see :mod:`orch_local.plan.dtypes`."""
    named = any(worker.model.dtype != "auto" for worker in workers)
    return not named and any(worker.settings.device == "cpu" for worker in workers)


def _told_for(worker: str, found: list[Change]) -> list[Change]:
    return [change._replace(field=f"{worker}: {change.field}") for change in found]
