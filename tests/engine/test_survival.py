"""Whatever happens to a run on real vLLM: continued, it comes to the same digest, and nothing is lost.

Every case ends like a run that nothing happened to (the fixture ``reference``): the same digest, every row
once, and no row that was complete generated again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from running import Cli
from survival import SMALL_CHUNKS, Reference, Run, check_whole, make_run, no_worker_left, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1200)]

QUESTIONS = 300
DAY_S = 86_400


@pytest.fixture(scope="module")
def reference(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A run that nothing happened to, and its result."""
    run = make_run(tmp_path_factory.mktemp("reference"), models_dir / "first", QUESTIONS)
    result = run.finish()
    assert result["standing"]["level"] == "bitwise"
    return run, result


@pytest.fixture
def run(tmp_path: Path, models_dir: Path) -> Run:
    """The same run, not begun."""
    return make_run(tmp_path, models_dir / "first", QUESTIONS)


def begin(run: Run) -> subprocess.Popen[str]:
    """Start the run and wait for its first rows."""
    process = run.start()
    wait_until(run.chunks, process)
    return process


def test_a_killed_worker_is_replaced_within_the_run(run: Run, reference: Reference) -> None:
    process = begin(run)
    os.kill(run.workers()[0], signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "the worker of first died (SIGKILL)" in run.log()
    check_whole(run, reference)


def test_sigterm_stops_at_once_and_keeps_what_is_finished(run: Run, reference: Reference) -> None:
    process = begin(run)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped; finished rows are kept" in err
    assert "Traceback" not in err
    no_worker_left(run)
    check_whole(run, reference)


def test_the_first_interrupt_finishes_what_is_in_flight(run: Run, reference: Reference) -> None:
    process = begin(run)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGINT
    assert "Finishing the questions that are in flight; press Ctrl-C again" in err
    assert "run the same command again to continue" in err
    assert not run.workers()
    # The worker ended by itself: nobody had to stop it.
    assert "died" not in run.log()
    assert 0 < len(run.written()) < QUESTIONS
    check_whole(run, reference)


def test_the_second_interrupt_stops_at_once(run: Run, reference: Reference) -> None:
    process = begin(run)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in err
    no_worker_left(run)
    check_whole(run, reference)


@pytest.fixture
def small_disk(run: Run) -> Iterator[Path]:
    """A file system of its own in the place of the store."""
    run.store.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(run.store)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield run.store
    subprocess.run(["umount", "-l", str(run.store)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fail(run: Run) -> str:
    """Execute a run that comes to grief; returns its message."""
    with run.start() as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert "run the same command again" in err
    return err


def test_a_full_disk(run: Run, reference: Reference, small_disk: Path) -> None:
    assert "No space left on device" in fail(run)
    assert not list(small_disk.glob("*/.*.tmp")), "a half-written file was left"
    remount(small_disk, "size=16m")
    check_whole(run, reference)


def test_a_read_only_folder(run: Run, reference: Reference, small_disk: Path) -> None:
    remount(small_disk, "size=16m,ro")
    assert "Read-only file system" in fail(run)
    remount(small_disk, "rw")
    check_whole(run, reference)


def copied(run: Run, original: Run) -> Run:
    """The run with the rows that another one made."""
    shutil.copytree(original.store, run.store)
    return run


def test_damaged_chunks_are_set_aside_made_again_and_told(run: Run, reference: Reference, cli: Cli) -> None:
    copied(run, reference[0])
    whole = run.finish()
    assert whole["cost"]["first"]["generated_now"] == 0
    cut, flipped, *_ = run.chunks()
    rows = [len(chunk.read_text().splitlines()) for chunk in (cut, flipped)]
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-20])

    replay = cli("replay", run.out)
    assert replay.code == 1
    assert f"first: {sum(rows)} rows are not in the store" in replay.out
    verify = cli("verify", run.out, "--sample", 0)
    assert verify.code == 1
    assert all(
        f"{chunk.name} is damaged: its bytes are not those of its name" in verify.out
        for chunk in (cut, flipped)
    )

    result = check_whole(run, reference)
    assert result["cost"]["first"]["generated_now"] == sum(rows)
    assert "2 files of the store had been damaged" in " ".join(result["out"].split())
    assert {file.name for file in run.store.glob("*/damaged/*")} == {cut.name, flipped.name}
    assert f"{cut} was damaged" in run.log()
    assert cli("replay", run.out).code == 0


def test_two_runs_on_one_store_at_the_same_time(run: Run, reference: Reference) -> None:
    twin = Run(run.run_file, run.out.with_name("two"))
    processes = [run.start(), twin.start()]
    for process in processes:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, f"{out}\n{err}"
        assert "DETERMINISM" not in out
    metrics = [json.loads((one.out / "metrics.json").read_text()) for one in (run, twin)]
    assert {one["digest"] for one in metrics} == {reference[1]["digest"]}
    assert run.written().keys() == reference[0].written().keys()


def test_a_clock_that_jumps(run: Run, reference: Reference, tmp_path: Path) -> None:
    # Python imports a module of this name at its start; a real clock is set by an administrator or NTP.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        (Path(SMALL_CHUNKS) / "sitecustomize.py").read_text() + "import itertools, time\n"
        "jumps, plain, plain_ns = itertools.cycle([0, 7, -3, 0.5]), time.time, time.time_ns\n"
        f"time.time = lambda: plain() + {DAY_S} * next(jumps)\n"
        f"time.time_ns = lambda: plain_ns() + int({DAY_S}e9 * next(jumps))\n"
    )
    check_whole(Run(run.run_file, run.out, {"PYTHONPATH": str(site)}), reference)


@pytest.mark.parametrize("when", ["loading", "generating"])
def test_a_worker_out_of_memory(run: Run, reference: Reference, when: str) -> None:
    process = run.start()
    if when == "loading":
        wait_until(run.workers, process)
        room = 600 << 20
    else:
        wait_until(run.chunks, process)
        room = int(Path(f"/proc/{run.workers()[0]}/statm").read_text().split()[0]) * resource.getpagesize()
    for worker in run.workers():
        resource.prlimit(worker, resource.RLIMIT_AS, (room, room))
    _, err = process.communicate(timeout=600)
    assert "Traceback" not in err
    if when == "loading":
        # A worker that is killed for it is replaced once; one that can still say why ends the run.
        assert process.returncode in (0, 1)
        assert "died" in run.log() if process.returncode == 0 else "first.log" in err
    no_worker_left(run)
    check_whole(run, reference)


def test_other_batch_sizes_and_folders(
    run: Run, reference: Reference, models_dir: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "else where" / "mödels"
    shutil.copytree(models_dir / "first", moved)
    other = make_run(tmp_path / "else where" / "run", moved, QUESTIONS)
    config = yaml.safe_load((other.run_file.parent / "tiny.yaml").read_text())
    (other.run_file.parent / "tiny.yaml").write_text(yaml.safe_dump({**config, "max_num_seqs": 64}))
    check_whole(other, reference)
