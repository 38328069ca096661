"""Each worker gets the slot that the placement has for it, and the next model is prepared in time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import Run, analysis
from running import Silent, execute

from orch_local.config.blocks import EngineConfig
from orch_local.errors import InputError
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.plans import AgentPlan
from orch_local.results.timeline import read_all
from orch_local.run import next_model, scheduler
from orch_local.run.stats import Timing
from orch_local.run.supervisor import Progress, WorkerOptions
from orch_local.run.worker_slots import WorkerSlot
from orch_local.store.store import RunFolder, Store
from orch_local.util.gpus import Gpu

H100 = Gpu("NVIDIA H100 80GB HBM3", 80.0, "580.1", (9, 0), "GPU-aa")
OLD = Gpu("Tesla T4", 16.0, "580.1", (7, 5), "GPU-bb")
LETTERS = {"quant": "BACABACA", "chrono": "BBACBBAC"}


class Worker:
    """Stands for `Supervisor`: writes its rows at once, and notes its slot."""

    slots: list[tuple[str, WorkerSlot]]
    """Of all workers, with their agents' names."""
    all: list[Worker]
    prepared: list[str]
    """Agents whose workers were started ahead."""
    loaded = True
    resident_gib = 0.0

    def __init__(
        self,
        folder: RunFolder,
        agent: AgentPlan,
        store: Store,
        options: WorkerOptions,
    ) -> None:
        self._run, self._agent = run_of(folder), agent
        self._options = options
        self.timing = Timing(0.0, 1.0, recheck_s=0.25, rechecked=2)
        self.slots.append((agent.name, options.slot))
        self.all.append(self)

    @property
    def stays(self) -> bool:
        """Whether it is to wait for another agent at the end."""
        handover = self._options.handover
        return bool(handover and handover.stay)

    def run(self, rows: Mapping[str, str], progress: Progress) -> None:
        """See `Supervisor`."""
        run, name = self._run, self._agent.name
        self._options.rechecking(2)
        keys = [one.key for one in run.questions]
        made = (
            run.merged()
            if name == "merge"
            else {key: analysis(key, said) for key, said in zip(keys, LETTERS[name], strict=True)}
        )
        if rows:
            run.add(name, *(made[key] for key in rows))
        progress(len(rows))

    def follow(self, keys: Sequence[str], progress: Progress) -> None:
        """See `Supervisor`; the merge that waits does it all."""

    def complete(self) -> None:
        """See `Supervisor`."""

    def prepare(self) -> None:
        """See `Supervisor`."""
        self.prepared.append(self._agent.name)

    def stop(self) -> None:
        """See `Supervisor`."""


RUNS: dict[Path, Run] = {}


def run_of(folder: RunFolder) -> Run:
    return RUNS[folder.root]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that has been prepared; its workers are ours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = Run.begin(tmp_path, count=8)
    RUNS[made.folder.root] = made
    Worker.slots, Worker.all, Worker.prepared = [], [], []
    monkeypatch.setattr(scheduler, "Supervisor", Worker)
    return made


def slots(run: Run) -> list[tuple[str, WorkerSlot]]:
    """Run it, and tell who had which slot; those that follow are left out."""
    execute(run.folder, Silent())
    return Worker.slots


def on_gpus(run: Run, monkeypatch: pytest.MonkeyPatch, *found: Gpu, tensor_parallel: int = 1) -> None:
    """Let the machine have these GPUs, and the run use them."""
    monkeypatch.setattr("orch_local.util.gpus._installed_gpus", lambda: found)
    args = {
        "tensor_parallel_size": tensor_parallel,
        "pipeline_parallel_size": 1,
        "gpu_memory_utilization": 0.85,
    }
    plan = load_plan(run.folder)

    def there(agent: AgentPlan) -> AgentPlan:
        return agent.model_copy(update={"settings": replace(agent.settings, device="cuda", args=args)})

    agents = tuple(map(there, plan.agents))
    merger = there(plan.merger) if plan.merger else None
    write_plan(run.folder, plan.model_copy(update={"agents": agents, "merger": merger}))


def limited(run: Run, at_once: int | None = None, per_gpu: int = 1) -> None:
    """Let it have so many workers side by side, and on one GPU, at most."""
    plan = load_plan(run.folder)
    engine = EngineConfig(models_at_once=at_once, models_per_gpu=per_gpu)
    config = plan.config.model_copy(update={"engine": engine})
    write_plan(run.folder, plan.model_copy(update={"config": config}))


def test_workers_see_the_gpu_of_their_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(run, monkeypatch, H100, H100)
    found = slots(run)
    assert {slot.gpus for _, slot in found} == {"0", "1"}
    assert all(slot.memory_share and 0 < slot.memory_share <= 0.85 for _, slot in found)
    assert all(slot.cores == () for _, slot in found)


def test_models_share_a_gpu_where_that_is_allowed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(run, monkeypatch, H100)
    limited(run, per_gpu=2)
    found = [slot for name, slot in slots(run) if name != "merge"]
    assert {slot.gpus for slot in found} == {"0"}
    assert sum(slot.memory_share or 0 for slot in found) <= 0.92


def test_gpus_are_called_as_the_job_was_given_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(run, monkeypatch, H100, H100, H100)
    limited(run, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    assert {slot.gpus for _, slot in slots(run)} == {"2", "1"}


def test_a_gpu_of_another_kind_is_left_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(run, monkeypatch, H100, OLD, H100)
    assert {slot.gpus for _, slot in slots(run)} == {"0", "2"}


def test_a_model_that_is_spread_over_gpus_sees_them_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(run, monkeypatch, H100, H100, tensor_parallel=2)
    assert {slot.gpus for _, slot in slots(run)} == {"0,1"}


def test_a_slice_of_a_gpu_is_left_as_it_was_given(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(run, monkeypatch, H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    assert {slot.gpus for _, slot in slots(run)} == {None}


def test_models_that_need_more_gpus_than_there_are_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpus(run, monkeypatch, H100, tensor_parallel=2)
    with pytest.raises(InputError, match="2 GPUs"):
        slots(run)
    assert Worker.slots == []


def test_workers_on_a_cpu_get_cores_of_their_own_where_all_are_at_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    found = slots(run)
    assert {slot.cores for name, slot in found if name != "merge"} == {(4,), (5,)}
    assert {slot.gpus for _, slot in found} == {None}


def test_a_worker_alone_on_a_cpu_is_placed_by_the_kernel(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    limited(run, 1)
    assert {slot.cores for _, slot in slots(run)} == {()}


def test_rows_generated_again_are_shown_and_counted(run: Run) -> None:
    shown: list[tuple[str, int]] = []

    class Noted(Silent):
        def again(self, name: str, rows: int) -> None:
            shown.append((name, rows))

    result = execute(run.folder, Noted())
    workers = {name: sum(worker == name for worker, _ in Worker.slots) for name in (*LETTERS, "merge")}
    assert {name for name, rows in shown if rows == 2} >= set(LETTERS)
    (timeline,) = read_all(run.folder).read
    assert all((span.recheck_s, span.rechecked) == (0.25, 2) for span in timeline.spans)
    written = json.loads(run.folder.metrics.read_text())["cost"]
    for name, cost in result.costs.items():
        assert (cost.recheck_s, cost.rechecked) == (0.25 * workers[name], 2 * workers[name])
        assert (written[name]["recheck_s"], written[name]["rechecked"]) == (cost.recheck_s, cost.rechecked)


def test_the_weights_of_the_next_model_are_read_ahead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(run, 1)
    read: list[str] = []

    class Reader:
        def __init__(self, files: Sequence[Path]) -> None:
            read.extend(file.parent.name for file in files)

        def start(self) -> None:
            """See `ReadAhead`."""

    monkeypatch.setattr(next_model, "ReadAhead", Reader)
    slots(run)
    assert read == ["chrono", "merge"]


def of_one_model(run: Run, *names: str) -> None:
    """Let some agents have one model in one set of settings."""
    plan = load_plan(run.folder)
    settings = plan.agents[0].settings

    def alike(agent: AgentPlan) -> AgentPlan:
        return agent.model_copy(update={"settings": settings}) if agent.name in names else agent

    agents = tuple(map(alike, plan.agents))
    merger = alike(plan.merger) if plan.merger else None
    write_plan(run.folder, plan.model_copy(update={"agents": agents, "merger": merger}))


def stays(run: Run) -> dict[str, bool]:
    """Run it, and tell in order whose worker was to wait for another agent."""
    execute(run.folder, Silent())
    return {worker._agent.name: worker.stays for worker in Worker.all}


def test_a_worker_waits_for_the_next_agent_of_its_model(run: Run) -> None:
    limited(run, 1)
    of_one_model(run, "quant", "chrono", "merge")
    assert stays(run) == {"quant": True, "chrono": True, "merge": False}


def test_the_agents_of_the_merge_agents_model_come_last(run: Run) -> None:
    limited(run, 1)
    of_one_model(run, "quant", "merge")
    assert stays(run) == {"chrono": False, "quant": True, "merge": False}


def test_no_worker_waits_where_the_models_differ(run: Run) -> None:
    limited(run, 1)
    assert set(stays(run).values()) == {False}


def test_the_next_worker_is_started_ahead_on_a_gpu_unless_it_takes_over(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpus(run, monkeypatch, H100)
    of_one_model(run, "quant", "merge")
    stays(run)
    assert Worker.prepared == ["quant"]
