"""The sbatch scripts of a run: plan, array of shards, score. Text only; nothing is written or submitted."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orch_local.config.slurm_options import SlurmConfig
from orch_local.errors import InputError
from orch_local.store.store import RunFolder

COMMAND = (sys.executable, "-m", "orch_local")
"""The command line as the jobs call it: that of the environment that submits."""

MOST_SHARDS = 100_000

STEPS = ("plan", "shards", "score")
"""The jobs of a run, each of which waits for the one before it."""


@dataclass(frozen=True, slots=True)
class Scripts:
    """What the scripts of one run are made from."""

    folder: RunFolder
    store: Path
    slurm: SlurmConfig
    shards: int
    accept_new_environment: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.shards > MOST_SHARDS:
            raise InputError(
                f"{self.shards:,} shards are more than {MOST_SHARDS:,}",
                hint="a cluster takes arrays up to its MaxArraySize, often 1001: see `scontrol show config`",
            )
        # A backslash in --output switches off what SLURM fills in there, and no escape for one exists.
        for path in (self.folder.root, self.store):
            if not re.fullmatch(r"[^\x00-\x1f\x7f\\]+", str(path)):
                raise InputError(
                    "SLURM cannot write to a path with a backslash or a control character",
                    where=repr(str(path)),
                    hint="choose another --out or --store",
                )

    def texts(self) -> dict[str, str]:
        """The text of each script by the name of its step."""
        return {"plan": self._plan(), "shards": self._shards(), "score": self._score()}

    def _plan(self) -> str:
        arguments: list[str | Path] = [
            "prepare",
            self.folder.slurm_run_file,
            "--out",
            self.folder.root,
            "--store",
            self.store,
        ]
        if self.accept_new_environment:
            arguments.append("--accept-new-environment")
        about = (
            "Makes the plan, on a node like those of the shards: libraries, CPU and GPU are part of it.",
            "Where a plan is there already, checks that nothing of it has changed.",
        )
        head = [*self._head("plan", "%j"), *self._limits(), *self._node()]
        return self._script(about, head, _line(arguments))

    def _shards(self) -> str:
        wait = self.slurm.stop_before_s
        head = [
            *self._head("shards", "%A_%a"),
            *self._limits(),
            *self._node(),
            f"--signal=B:USR1@{wait}",
        ]
        about = (
            f"One shard of the questions: analyses and merges. There are {self.shards} shards.",
            "Submit it with --array=..., the shards that are to run; one whose rows are there does nothing.",
            f"A task stops {wait} s or more before the time limit, and is queued again.",
        )
        # Variables in `stage_to` stay as they are: they have their value on the node, and are replaced there.
        staged = ["--stage-to", self.slurm.stage_to] if self.slurm.stage_to else []
        shard = f'"$SLURM_ARRAY_TASK_ID/{self.shards}"'
        again = ["--retry-failed"] if self.retry_failed else []
        options = _line(["--attempts", str(self.slurm.attempts), *again, *staged])
        return self._script(about, head, f"{_line(['shard', self.folder.root])} {shard} {options}")

    def _score(self) -> str:
        partition = self.slurm.score_partition or self.slurm.partition
        mem = [f"--mem={self.slurm.score_mem}"] if self.slurm.score_mem else []
        head = [*self._head("score", "%j"), *self._limits(partition), *mem]
        about = ("Decides, scores and reports from the stored rows; loads no model.",)
        return self._script(about, head, _line(["score", self.folder.root]))

    def _head(self, step: str, number: str) -> list[str]:
        name = job_name(self.folder, step)
        log = self.folder.slurm_log("%x", number)
        # In a file name SLURM replaces %j and the like; %% is a plain %.
        folder = str(log.parent).replace("%", "%%").replace('"', '\\"')
        waits = ["--kill-on-invalid-dep=yes"] if step != "plan" else []
        return [
            f"--job-name={name}",
            f'--output="{folder}/{log.name}"',
            "--open-mode=append",
            "--requeue",
            *waits,
            "--nodes=1",
            "--ntasks=1",
        ]

    def _limits(self, partition: str | None = None) -> list[str]:
        slurm = self.slurm
        options = {
            "account": slurm.account,
            "partition": partition or slurm.partition,
            "qos": slurm.qos,
            "time": slurm.time,
        }
        return [f"--{name}={value}" for name, value in options.items() if value is not None]

    def _node(self) -> list[str]:
        """What the shards need of a node, and so the plan that is made for them."""
        slurm = self.slurm
        options = {
            "gres": slurm.gres,
            "constraint": slurm.constraint,
            "cpus-per-task": slurm.cpus_per_task,
            "mem": slurm.mem,
        }
        return [f"--{name}={value}" for name, value in options.items() if value is not None] + [*slurm.extra]

    def _script(self, about: Sequence[str], options: Sequence[str], command: str) -> str:
        setup = ["", "# slurm.setup of the run file:", *self.slurm.setup] if self.slurm.setup else []
        lines = [
            "#!/bin/bash",
            *(f"# {line}" for line in about),
            "# Written by `orch-local submit`, which writes it anew each time.",
            *(f"#SBATCH {option}" for option in options),
            "",
            "set -e",
            *setup,
            "",
            "# exec: what SLURM signals to the script is then told to the program.",
            f"exec {shlex.join(COMMAND)} {command}",
        ]
        return "\n".join(lines) + "\n"


def job_name(folder: RunFolder, step: str) -> str:
    """Name of a job: that of the run folder, with nothing that SLURM or a file name could take amiss."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.root.name).strip("-.")[:60]
    return f"orch-{safe or 'run'}-{step}"


def _line(arguments: Sequence[str | Path]) -> str:
    return shlex.join(map(str, arguments))
