"""Runs on a real SLURM: two nodes on this machine, and everything that happens to jobs on clusters.

A table stands in the place of the engine (see `table_run.py`), which waits at a gate, so that no test has
to be quick; one case loads real engines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import SUPPORT
from slurm_cluster import Cluster
from soak import write_inputs as write_soak_inputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 120.0
QUESTIONS = 48
TABLE_RUN = (sys.executable, str(SUPPORT / "table_run.py"))
REAL = (sys.executable, "-m", "orch_local")


@dataclass
class Run:
    """A run of the command line that is submitted to the cluster."""

    cluster: Cluster
    folder: Path
    command: Sequence[str] = TABLE_RUN
    slurm: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.folder / "runs" / "one"

    @property
    def gate(self) -> Path:
        """While it is there, engines wait."""
        return self.folder / "gate"

    def write(self, *, merged: bool = False) -> None:
        """Write run file and questions: one agent, and a merge agent if ``merged``."""
        write_soak_inputs(self.folder, QUESTIONS)
        values = yaml.safe_load((self.folder / "run.yaml").read_text())
        del values["agents"][1:]
        values["engine"]["recheck_rows"] = 0
        if not merged:
            values["merge"] = {"policy": "majority"}
        setup = [f"export TABLE_GATE='{self.gate}'"]
        values["slurm"] = {"cpus_per_task": 1, "mem": "4G", "time": "10", "setup": setup, **self.slurm}
        (self.folder / "run.yaml").write_text(yaml.safe_dump(values))

    def call(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        env = {**self.cluster.env, "PATH": path or self.cluster.env["PATH"]}
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE_S,
            check=False,
        )

    def submit(self, *options: str) -> dict[str, Any]:
        """Submit the run; returns what is noted of it."""
        done = self.call("submit", str(self.folder / "run.yaml"), "--out", str(self.out), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        noted: dict[str, Any] = json.loads((self.out / "slurm" / "jobs.json").read_text())["submissions"][-1]
        return noted

    def status(self) -> dict[str, Any]:
        """What `status --json` says, and its exit code."""
        done = self.call("status", str(self.out), "--json")
        return {**json.loads(done.stdout), "code": done.returncode}

    def task(self, number: int, of: int) -> dict[str, Any]:
        """The state file of a shard."""
        path = self.out / "slurm" / "tasks" / f"{number:05}-of-{of:05}.json"
        values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return values

    def working(self, *shards: str, attempt: int = 1) -> bool:
        """Whether these shards, such as ``1/2``, have written some rows and wait at the gate."""
        files = [self.task(*map(int, shard.split("/"))) for shard in shards]
        begun = all(one.get("state") == "running" and one.get("attempt") == attempt for one in files)
        folders = [f"{int(shard.split('/')[0]):05}-of-{int(shard.split('/')[1]):05}" for shard in shards]
        return begun and all(
            list((self.folder / "runs" / "store").rglob(f"{name}/*.jsonl")) for name in folders
        )

    def states(self, job: str) -> dict[int, str]:
        """State by array task, of those in the queue."""
        lines = self.cluster.client("squeue", "-h", "-r", "-j", job, "-o", "%K %T", check=False).splitlines()
        return {int(key): state for key, state in map(str.split, lines) if key.isdecimal()}

    def gone(self, *jobs: str) -> bool:
        """Whether these jobs have left the queue."""
        return not self.cluster.client("squeue", "-h", "-j", ",".join(jobs), check=False)

    def finished(self, submission: dict[str, Any]) -> dict[str, Any]:
        """Open the gate, wait for the last job, and check the result."""
        self.gate.unlink(missing_ok=True)
        until(lambda: self.gone(*submission["jobs"].values()), self.told)
        found = self.status()
        assert found["code"] == 0, self.told()
        return found

    def told(self) -> str:
        """All that the jobs printed."""
        logs = sorted((self.out / "slurm" / "logs").glob("*.log"))
        tasks = sorted((self.out / "slurm" / "tasks").glob("*.json"))
        return "\n".join(f"--- {file.name}\n{file.read_text()}" for file in (*logs, *tasks))


def until(condition: Callable[[], object], told: Callable[[], str] = str) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"it never happened\n{told()}"
        time.sleep(0.2)


@pytest.fixture
def run(tmp_path: Path, cluster: Cluster) -> Iterator[Run]:
    """A run with a closed gate; at the end its jobs are gone and the nodes are idle again."""
    folder = tmp_path / "a run"
    folder.mkdir()
    made = Run(cluster, folder)
    made.gate.touch()
    yield made
    made.gate.unlink(missing_ok=True)
    cluster.clear()


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Callable[[bool], str]:
    """The digest of the same run on one box, with and without a merge agent."""
    known: dict[bool, str] = {}

    def digest(merged: bool = False) -> str:
        if merged not in known:
            run = Run(cluster, tmp_path_factory.mktemp("reference"))
            run.write(merged=merged)
            done = run.call("run", str(run.folder / "run.yaml"), "--out", str(run.out), "--quiet")
            assert done.returncode == 0, done.stderr
            known[merged] = json.loads((run.out / "metrics.json").read_text())["digest"]
        return known[merged]

    return digest


def test_eight_shards_two_at_a_time_come_to_the_digest_of_one_box(
    tmp_path: Path, cluster: Cluster, digests: Callable[[bool], str]
) -> None:
    folder = tmp_path / 'it\'s 100%j "über" #1 $HOME'
    folder.mkdir()
    run = Run(cluster, folder, slurm={"array_limit": 2, "gres": "gpu:1", "partition": "main"})
    run.gate.touch()
    run.slurm["setup"] = [
        'cd "$SLURM_SUBMIT_DIR"',
        'export TABLE_GATE="$PWD/gate"',
        "echo gpu $CUDA_VISIBLE_DEVICES",
    ]
    run.slurm["stage_to"] = "$SLURM_SUBMIT_DIR/local disk"
    run.write()
    made = run.submit("--shards", "8")
    assert made["array"] == "1-8" and set(made["jobs"]) == {"plan", "shards", "score"}
    until(lambda: run.working("1/8", "2/8"), run.told)
    states = list(run.states(made["jobs"]["shards"]).values())
    assert sorted(states) == ["PENDING"] * 6 + ["RUNNING"] * 2
    found = run.status()
    assert found["code"] == 3 and found["counts"] == {"running": 2, "queued": 6}
    found = run.finished(made)
    assert found["digest"] == digests(False)
    assert found["counts"] == {"done": 8}
    log = (run.out / "slurm" / "logs" / f"orch-one-shards-{made['jobs']['shards']}_1.log").read_text()
    assert "gpu 0" in log or "gpu 1" in log
    assert (
        found["digest"]
        in (run.out / "slurm" / "logs" / f"orch-one-score-{made['jobs']['score']}.log").read_text()
    )
    assert list((folder / "local disk").rglob("model.safetensors"))
    # Once more: nothing is left but to check the plan, and the score.
    made = run.submit()
    assert (set(made["jobs"]), made["array"], made["shards"]) == ({"plan", "score"}, "", 8)
    assert run.finished(made)["digest"] == digests(False)
    # With another run file the plan job refuses, and nothing waits for it.
    made = run.submit("--limit", "5")
    until(lambda: run.gone(*made["jobs"].values()), run.told)
    assert set(made["jobs"]) == {"plan", "score"}
    found = run.status()
    assert (found["code"], found["trouble"]["name"]) == (1, "plan")
    assert "different plan" in found["trouble"]["message"]
    # A plan that is right again makes that one past.
    assert run.finished(run.submit())["digest"] == digests(False)


def test_requeued_terminated_and_cancelled_tasks(run: Run, digests: Callable[[bool], str]) -> None:
    run.slurm["attempts"] = 2
    run.write()
    made = run.submit("--shards", "4")
    array = made["jobs"]["shards"]
    until(lambda: run.working("1/4", "2/4", "3/4", "4/4"), run.told)

    refused = run.call("submit", str(run.folder / "run.yaml"), "--out", str(run.out))
    assert refused.returncode == 2
    assert f"scancel {array} {made['jobs']['score']}" in refused.stderr

    run.cluster.client("scontrol", "requeue", f"{array}_1")
    run.cluster.client("scancel", "--batch", "--signal=TERM", f"{array}_2")
    run.cluster.client("scancel", f"{array}_3")
    until(lambda: run.working("1/4", "2/4", attempt=2), run.told)
    until(lambda: set(run.states(array)) == {1, 2, 4}, run.told)
    said = run.task(3, 4)
    assert (said["state"], said["attempt"]) == ("stopped", 1), run.told()
    assert "cancelled" in said["message"]

    # The second start was the last one that is allowed.
    run.cluster.client("scancel", "--batch", "--signal=TERM", f"{array}_2")
    until(lambda: run.task(2, 4)["state"] == "failed", run.told)
    assert "started 2 times" in run.task(2, 4)["message"]

    run.gate.unlink()
    # The scoring job depends on the cancelled task as well: SLURM removes it.
    until(lambda: run.gone(*made["jobs"].values()), run.told)
    found = run.status()
    assert found["code"] == 1 and found["counts"] == {"done": 2, "stopped": 1, "failed": 1}
    assert found["trouble"]["name"] == "2/4"
    assert [one["attempt"] for one in found["shards"]] == [2, 2, 1, 1]

    made = run.submit()
    assert (made["array"], made["shards"]) == ("2-3", 4)
    assert run.finished(made)["digest"] == digests(False)


def test_a_failing_shard_does_not_let_the_scoring_job_hang(run: Run, digests: Callable[[bool], str]) -> None:
    run.slurm["setup"] = ["export TABLE_SICK=2"]
    run.write()
    made = run.submit("--shards", "3")
    until(lambda: run.gone(*made["jobs"].values()), run.told)
    found = run.status()
    assert found["code"] == 1 and found["counts"] == {"done": 2, "failed": 1}
    assert found["trouble"]["name"] == "2/3" and "no GPU" in found["trouble"]["message"]
    assert any("this node has no GPU" in line for line in found["log_tail"])
    assert found["score"]["condition"] == "stopped"
    # A person reads the same; where there is no squeue, that is said, and the rest is told all the same.
    page = run.call("status", str(run.out), path="/nowhere")
    assert page.returncode == 1
    for words in (
        "2 done, 1 failed",
        "this node has no GPU",
        "squeue is not installed",
        found["trouble"]["log"],
    ):
        assert words in page.stdout

    run.slurm["setup"] = []
    run.write()
    made = run.submit()
    assert made["array"] == "2"
    assert run.finished(made)["digest"] == digests(False)


def test_a_node_set_down_in_the_middle(run: Run, digests: Callable[[bool], str]) -> None:
    run.slurm["cpus_per_task"] = 4
    run.write(merged=True)
    made = run.submit("--shards", "2")
    until(lambda: run.working("1/2", "2/2"), run.told)
    run.cluster.set_node(run.task(1, 2)["node"], "down")
    other = run.task(2, 2)["node"]
    assert other != run.task(1, 2)["node"]
    until(lambda: run.states(made["jobs"]["shards"]) == {1: "PENDING", 2: "RUNNING"}, run.told)
    found = run.finished(made)
    assert found["digest"] == digests(True)
    assert [one["attempt"] for one in found["shards"]] == [2, 1]
    assert run.task(1, 2)["node"] == other


def test_both_daemons_of_a_node_are_killed(run: Run, digests: Callable[[bool], str]) -> None:
    run.slurm["cpus_per_task"] = 4
    run.write()
    made = run.submit("--shards", "2")
    until(lambda: run.working("1/2", "2/2"), run.told)
    dead = run.task(1, 2)["node"]
    run.cluster.kill_daemons(dead)
    for process in run.cluster.jobs_on(dead):
        process.kill()
    # SLURM finds out by itself, after some time.
    until(lambda: run.cluster.node_state(dead).startswith("down"), run.told)
    found = run.finished(made)
    assert found["digest"] == digests(False)
    assert [one["attempt"] for one in found["shards"]] == [2, 1]


def test_split_brain_two_copies_of_one_shard_at_once(run: Run, digests: Callable[[bool], str]) -> None:
    run.write()
    made = run.submit("--shards", "1")
    until(lambda: run.working("1/1"), run.told)
    node = run.task(1, 1)["node"]
    orphans = run.cluster.jobs_on(node)
    run.cluster.kill_slurmd(node)
    run.cluster.set_node(node, "down")
    until(lambda: run.working("1/1", attempt=2), run.told)
    assert orphans and all(one.is_running() for one in orphans)
    found = run.finished(made)
    until(lambda: not any(one.is_running() for one in orphans), run.told)
    assert found["digest"] == digests(False)
    assert run.task(1, 1)["attempt"] == 2, "the orphan must not overwrite what the later start said"
    rows = [
        json.loads(line)
        for file in (run.folder / "runs" / "store").rglob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    keys = [row["key"] for row in rows]
    assert len(keys) > len(set(keys)) == QUESTIONS, "both copies wrote rows"
    again = run.call("score", str(run.out))
    assert again.returncode == 0 and "VIOLATION" not in again.stdout


def test_preemption_by_a_higher_partition(run: Run, digests: Callable[[bool], str]) -> None:
    run.slurm |= {"partition": "main", "cpus_per_task": 4}
    run.write()
    made = run.submit("--shards", "2")
    until(lambda: run.working("1/2", "2/2"), run.told)
    urgent = ["sbatch", "--parsable", "-p", "urgent", "-c4", "--mem=100M", "-t1", "-o", "/dev/null"]
    job = run.cluster.client(*urgent, "--wrap", f"while [ -e '{run.gate}' ]; do sleep 0.2; done")
    until(lambda: run.cluster.client("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING", run.told)
    states = run.states(made["jobs"]["shards"])
    assert sorted(states.values()) == ["PENDING", "RUNNING"]
    found = run.finished(made)
    assert found["digest"] == digests(False)
    assert sorted(one["attempt"] for one in found["shards"]) == [1, 2]


def test_the_time_limit_is_near_so_a_task_puts_itself_back(run: Run, digests: Callable[[bool], str]) -> None:
    run.slurm |= {"time": "1", "stop_before_s": 30}
    run.write()
    made = run.submit("--shards", "1")
    until(lambda: run.task(1, 1).get("attempt") == 2, run.told)
    log = (run.out / "slurm" / "logs" / f"orch-one-shards-{made['jobs']['shards']}_1.log").read_text()
    assert "stopped by SIGUSR1: the time limit is near" in log
    found = run.finished(made)
    assert found["digest"] == digests(False)
    assert [one["attempt"] for one in found["shards"]] == [2]


def test_nobody_needs_sacct(run: Run) -> None:
    """There is no database behind the cluster of all these tests."""
    answer = subprocess.run(
        ["sacct", "-n"], env=run.cluster.env, capture_output=True, text=True, timeout=600, check=False
    )
    assert answer.returncode != 0 and "disabled" in answer.stderr


def test_real_engines_in_two_shards(tmp_path: Path, cluster: Cluster) -> None:
    run = Run(cluster, tmp_path / "real", REAL, {"mem": "6G"})
    run.write()
    values = yaml.safe_load((run.folder / "run.yaml").read_text())
    values["benchmark"]["limit"] = 4
    (run.folder / "run.yaml").write_text(yaml.safe_dump(values))
    made = run.submit("--shards", "2")
    box = run.call("run", str(run.folder / "run.yaml"), "--out", str(tmp_path / "box" / "one"), "--quiet")
    assert box.returncode == 0, box.stderr
    found = run.finished(made)
    assert found["digest"] == json.loads((tmp_path / "box" / "one" / "metrics.json").read_text())["digest"]
