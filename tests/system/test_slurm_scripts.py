"""The scripts for sbatch, the clients of SLURM, and what is submitted; no SLURM is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from running import Cli, write_run_file

from orch_local.config.run_files import load_run
from orch_local.config.slurm_options import SlurmConfig
from orch_local.errors import ConfigError, InputError
from orch_local.slurm import queue, scripts, submitting
from orch_local.slurm.jobs import Submission, note, numbers, ranges, submissions
from orch_local.slurm.queue import JobInfo, QueuedJob, SlurmError
from orch_local.slurm.scripts import Scripts, job_name
from orch_local.store.store import RunFolder

FULL: dict[str, Any] = {
    "account": "lab",
    "partition": "gpu",
    "qos": "normal",
    "constraint": "a100&ib",
    "gres": "gpu:2",
    "time": "4:00:00",
    "cpus_per_task": 8,
    "mem": "64G",
    "array_limit": 4,
    "score_partition": "cpu",
    "score_mem": "8G",
    "setup": ("module load cuda", "source /opt/env.sh"),
    "extra": ("--exclusive", "--exclude=n7"),
    "stop_before_s": 300,
    "attempts": 5,
    "stage_to": "$TMPDIR",
}
SHARDS = """\
#!/bin/bash
# One shard of the questions: analyses and merges. There are 8 shards.
# Submit it with --array=..., the shards that are to run; one whose rows are there does nothing.
# A task stops 300 s or more before the time limit, and is queued again.
# Written by `orch-local submit`, which writes it anew each time.
#SBATCH --job-name=orch-mine-shards
#SBATCH --output="/data/mine/slurm/logs/%x-%A_%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --account=lab
#SBATCH --partition=gpu
#SBATCH --qos=normal
#SBATCH --time=4:00:00
#SBATCH --gres=gpu:2
#SBATCH --constraint=a100&ib
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --exclusive
#SBATCH --exclude=n7
#SBATCH --signal=B:USR1@300

set -e

# slurm.setup of the run file:
module load cuda
source /opt/env.sh

# exec: what SLURM signals to the script is then told to the program.
exec /env/bin/python -m orch_local shard /data/mine "$SLURM_ARRAY_TASK_ID/8" --attempts 5 --stage-to '$TMPDIR'
"""
SCORE = """\
#!/bin/bash
# Decides, scores and reports from the stored rows; loads no model.
# Written by `orch-local submit`, which writes it anew each time.
#SBATCH --job-name=orch-mine-score
#SBATCH --output="/data/mine/slurm/logs/%x-%j.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks=1

set -e

# exec: what SLURM signals to the script is then told to the program.
exec /env/bin/python -m orch_local score /data/mine
"""
ODD = [
    "two words",
    "it's",
    'a "b"',
    "100%j",
    "%%",
    "$HOME",
    "`id`",
    "a;b&c|d",
    "ünï",
    "#1",
    "(x)",
    "a*?[b]",
    "~",
]


def made(root: str = "/data/mine", slurm: dict[str, Any] | None = None, **more: Any) -> Scripts:
    """Scripts of a run in eight shards."""
    return Scripts(RunFolder(Path(root)), Path("/data/store"), SlurmConfig(**(slurm or {})), 8, **more)


@pytest.fixture
def _fixed_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "COMMAND", ("/env/bin/python", "-m", "orch_local"))


@pytest.mark.usefixtures("_fixed_command")
def test_a_script_with_all_settings() -> None:
    assert made(slurm=FULL).texts()["shards"] == SHARDS


@pytest.mark.usefixtures("_fixed_command")
def test_a_script_with_no_settings() -> None:
    assert made().texts()["score"] == SCORE


@pytest.mark.usefixtures("_fixed_command")
def test_the_plan_is_made_on_a_node_like_those_of_the_shards_and_the_score_needs_no_gpu() -> None:
    texts = made(slurm=FULL, accept_new_environment=True).texts()
    options = {
        step: {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")}
        for step, text in texts.items()
    }
    nodes = {"--gres=gpu:2", "--constraint=a100&ib", "--cpus-per-task=8", "--mem=64G", "--exclude=n7"}
    assert nodes | {"--partition=gpu"} <= options["plan"] & options["shards"]
    assert not nodes & options["score"]
    assert {"--partition=cpu", "--mem=8G", "--account=lab"} <= options["score"]
    assert "--mem=8G" not in options["plan"] | options["shards"]
    assert "--kill-on-invalid-dep=yes" not in options["plan"]
    assert texts["plan"].splitlines()[-1] == (
        "exec /env/bin/python -m orch_local prepare /data/mine/slurm/run.yaml --out /data/mine "
        "--store /data/store --accept-new-environment"
    )


@pytest.mark.usefixtures("_fixed_command")
def test_what_failed_is_made_again_by_the_shards() -> None:
    texts = made(retry_failed=True).texts()
    assert texts["shards"].splitlines()[-1].endswith('/8" --attempts 10 --retry-failed')
    assert "--retry-failed" not in texts["plan"] + texts["score"]


@pytest.mark.parametrize("shards", [100_001, 99_999_999_999])
def test_more_shards_than_any_cluster_takes_are_refused(cli: Cli, run_file: Path, shards: int) -> None:
    result = cli("submit", "run.yaml", "--shards", shards, "--dry-run")
    assert result.code == 2 and "more than 100,000" in result.err and "often 1001" in result.err


@pytest.mark.parametrize("name", ODD)
def test_odd_names_reach_the_program_as_they_are(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    monkeypatch.setattr(scripts, "COMMAND", (sys.executable, "-c", show))
    root = f"{tmp_path}/{name}"
    given = made(root, {"stage_to": f"$TMPDIR/{name}", "setup": ("export A=1",)})
    expected = {
        "plan": ["prepare", f"{root}/slurm/run.yaml", "--out", root, "--store", "/data/store"],
        "shards": ["shard", root, "3/8", "--attempts", "10", "--stage-to", f"$TMPDIR/{name}"],
        "score": ["score", root],
    }
    for step, text in given.texts().items():
        file = tmp_path / "script"
        file.write_text(text)
        env = {"SLURM_ARRAY_TASK_ID": "3", "PATH": os.environ["PATH"]}
        done = subprocess.run(["bash", str(file)], env=env, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == expected[step]
        # SLURM fills in what follows a % in the name of the log.
        (output,) = (line for line in text.splitlines() if "--output=" in line)
        assert output.replace("%%", "").count("%") == (3 if step == "shards" else 2)


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\x1bb"])
def test_paths_that_slurm_cannot_write_to_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="backslash or a control character"):
        made(f"/data/{name}")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("mine", "orch-mine-score"),
        ("a b%j/..", "orch-run-score"),
        ("ü \n#", "orch-run-score"),
        ("x" * 99, "orch-" + "x" * 60 + "-score"),
    ],
)
def test_job_names_are_harmless(folder: str, name: str) -> None:
    assert job_name(RunFolder(Path("/data") / folder), "score") == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": "a b"},
        {"account": "a\n#SBATCH --uid=0"},
        {"partition": 'x"'},
        {"partition": ""},
        {"gres": "gpu:1#"},
        {"constraint": "a\\"},
        {"time": "1 hour"},
        {"time": "1:0"},
        {"time": "1:60:00"},
        {"time": "1:00:60"},
        {"time": "30:99"},
        {"time": "1-2:75"},
        {"time": "٣٠"},
        {"time": 90},
        {"mem": 64},
        {"score_mem": "8 G"},
        {"time": "2", "stop_before_s": 120},
        {"time": "0-0:01", "stop_before_s": 60},
        {"mem": "64 GB"},
        {"cpus_per_task": 0},
        {"array_limit": 0},
        {"attempts": 0},
        {"stop_before_s": 0},
        {"setup": ("a\nb",)},
        {"setup": ("a\rb",)},
        {"extra": ("exclusive",)},
        {"extra": ("--comment=a\n--uid=0",)},
        {"extra": ("--array=1-3",)},
        {"extra": ("-o", "x")},
        {"extra": ("--output=x",)},
        {"extra": ("--exclusive --output=/tmp/x",)},
        {"extra": ("--exclusive -o /tmp/x",)},
        {"extra": ("--comment='a",)},
        {"stage_to": "a\nb"},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SlurmConfig(**wrong)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("time: 90", '`slurm.time`: put it in quotes, as "90"'),
        ("mem: 64", '`slurm.mem`: put it in quotes, as "64"'),
        ("account: 12", '`slurm.account`: put it in quotes, as "12"'),
        ("time: 4:00:00", "4:00:00 in plain decimal digits, or in quotes, if it is a text"),
        ("time: abc", 'write minutes ("90"), hours ("4:00:00")'),
        ("mem: 64GB", 'write a whole number and K, M, G or T, e.g. "64G", not "64GB"'),
        ('partition: "a b"', 'write one word without blanks, quotes, "#" and backslashes, e.g. gpu'),
        ('setup: ["a\\nb"]', "write one line of at most 4,000 characters for each entry"),
        ('extra: ["--exclusive --output=/x"]', "write one option for each entry: --output=/x begins"),
    ],
)
def test_what_is_wrong_with_a_setting_is_told_in_words(
    tmp_path: Path, run_values: dict[str, Any], lines: str, message: str
) -> None:
    file = write_run_file(tmp_path, run_values)
    file.write_text(f"{file.read_text()}\nslurm:\n  {lines}\n")
    with pytest.raises(ConfigError) as caught:
        load_run(file)
    assert message in str(caught.value) and "pattern" not in str(caught.value)


def test_further_options_may_have_values_with_blanks() -> None:
    extra = ("-p gpu", "--comment='a -b'", "--nice -5")
    assert SlurmConfig(extra=extra).extra == extra


@pytest.mark.parametrize(
    ("text", "setup"),
    [
        ("slurm:", ()),
        ("slurm:\n  setup: module load cuda", ("module load cuda",)),
        (
            "slurm:\n  setup: |\n    module load cuda\n\n    if a; then\n      b\n    fi\n",
            ("module load cuda", "if a; then", "  b", "fi"),
        ),
    ],
)
def test_a_block_may_be_empty_and_setup_may_be_one_text(
    tmp_path: Path, run_values: dict[str, Any], text: str, setup: tuple[str, ...]
) -> None:
    file = write_run_file(tmp_path, run_values)
    file.write_text(f"{file.read_text()}\n{text}\n")
    assert load_run(file).slurm == SlurmConfig(setup=setup)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("4:00:00", 14400),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("2-0:00:10", 172810),
    ],
)
def test_times_are_read_as_slurm_reads_them(time: str, seconds: int) -> None:
    assert SlurmConfig(time=time).time_s == seconds


@pytest.mark.parametrize(
    ("shards", "array"), [([], ""), ([3], "3"), ([7, 2, 5, 6], "2,5-7"), ([1, 2, 3], "1-3")]
)
def test_ranges(shards: list[int], array: str) -> None:
    assert ranges(shards) == array
    assert numbers(array) == frozenset(shards)


def test_the_snapshot_is_the_run_file_with_its_overrides(
    tmp_path: Path, run_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "known.yaml").write_text(
        yaml.safe_dump({"name": "known", "path": run_values["merge"]["model"]})
    )
    monkeypatch.setenv("ORCH_MODEL_CONFIGS", str(configs))
    run_values["agents"][0]["model"] = "known"
    run_values["slurm"] = {**FULL, "setup": ["echo 'ü: #'"], "extra": [], "time": "0:30:00"}
    config = load_run(write_run_file(tmp_path, run_values), {"benchmark.limit": 3, "engine.fast": True})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "snapshot.yaml").write_text(submitting.snapshot(config), encoding="utf-8")
    monkeypatch.delenv("ORCH_MODEL_CONFIGS")
    read = load_run(elsewhere / "snapshot.yaml")
    assert read.agents[0].model == str(configs / "known.yaml")
    first = config.agents[0].model_copy(update={"model": str(configs / "known.yaml")})
    assert read == config.model_copy(update={"agents": (first, *config.agents[1:])})


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put commands of given names, which are scripts, in the place of those of SLURM."""
    folder = tmp_path / "clients"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(**commands: str) -> Path:
        for name, text in commands.items():
            (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\n{text}\n')
            (folder / name).chmod(0o755)
        return folder / "calls"

    return install


def test_what_the_clients_say_is_read(clients: Callable[..., Path]) -> None:
    calls = clients(
        sbatch="echo '123;cluster'",
        squeue="echo '12|3|RUNNING|n1|orch-a-shards'; echo '13|N/A|PENDING||a|b'; echo",
        scontrol="echo 'JobId=9 JobState=COMPLETING Reason=TimeLimit Requeue=1 Restarts=2 ExitCode=0:0'",
        scancel="",
    )
    assert queue.submit(Path("/x/y.sbatch"), ["--array=1"]) == "123"
    assert queue.queued(["13", "12"]) == [
        QueuedJob("12", 3, "RUNNING", "n1", "orch-a-shards"),
        QueuedJob("13", None, "PENDING", "", "a|b"),
    ]
    assert queue.show("9_1") == JobInfo("COMPLETING", "TimeLimit", 2)
    queue.requeue("9_1")
    queue.cancel(["1", "2"])
    assert calls.read_text().splitlines() == [
        "sbatch --parsable --array=1 /x/y.sbatch",
        "squeue -h -r -o %F|%K|%T|%N|%j -j 12,13",
        "scontrol show job -o 9_1",
        "scontrol requeue 9_1",
        "scancel 1 2",
    ]


def test_jobs_that_slurm_has_forgotten_are_not_in_the_queue(clients: Callable[..., Path]) -> None:
    clients(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert queue.queued(["12"]) == []
    assert queue.queued([]) == []


@pytest.mark.parametrize(
    ("sbatch", "message", "hint"),
    [
        (
            "echo 'sbatch: error: Invalid job array specification' >&2; exit 1",
            "Invalid job array",
            "--shards",
        ),
        (
            "echo 'sbatch: error: invalid partition: gpuu' >&2; exit 1",
            "invalid partition: gpuu",
            "`slurm` block",
        ),
        (
            "printf 'sbatch: error: one\\n\\nsbatch: error:  two\\n' >&2; exit 1",
            "sbatch refused: sbatch: error: one; sbatch: error: two",
            "",
        ),
        ("echo hello", "answered 'hello'", ""),
    ],
)
def test_refusals_are_told_in_the_words_of_slurm(
    clients: Callable[..., Path], sbatch: str, message: str, hint: str
) -> None:
    clients(sbatch=sbatch)
    with pytest.raises(SlurmError) as caught:
        queue.submit(Path("x"), [])
    assert message in caught.value.message and hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_where_slurm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError) as caught:
        queue.submit(Path("x"), [])
    assert caught.value.message == "sbatch is not installed here" and "login node" in caught.value.hint


def test_a_client_that_hangs_is_given_up(
    clients: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients(squeue="exec sleep 60")
    monkeypatch.setattr(queue, "TIMEOUT_S", 0.2)
    with pytest.raises(SlurmError, match="squeue did not answer"):
        queue.queued(["1"])


COUNTING = "n=$(cat $0.n 2>/dev/null || echo 10); n=$((n+1)); echo $n > $0.n; echo $n"


def submit_with(
    cli: Cli, clients: Callable[..., Path], sbatch: str, *options: object
) -> tuple[Any, list[str]]:
    """Submit the run file of the tests with this sbatch; what came of it, and the calls."""
    calls = clients(sbatch=sbatch, squeue="", scancel="")
    result = cli("submit", "run.yaml", "--out", "runs/mine", "--shards", 3, *options)
    return result, calls.read_text().splitlines() if calls.exists() else []


def test_the_chain_is_submitted(
    cli: Cli, run_file: Path, tmp_path: Path, clients: Callable[..., Path]
) -> None:
    result, calls = submit_with(cli, clients, COUNTING, "--limit", 2)
    assert result.code == 0, result.err
    folder = f"{tmp_path}/runs/mine/slurm"
    assert calls == [
        f"sbatch --parsable {folder}/plan.sbatch",
        f"sbatch --parsable --array=1-3 --dependency=afterok:11 {folder}/shards.sbatch",
        f"sbatch --parsable --dependency=afterok:12 {folder}/score.sbatch",
    ]
    assert "submitted: shards 1-3 of 3 (jobs: plan 11, shards 12, score 13)" in result.out
    assert "follow it: orch-local status runs/mine\n" in result.out
    assert yaml.safe_load(Path(f"{folder}/run.yaml").read_text())["benchmark"]["limit"] == 2
    (noted,) = submissions(RunFolder(tmp_path / "runs" / "mine"))
    assert (noted.shards, noted.array) == (3, "1-3")
    assert noted.jobs == {"plan": "11", "shards": "12", "score": "13"}
    assert Path(f"{folder}/logs").is_dir()


def test_a_run_folder_with_a_blank_in_it_is_named_so_that_it_can_be_pasted(
    cli: Cli, run_file: Path, clients: Callable[..., Path]
) -> None:
    clients(sbatch=COUNTING, squeue="", scancel="")
    result = cli("submit", "run.yaml", "--out", "runs/my run")
    assert result.code == 0 and "follow it: orch-local status 'runs/my run'\n" in result.out


def test_where_a_job_is_refused_none_is_left_in_the_queue(
    cli: Cli, run_file: Path, tmp_path: Path, clients: Callable[..., Path]
) -> None:
    refusing = f'case "$*" in *score*) echo no >&2; exit 1;; esac; {COUNTING}'
    result, calls = submit_with(cli, clients, refusing)
    assert result.code == 2 and "sbatch refused: no" in result.err
    assert calls[-1] == "scancel 11 12"
    assert submissions(RunFolder(tmp_path / "runs" / "mine")) == []


def test_a_run_whose_jobs_are_in_the_queue_is_not_submitted_again(
    cli: Cli, run_file: Path, tmp_path: Path, clients: Callable[..., Path]
) -> None:
    folder = RunFolder(tmp_path / "runs" / "mine")
    note(folder, Submission(3, "1-3", {"shards": "12", "score": "13"}, "2026"))
    clients(
        sbatch="exit 1", squeue="echo '12|1|RUNNING|n1|orch-mine-shards'; echo '13|N/A|RUNNING|n1|anothers'"
    )
    result = cli("submit", "run.yaml", "--out", "runs/mine")
    assert result.code == 2
    assert "jobs of this run are in the queue: 12\n" in result.err and "scancel 12\n" in result.err


@pytest.mark.parametrize(
    ("left", "array", "steps"),
    [
        ([0, 4, 0], "2", ["plan", "shards", "score"]),
        ([1, 4, 1], "1-3", ["plan", "shards", "score"]),
        ([0, 0, 0], "", ["plan", "score"]),
    ],
)
def test_only_shards_with_rows_left_are_submitted(
    tmp_path: Path,
    run_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: Sequence[int],
    array: str,
    steps: list[str],
) -> None:
    folder = RunFolder(tmp_path / "mine")
    folder.root.mkdir()
    folder.plan.touch()
    monkeypatch.setattr(submitting, "remaining_by_shard", lambda *_: left)
    composed = submitting.compose(
        Scripts(folder, tmp_path, SlurmConfig(array_limit=2), 3), load_run(run_file)
    )
    assert [step for step, _ in composed.chain] == steps
    options = dict(composed.chain).get("shards", ("",))
    assert options[0] == (f"--array={array}%2" if array else "")
    assert dict(composed.chain)["score"] == (f"--dependency=afterok:{{{steps[-2]}}}",)


@pytest.mark.parametrize("option", ["retry_failed", "accept_new_environment"])
def test_where_rows_that_are_there_are_made_anew_all_shards_are_submitted(
    cli: Cli, tmp_path: Path, run_file: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    folder = RunFolder(tmp_path / "mine")
    folder.root.mkdir()
    folder.plan.touch()
    monkeypatch.setattr(submitting, "remaining_by_shard", lambda *_: [0, 0, 0])
    given: dict[str, Any] = {option: True}
    composed = submitting.compose(Scripts(folder, tmp_path, SlurmConfig(), 3, **given), load_run(run_file))
    assert composed.missing == (1, 2, 3)
    shown = cli(
        "submit", "run.yaml", "--out", "mine", "--shards", 3, f"--{option.replace('_', '-')}", "--dry-run"
    )
    assert shown.code == 0 and "--array=1-3" in shown.out
    assert cli("submit", "run.yaml", "--out", "mine", "--shards", 3, "--dry-run").out.count("--array=1") == 0


def test_dry_run_prints_everything_writes_nothing_and_needs_no_slurm(
    cli: Cli, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    before = sorted(tmp_path.rglob("*"))
    result = cli("submit", "run.yaml", "--shards", 3, "--dry-run")
    assert result.code == 0, result.err
    assert sorted(tmp_path.rglob("*")) == before
    for line in made_lines(tmp_path / "runs" / "run"):
        assert line in result.out.splitlines()


def made_lines(root: Path) -> list[str]:
    """Some lines of what a dry run prints."""
    return [
        "#SBATCH --job-name=orch-run-shards",
        f"exec {sys.executable} -m orch_local score {root}",
        f"sbatch --parsable {root}/slurm/plan.sbatch",
        f"sbatch --parsable --array=1-3 --dependency=afterok:PLAN {root}/slurm/shards.sbatch",
        f"sbatch --parsable --dependency=afterok:SHARDS {root}/slurm/score.sbatch",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["benchmark"].update(path="none.jsonl"), "none.jsonl: no such file"),
        (lambda values: values["agents"][0].update(model="./none"), "none"),
        (lambda values: values["agents"][0].update(prompt="none.txt"), "none.txt"),
        (lambda values: values.update(slurm={"account": "a b"}), "slurm.account"),
        (
            lambda values: values.update(router={"mode": "calibrated", "k": 1, "state": "none.json"}),
            "none.json: no such file\nhint: make one with `orch-local calibrate",
        ),
        (lambda values: values.update(router={"mode": "online", "k": 1}), "cannot be divided into shards"),
    ],
)
def test_what_can_be_told_on_a_login_node_is_told_there(
    cli: Cli, tmp_path: Path, run_values: dict[str, Any], change: Callable[[Any], None], message: str
) -> None:
    change(run_values)
    write_run_file(tmp_path, run_values)
    result = cli("submit", "run.yaml", "--shards", "2", "--dry-run")
    assert result.code == 2 and message in result.err and "Traceback" not in result.err


def test_another_slurm_block_is_no_other_plan(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    for slurm in ({}, {"partition": "other", "stage_to": "$TMPDIR"}):
        run_values["slurm"] = slurm
        write_run_file(tmp_path, run_values)
        result = cli("prepare", "run.yaml", "--out", "runs/mine", "--store", "runs/store")
        assert result.code == 0, result.err
        assert "planned: 12 questions, 3 agents" in result.out


def test_a_finished_run_is_submitted_with_a_check_of_its_plan(
    cli: Cli, tmp_path: Path, run_file: Path, clients: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("prepare", "run.yaml", "--out", "runs/mine", "--store", "runs/store").code == 0
    monkeypatch.setattr(submitting, "remaining_by_shard", lambda _, shards: [0] * shards)
    result, calls = submit_with(cli, clients, COUNTING)
    folder = f"{tmp_path}/runs/mine/slurm"
    assert calls == [
        f"sbatch --parsable {folder}/plan.sbatch",
        f"sbatch --parsable --dependency=afterok:11 {folder}/score.sbatch",
    ]
    assert "only the check of the plan and the score, no shard has rows left (jobs: plan 11" in result.out


def test_a_list_of_submissions_that_is_none_is_told(tmp_path: Path, cli: Cli) -> None:
    file = RunFolder(tmp_path / "mine").slurm_jobs
    file.parent.mkdir(parents=True)
    file.write_text('{"submissions": [{"shards": 3}]}')
    result = cli("status", "mine")
    assert result.code == 2 and "is not a list of submissions" in result.err
