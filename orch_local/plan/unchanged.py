"""Are machine and models still those of a plan? Rows made on others would belong to another spec."""

from __future__ import annotations

from orch_local.errors import EngineError
from orch_local.models.folders import digests, open_model_folder
from orch_local.plan.differences import Change, changes
from orch_local.plan.fingerprint import fingerprint
from orch_local.plan.plans import AgentPlan


def environment_changes(agent: AgentPlan) -> list[Change]:
    """In what the environment here is not the one of the plan.

    To be asked before an engine is loaded in this process, since vLLM sets variables of its own.
    """
    return changes(agent.environment, fingerprint(agent.settings))


def changed_files(agent: AgentPlan, *, fresh: bool = False) -> list[str]:
    """Names of the model's files whose SHA-256 is not that of the plan; ``fresh`` reads every byte again.

    Raises
    ------
    ModelError
        If the model cannot be used at all.
    """
    now = digests(open_model_folder(agent.model), fresh=fresh)
    return [change.field for change in changes(agent.spec_content["model"]["files"], now)]


def check_unchanged(agent: AgentPlan) -> None:
    """Make sure that rows made here are what the agent's spec says.

    Raises
    ------
    EngineError
        Naming what is not as planned.
    """
    found = environment_changes(agent)
    if found:
        raise EngineError(
            f"this machine is not like the one of the plan: {'; '.join(map(str, found))}",
            hint="go on where the run was begun, or start anew with --accept-new-environment",
        )
    for name in changed_files(agent):
        raise EngineError(
            f"{name} is not the file that was planned with: its SHA-256 is another",
            where=str(agent.settings.model_path),
            hint="put the old file back, or choose another --out for the new one",
        )
