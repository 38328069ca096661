"""What a task does when it is signalled, and how far a run is said to be; no SLURM is needed."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from running import Cli, write_run_file

from orch_local.errors import EngineError, StoreError
from orch_local.run.interrupts import Stopped
from orch_local.slurm import submitting, task
from orch_local.slurm.jobs import Submission, note
from orch_local.slurm.queue import JobInfo, QueuedJob, SlurmError
from orch_local.slurm.status import Facts, RunStatus, status, tail
from orch_local.slurm.task import SlurmJob, State, TaskError, TaskRecord, ending, run_shard
from orch_local.slurm.terminal import print_status
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder, write_json

JOBS = {"plan": "11", "shards": "12", "score": "13"}
SHARD = Shard(2, 3)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder."""
    return RunFolder(tmp_path / "mine")


# What a task does: docs/slurm.md has the measurements.


@pytest.mark.parametrize(
    ("info", "restarts", "again"),
    [
        (JobInfo("RUNNING", "None", 0), 0, True),  # the time limit is near; scancel --signal=TERM --batch
        (JobInfo("SIGNALING", "None", 0), 0, True),  # the same, a moment earlier
        (JobInfo("RUNNING", "None", 3), 3, True),
        (JobInfo("COMPLETING", "TimeLimit", 0), 0, True),
        (JobInfo("COMPLETING", "TimeLimit", 2), 2, True),
        (JobInfo("COMPLETING", "None", 0), 0, False),  # scancel
        (JobInfo("COMPLETING", "None", 2), 2, False),
        (JobInfo("COMPLETING", "None", 1), 0, False),  # scontrol requeue, preemption
        (JobInfo("COMPLETING", "TimeLimit", 1), 0, False),
        (JobInfo("PENDING", "BeginTime", 2), 1, False),  # the node was set down
        (JobInfo("RUNNING", "None", 1), 0, False),  # this is an orphan, and its successor runs
        (None, 0, False),
    ],
)
def test_who_is_put_back_into_the_queue(info: JobInfo | None, restarts: int, again: bool) -> None:
    assert ending(info, restarts)[1] is again


class Slurm:
    """Stands for the cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, info: JobInfo | None) -> None:
        self.info = info
        self.requeued: list[str] = []
        self.refuses = False
        monkeypatch.setattr(task, "show", self._show)
        monkeypatch.setattr(task, "requeue", self._requeue)

    def _show(self, number: str) -> JobInfo:
        if self.info is None:
            raise SlurmError("scontrol did not answer")
        return self.info

    def _requeue(self, number: str) -> None:
        # SLURM sends SIGTERM while the task is still at it.
        signal.raise_signal(signal.SIGTERM)
        if self.refuses:
            raise SlurmError("scontrol refused: no")
        self.requeued.append(number)


def job(folder: RunFolder, **env: str) -> SlurmJob:
    """The job that runs shard 2 of 3."""
    base = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "77"}
    more = {"SLURM_JOB_NAME": "orch-mine-shards", "SLURMD_NODENAME": "n1"}
    return SlurmJob.here(folder, SHARD.name, {**base, **more, **env})


def stopped_by(signum: int) -> Callable[[], None]:
    """Work that is stopped by a signal."""

    def work() -> None:
        raise Stopped(signum)

    return work


def test_a_task_writes_down_what_it_does(folder: RunFolder) -> None:
    seen: list[TaskRecord | None] = []
    run_shard(job(folder), 3, lambda: seen.append(TaskRecord.read(folder, SHARD.name)))
    log = str(folder.slurm_log("orch-mine-shards", "12_2"))
    running = TaskRecord(State.RUNNING, 1, "12_2", "n1", log)
    assert seen == [running]
    assert TaskRecord.read(folder, SHARD.name) == replace(running, state=State.DONE)
    assert log.endswith("/slurm/logs/orch-mine-shards-12_2.log")


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_a_task_that_is_stopped_puts_itself_back(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    slurm = Slurm(monkeypatch, JobInfo("RUNNING", "None", 1))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        run_shard(job(folder, SLURM_RESTART_COUNT="1"), 3, stopped_by(signum))
    assert slurm.requeued == ["12_2"]
    record = TaskRecord.read(folder, SHARD.name)
    assert record is not None and (record.state, record.attempt) == (State.STOPPED, 2)
    assert record.message.startswith(f"stopped by {signum.name}") and "put back" in record.message
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("info", [JobInfo("COMPLETING", "None", 0), JobInfo("COMPLETING", "None", 1), None])
def test_a_task_that_was_cancelled_or_put_back_by_slurm_does_nothing_more(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, info: JobInfo | None
) -> None:
    slurm = Slurm(monkeypatch, info)
    with pytest.raises(Stopped):
        run_shard(job(folder), 3, stopped_by(signal.SIGTERM))
    record = TaskRecord.read(folder, SHARD.name)
    assert slurm.requeued == [] and record is not None and record.state is State.STOPPED


def test_at_the_ceiling_a_stopped_task_fails_and_says_so(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = Slurm(monkeypatch, JobInfo("RUNNING", "None", 2))
    with pytest.raises(TaskError, match=r"started 3 times .* slurm\.attempts"):
        run_shard(job(folder, SLURM_RESTART_COUNT="2"), 3, stopped_by(signal.SIGUSR1))
    record = TaskRecord.read(folder, SHARD.name)
    assert slurm.requeued == [] and record is not None and record.state is State.FAILED
    assert "submit again" in record.hint


def test_requeues_by_slurm_itself_count_as_well(folder: RunFolder) -> None:
    with pytest.raises(TaskError, match="started 3 times"):
        run_shard(job(folder, SLURM_RESTART_COUNT="3"), 3, lambda: pytest.fail("it must not work"))


def test_where_slurm_refuses_to_put_a_task_back_it_has_failed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slurm(monkeypatch, JobInfo("RUNNING", "None", 0)).refuses = True
    with pytest.raises(SlurmError):
        run_shard(job(folder), 3, stopped_by(signal.SIGUSR1))
    record = TaskRecord.read(folder, SHARD.name)
    assert record is not None and (record.state, record.message) == (State.FAILED, "scontrol refused: no")


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (EngineError("no GPU", hint="ask for one"), "no GPU", "ask for one"),
        (ValueError("odd"), "ValueError: odd", ""),
        (KeyboardInterrupt(), "KeyboardInterrupt: ", ""),
    ],
)
def test_what_ends_a_task_is_written_down(
    folder: RunFolder, error: BaseException, message: str, hint: str
) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        run_shard(job(folder), 3, work)
    record = TaskRecord.read(folder, SHARD.name)
    assert record is not None and (record.state, record.message, record.hint) == (State.FAILED, message, hint)


def test_an_orphan_does_not_overwrite_what_its_successor_says(folder: RunFolder) -> None:
    job(folder, SLURM_RESTART_COUNT="1").record(State.RUNNING)
    job(folder).record(State.DONE)
    record = TaskRecord.read(folder, SHARD.name)
    assert record is not None and (record.state, record.attempt) == (State.RUNNING, 2)
    # A later submission starts to count anew.
    job(folder, SLURM_ARRAY_JOB_ID="15").record(State.RUNNING)
    record = TaskRecord.read(folder, SHARD.name)
    assert record is not None and (record.job, record.attempt) == ("15_2", 1)


def test_a_state_file_that_cannot_be_written_costs_no_work(folder: RunFolder) -> None:
    folder.root.parent.mkdir(exist_ok=True)
    folder.root.write_text("a file where the folder should be")
    worked: list[bool] = []
    run_shard(job(folder), 3, lambda: worked.append(True))
    assert worked == [True]


def test_by_hand_there_is_nothing_to_put_back_and_no_record(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = Slurm(monkeypatch, JobInfo("RUNNING", "None", 0))
    here = SlurmJob.here(folder, SHARD.name, {})
    with pytest.raises(Stopped):
        run_shard(here, 1, stopped_by(signal.SIGTERM))
    assert slurm.requeued == [] and TaskRecord.read(folder, SHARD.name) is None


@pytest.mark.parametrize("text", ["", "[]", '{"state": "odd"}', '{"state": "done"}', "{"])
def test_a_state_file_that_cannot_be_read_is_none(folder: RunFolder, text: str) -> None:
    file = folder.slurm_task(SHARD.name)
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert TaskRecord.read(folder, SHARD.name) is None


# How far a run is.


def found(
    folder: RunFolder,
    left: Sequence[int] | None,
    queue: Sequence[QueuedJob] = (),
    queue_error: str = "",
    array: str = "1-3",
) -> RunStatus:
    """The status of a run that was submitted in three shards."""
    return status(Facts(folder, Submission(3, array, JOBS, "2026"), left, queue, queue_error))


def listed(number: int | None, state: str, job: str = "12") -> QueuedJob:
    """A line of squeue."""
    return QueuedJob(job, number, state, "n1", "orch-mine-shards")


def said(folder: RunFolder, number: int, state: State, **values: Any) -> None:
    """Let a task have written its state file."""
    record = TaskRecord(state, 2, f"12_{number}", "n2", str(folder.slurm_log("x", str(number))))
    write_json(folder.slurm_task(Shard(number, 3).name), asdict(replace(record, **values)))


def wrote(folder: RunFolder, name: str, job: str, text: str = "some words\n") -> Path:
    """Let a job have written its log."""
    log = folder.slurm_log(f"orch-mine-{name}", job)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)
    return log


def conditions(run: RunStatus) -> list[str]:
    """Those of plan, shards, score."""
    return [str(one.condition) for one in (run.plan, *run.shards, run.score)]


def test_before_anything_was_submitted(folder: RunFolder) -> None:
    run = status(Facts(folder, None, None, [], ""))
    assert (run.planned, conditions(run), run.exit_code) == (False, ["waiting"] * 3, 3)


def test_a_run_that_was_never_submitted_but_has_rows(folder: RunFolder) -> None:
    run = status(Facts(folder, None, [7], [], ""))
    assert (run.planned, conditions(run), run.exit_code) == (True, ["done", "waiting", "waiting"], 3)
    text = page(run)
    assert "Never submitted; 7 rows left." in text
    assert "`orch-local run` or `orch-local submit`" in text
    assert "score" not in text and "plan:" not in text
    finished(folder)
    text = page(status(Facts(folder, None, [0], [], "")))
    assert text.startswith("Finished and scored.") and "orch-local" not in text


def test_while_the_plan_is_made(folder: RunFolder) -> None:
    queue = [
        listed(None, "RUNNING", "11"),
        *(listed(n, "PENDING") for n in (1, 2, 3)),
        listed(None, "PENDING", "13"),
    ]
    run = found(folder, None, queue)
    assert conditions(run) == ["running", "queued", "queued", "queued", "queued"]
    assert run.active and run.exit_code == 3


@pytest.mark.parametrize(
    ("state", "condition"),
    [
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("PENDING", "queued"),
        ("REQUEUED", "queued"),
        ("CONFIGURING", "queued"),
    ],
)
def test_what_is_in_the_queue_is_told_by_the_queue(folder: RunFolder, state: str, condition: str) -> None:
    said(folder, 1, State.STOPPED)
    run = found(folder, [5, 0, 0], [listed(1, state)])
    assert conditions(run)[1] == condition
    assert run.shards[0].attempt == 2 and run.exit_code == 3


@pytest.mark.parametrize("state", list(State))
def test_rows_count_whatever_the_task_said(folder: RunFolder, state: State) -> None:
    said(folder, 1, state)
    assert conditions(found(folder, [0, 1, 1]))[1] == "done"
    expected = {"running": "lost", "done": "waiting"}.get(state, str(state))
    assert conditions(found(folder, [4, 1, 1], [listed(2, "RUNNING")]))[1] == expected


def test_where_squeue_does_not_answer_the_task_is_believed(folder: RunFolder) -> None:
    said(folder, 1, State.RUNNING)
    said(folder, 2, State.FAILED, message="no GPU")
    run = found(folder, [4, 4, 4], queue_error="squeue did not answer")
    assert conditions(run)[1:4] == ["running", "failed", "waiting"]
    assert run.queue_error and run.exit_code == 1


def test_a_task_that_died_before_it_said_anything_is_lost(folder: RunFolder) -> None:
    log = wrote(folder, "shards", "12_2", "module: command not found\n")
    run = found(folder, [4, 4, 4], [listed(1, "RUNNING"), listed(3, "RUNNING")])
    assert conditions(run)[1:4] == ["running", "lost", "running"]
    assert run.trouble is not None and run.trouble.log == str(log)
    assert run.log_tail == ("module: command not found",)
    assert run.trouble.job == "12_2" and run.trouble.message == ""


def test_what_an_empty_log_means_is_told(folder: RunFolder) -> None:
    log = wrote(folder, "shards", "12_2", "")
    text = page(found(folder, [4, 4, 4], [listed(1, "RUNNING"), listed(3, "RUNNING")]))
    assert (
        f"shard 2/3 lost\nits log is empty: a line of `setup` failed, or it was killed\nits log: {log}"
        in text
    )


def test_a_shard_that_was_not_submitted_this_time_has_no_log(folder: RunFolder) -> None:
    wrote(folder, "shards", "12_2")
    run = found(folder, [4, 4, 4], [listed(1, "PENDING")], array="1,3")
    assert conditions(run)[2] == "waiting" and run.shards[1].job == ""


def test_what_an_earlier_submission_said_is_past(folder: RunFolder) -> None:
    for name in ("plan", Shard(1, 3).name, "score"):
        write_json(
            folder.slurm_task(name),
            {"state": "failed", "attempt": 1, "job": "9", "node": "n1", "log": "", "message": "old"},
        )
    run = found(folder, [4, 4, 4], [listed(None, "PENDING", "11")])
    assert conditions(run) == ["queued", *["waiting"] * 4] and run.exit_code == 3
    # Nor does what was written down by hand, before there were jobs, or beside them.
    said(folder, 1, State.FAILED, job="")
    assert conditions(found(folder, [4, 4, 4], [listed(2, "PENDING")]))[1] == "waiting"
    finished(folder)
    run = found(folder, [0, 0, 0])
    assert run.trouble is None and run.exit_code == 0
    run = status(Facts(folder, None, [0], [], ""))
    assert run.trouble is None and run.exit_code == 0


def test_where_nothing_is_in_the_queue_any_more_waiting_is_trouble(folder: RunFolder) -> None:
    run = found(folder, [4, 0, 4])
    assert conditions(run) == ["done", "stopped", "done", "stopped", "stopped"]
    assert run.exit_code == 1 and not run.active
    text = page(run)
    assert "shard 1/3 stopped\nnothing of it is in the queue: submit again\n" in text
    assert "waiting" not in text
    run = found(folder, None)
    assert (conditions(run), run.exit_code) == (["stopped"] * 5, 1)
    # Not where the queue is not known, and behind whatever tells more.
    assert found(folder, [4, 0, 4], queue_error="squeue did not answer").exit_code == 3
    said(folder, 3, State.STOPPED, message="it was cancelled")
    trouble = found(folder, [4, 0, 4]).trouble
    assert trouble is not None and (trouble.name, trouble.message) == ("3/3", "it was cancelled")


def test_while_jobs_are_to_come_an_earlier_result_is_not_that_of_the_run(folder: RunFolder) -> None:
    finished(folder)
    queue = [listed(None, "PENDING", "11"), listed(None, "PENDING", "13")]
    run = found(folder, [0, 0, 0], queue, array="")
    assert (run.digest, run.exit_code, run.active) == ("", 3, True)


def test_what_failed_is_shown_before_what_was_stopped_and_the_first_of_these(folder: RunFolder) -> None:
    said(folder, 1, State.STOPPED)
    said(folder, 2, State.FAILED, message="first")
    said(folder, 3, State.FAILED, message="second")
    trouble = found(folder, [4, 4, 4]).trouble
    assert trouble is not None and (trouble.name, trouble.message) == ("2/3", "first")


def test_a_plan_that_failed_is_told_even_where_there_is_an_older_plan(folder: RunFolder) -> None:
    env = {"SLURM_JOB_ID": "11", "SLURM_JOB_NAME": "orch-mine-plan"}
    with pytest.raises(StoreError), SlurmJob.here(folder, "plan", env).recorded():
        raise StoreError("a different plan", hint="choose another --out")
    for left in (None, [4, 4, 4]):
        run = found(folder, left)
        assert run.trouble is not None and run.trouble.message == "a different plan"
        assert run.exit_code == 1
        text = page(run)
        assert "hint: choose another --out" in text and "runs what is missing" not in text


def finished(folder: RunFolder) -> None:
    """Let the run have been scored."""
    write_json(folder.metrics, {"digest": "d" * 64})
    folder.decisions.touch()


def test_a_finished_run(folder: RunFolder) -> None:
    finished(folder)
    run = found(folder, [0, 0, 0])
    assert (run.digest, run.exit_code, run.active) == ("d" * 64, 0, False)
    assert conditions(run) == ["done"] * 5
    # Rows that were lost later make it unfinished.
    run = found(folder, [0, 1, 0])
    assert (run.digest, run.exit_code) == ("", 1)
    assert found(folder, [0, 1, 0], [listed(2, "PENDING")]).exit_code == 3


def test_all_rows_are_there_but_the_score_failed(folder: RunFolder) -> None:
    wrote(folder, "score", "13", "error: disk full\n")
    run = found(folder, [0, 0, 0])
    assert run.trouble is not None and run.trouble.name == "score"
    assert run.log_tail == ("error: disk full",) and run.exit_code == 1


def page(run: RunStatus) -> str:
    """What the terminal shows."""
    out = io.StringIO()
    print_status(Console(file=out, width=100), run, Path("runs/mine"))
    return out.getvalue()


def test_the_page_shows_counts_and_the_log_of_the_first_failure(folder: RunFolder) -> None:
    log = wrote(folder, "shards", "12_2", "x\n" * 50 + "\x1b[31mTraceback [bold]\u202e\n")
    said(folder, 2, State.FAILED, message="no GPU", hint="ask for one", log=str(log))
    text = page(found(folder, [0, 1200, 3], [listed(3, "RUNNING")], queue_error=""))
    for words in (
        "3 shards: 1 done, 1 running, 1 failed; 1,203 rows left.",
        "shard 2/3 failed\nno GPU\nhint: ask for one\n",
        str(log),
        r"\x1b[31mTraceback [bold]\u202e",
    ):
        assert words in text
    assert text.count("  x\n") == 19


def test_the_page_of_many_shards_names_what_failed(folder: RunFolder) -> None:
    write_json(
        folder.slurm_task(Shard(77, 99).name),
        {"state": "failed", "attempt": 1, "job": "12_77", "node": "n1", "log": "", "message": "no GPU"},
    )
    run = status(Facts(folder, Submission(99, "1-99", JOBS, ""), [1] * 99, [], ""))
    text = page(run)
    assert "77/99" in text and "... and 79 more" in text


def test_the_page_of_a_finished_run(folder: RunFolder) -> None:
    finished(folder)
    assert page(found(folder, [0, 0, 0])).split("\n\n") == [
        "Finished: 3 shards done and scored.",
        f"digest {'d' * 64}\n",
    ]


def test_the_tail_of_a_log_is_short_and_may_be_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ()
    log.write_bytes(b"\xff\n" + b"0123456789" * 100_000 + b"\n\nlast\n")
    assert tail(log, 1) == ("last",)
    assert sum(map(len, tail(log))) < 70_000


# The commands.


def test_status_of_what_is_no_run(cli: Cli, tmp_path: Path) -> None:
    result = cli("status", "nothing")
    assert result.code == 2 and "nothing: no such folder" in result.err
    (tmp_path / "nothing").mkdir()
    result = cli("status", "nothing")
    assert result.code == 2 and "nothing: has neither a plan nor a submission" in result.err
    assert "is this the folder of a run?" in result.err
    assert not list((tmp_path / "nothing").iterdir())


@pytest.mark.child
def test_status_prints_json_with_its_code(
    cli: Cli, tmp_path: Path, run_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    write_run_file(tmp_path, run_values)
    assert cli("prepare", "run.yaml", "--out", "mine", "--store", "store").code == 0
    note(RunFolder(tmp_path / "mine"), Submission(2, "1-2", JOBS, "2026"))
    result = cli("status", "mine", "--json")
    values = json.loads(result.out)
    assert result.code == 3
    assert values["planned"] is True and values["queue_error"] == "squeue is not installed here"
    assert sum(one["left"] for one in values["shards"]) == 48, "twelve questions, three agents, a merge agent"


def test_score_names_what_is_missing(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    write_run_file(tmp_path, run_values)
    assert cli("prepare", "run.yaml", "--out", "mine", "--store", "store").code == 0
    result = cli("score", "mine")
    assert result.code == 2 and "12 of first" in result.err
    assert TaskRecord.read(RunFolder(tmp_path / "mine"), "score") is None, "by hand"
    assert not (tmp_path / "mine" / "metrics.json").exists()


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "3"])
def test_a_shard_that_there_is_not_is_refused(
    cli: Cli, tmp_path: Path, run_values: dict[str, Any], part: str
) -> None:
    write_run_file(tmp_path, run_values)
    assert cli("prepare", "run.yaml", "--out", "mine", "--store", "store").code == 0
    result = cli("shard", "mine", part)
    assert result.code == 2 and "shard" in result.err


@pytest.mark.parametrize("command", [("shard", "nothing", "1/2"), ("score", "nothing")])
def test_jobs_of_what_is_no_run_leave_nothing_behind(
    cli: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    result = cli(*command)
    assert result.code == 2 and "no such file" in result.err
    assert not (tmp_path / "nothing").exists()


def test_anothers_job_with_a_number_of_ours_does_not_count(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(folder, Submission(3, "1-3", JOBS, "2026"))
    theirs = [QueuedJob("13", None, "RUNNING", "n1", "anothers")]
    monkeypatch.setattr(submitting.queue, "queued", lambda _: theirs)
    assert submitting.look(folder).exit_code == 1
    monkeypatch.setattr(submitting.queue, "queued", lambda _: [theirs[0]._replace(name="orch-mine-score")])
    assert submitting.look(folder).exit_code == 3


@pytest.mark.child
def test_shards_are_those_of_the_last_submission(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    folder.root.mkdir()
    folder.plan.touch()
    monkeypatch.setattr(submitting, "remaining_by_shard", lambda _, shards: [7, *[0] * (shards - 1)])
    assert submitting.look(folder).counts == {"waiting": 1}
    note(folder, Submission(8, "1-8", {"score": "3"}, "2025"))
    note(folder, Submission(1000, "1-1000", {"score": "4"}, "2026"))
    assert submitting.look(folder).counts == {"done": 999, "waiting": 1}
    assert submitting.shards_before(folder) == 1000
