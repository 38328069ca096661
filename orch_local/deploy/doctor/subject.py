"""The run that is looked at: a run file and its folders, or the embedded demo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orch_local.config.model_configs import load_model_config
from orch_local.config.run_files import RunConfig, load_run
from orch_local.deploy.doctor.request import DoctorRequest, run_folder, store_folder
from orch_local.store.store import RunFolder

if TYPE_CHECKING:
    from orch_local.config.model_configs import ModelConfig
    from orch_local.plan.plans import Plan


@dataclass(frozen=True)
class Subject:
    """A run file that was read, and where its run would be."""

    config: RunConfig
    folder: RunFolder
    store: Path

    @property
    def model_names(self) -> dict[str, str]:
        """The model of each agent, and of the merge agent, as the run file has it."""
        names = {agent.name: agent.model for agent in self.config.agents}
        merge = self.config.merge
        return names | ({"merge": merge.model} if merge.policy == "agent" and merge.model else {})

    def models(self) -> dict[str, ModelConfig]:
        """The model config of each agent, and of the merge agent.

        Raises
        ------
        ConfigError
            If one of them is not found or not valid.
        """
        known = {name: load_model_config(name) for name in dict.fromkeys(self.model_names.values())}
        return {agent: known[name] for agent, name in self.model_names.items()}

    @cached_property
    def frozen(self) -> Plan | None:
        """The plan that the run folder has already.

        Raises
        ------
        StoreError
            If it was edited or is of another version.
        """
        from orch_local.plan.files import load_plan

        return load_plan(self.folder) if self.folder.plan.exists() else None


def read_subject(request: DoctorRequest) -> Subject:
    """Read the run file of a request; without one it is the demo's, whose questions are written to scratch.

    Raises
    ------
    InputError
        If it is not valid.
    StoreError
        If the demo's questions cannot be written.
    """
    folder, store = RunFolder(run_folder(request)), store_folder(request)
    if request.run_file is not None:
        return Subject(load_run(Path(request.run_file)), folder, store)
    from orch_local.demo.settings import QUESTIONS, RUN_FILE, demo_overrides

    # Without scratch the questions are missing, which the check of the questions then says.
    overrides = demo_overrides(Path(request.scratch), QUESTIONS, "vllm") if request.scratch else {}
    return Subject(load_run(RUN_FILE, overrides), folder, store)
