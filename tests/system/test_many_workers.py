"""However its rows are shared out among real workers, a run comes to the same digest, and makes no row twice.

A table stands in the place of the engine; everything else, the processes included, is the real thing.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from running import Silent, execute
from soak import rows_twice, write_inputs

from orch_local.audit.replay import replay
from orch_local.config.run_files import load_run
from orch_local.errors import StoreError
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement, Replica
from orch_local.results.timeline import read_all
from orch_local.run import scheduler
from orch_local.run.context import RunContext
from orch_local.run.pipeline import run_shard, score_stored
from orch_local.run.preparation import prepare
from orch_local.run.remaining import remaining, remaining_by_shard
from orch_local.run.supervisor import Progress, Supervisor
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder

QUESTIONS = 24
TWO = Machine("cpu", 2, 16.0)

Prepared = Callable[[], RunFolder]
Place = Callable[..., Placement]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that is prepared."""
    root = tmp_path_factory.mktemp("many")
    write_inputs(root, QUESTIONS)
    prepare(load_run(root / "run.yaml"), RunFolder(root / "run"), root / "store")
    return root


@pytest.fixture
def prepared(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Copies of it, each with a store of its own."""
    copies: list[Path] = []

    def copy() -> RunFolder:
        copies.append(tmp_path / f"copy{len(copies)}")
        shutil.copytree(original / "run", copies[-1] / "run")
        return RunFolder(copies[-1] / "run")

    return copy


@pytest.fixture(scope="module")
def digest(original: Path) -> str:
    """What the run comes to when it is left alone."""
    shutil.copytree(original / "run", original / "alone" / "run")
    return execute(RunFolder(original / "alone" / "run"), Silent()).digest


def replica(agent: str, device: int, part: tuple[int, int] = (1, 1), start_s: float = 0.0) -> Replica:
    number, of = part
    times = (start_s, start_s + 1.0, start_s + 2.0)
    return Replica(agent, number, of, (number - 1) / of, number / of, (device,), 0, 0.0, *times)


def in_halves(*_: object) -> Placement:
    """Two workers for each agent, the merge agent included."""
    rows = [
        replica(name, device, (device + 1, 2), start_s)
        for start_s, name in ((0.0, "quant"), (2.0, "verbal"), (4.0, "merge"))
        for device in (0, 1)
    ]
    return Placement(TWO, tuple(rows), "merge")


def with_follower(*_: object) -> Placement:
    """The merge agent works on a device of its own from the beginning."""
    merge = Replica("merge", 1, 1, 0.0, 1.0, (1,), 0, 0.0, 0.0, 1.0, 5.0, follows=True)
    return Placement(TWO, (replica("quant", 0), merge, replica("verbal", 0, start_s=2.0)), "merge")


@pytest.mark.parametrize("placed", [in_halves, with_follower])
def test_the_digest_does_not_depend_on_the_placement(
    prepared: Prepared, digest: str, monkeypatch: pytest.MonkeyPatch, placed: Place
) -> None:
    monkeypatch.setattr(scheduler, "placed", placed)
    folder = prepared()
    result = execute(folder, Silent())
    assert result.digest == digest
    assert {name: cost.generated_now for name, cost in result.costs.items()} == dict.fromkeys(
        ("quant", "verbal", "merge"), QUESTIONS
    )
    assert rows_twice(folder.root.parent / "store") == 0
    assert replay(folder).same
    (timeline,) = read_all(folder).read
    assert sum(one.rows for one in timeline.spans) == 3 * QUESTIONS
    assert timeline.planned == placed()


def test_a_merge_agent_that_follows_ends_with_the_analyses(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "placed", with_follower)
    folder = prepared()
    execute(folder, Silent())
    (timeline,) = read_all(folder).read
    merges = [one for one in timeline.spans if one.agent == "merge"]
    # It began before the last analysis was written, and no second worker had to merge behind it.
    assert [one.rows for one in merges] == [QUESTIONS]
    assert merges[0].start_s < max(one.end_s for one in timeline.spans if one.agent == "verbal")


def test_what_a_killed_follower_leaves_is_merged_in_the_end(
    prepared: Prepared, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "placed", with_follower)
    follow = Supervisor.follow

    def killed(runner: Supervisor, keys: Sequence[str], progress: Progress) -> None:
        killer = threading.Thread(target=_kill_worker, args=(runner,))
        killer.start()
        follow(runner, keys, progress)
        killer.join()

    monkeypatch.setattr(Supervisor, "follow", killed)
    folder = prepared()
    result = execute(folder, Silent())
    assert result.digest == digest
    assert [one.agent for one in read_all(folder).read[0].spans].count("merge") == 2
    assert rows_twice(folder.root.parent / "store") == 0


def _kill_worker(runner: Supervisor) -> None:
    deadline = time.monotonic() + 200
    while runner._worker is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert runner._worker is not None
    os.kill(runner._worker.pid, signal.SIGKILL)


def test_shards_come_to_the_digest_of_the_whole_run(prepared: Prepared, digest: str) -> None:
    folder = prepared()
    parts = [Shard(number, 3) for number in (1, 2, 3)]
    assert remaining(folder) == 3 * QUESTIONS == sum(remaining_by_shard(folder, 3))
    for shard in parts:
        run_shard(RunContext.of(folder, Silent(), shard=shard))
        assert remaining_by_shard(folder, 3)[shard.number - 1] == 0
    assert remaining(folder) == 0
    assert score_stored(RunContext.of(folder)).digest == digest
    store = folder.root.parent / "store"
    assert rows_twice(store) == 0
    assert {file.parent.name for file in store.rglob("*.jsonl")} == {shard.name for shard in parts}
    # Another number of shards finds all rows where they are.
    assert remaining_by_shard(folder, 4) == [0, 0, 0, 0]


def test_what_is_missing_is_told_and_not_scored(prepared: Prepared) -> None:
    folder = prepared()
    run_shard(RunContext.of(folder, Silent(), shard=Shard(2, 2)))
    with pytest.raises(StoreError, match=r"rows are missing.*\d+ of quant"):
        score_stored(RunContext.of(folder))
    assert not folder.metrics.exists()


def test_a_shard_begun_elsewhere_is_finished_by_the_whole_run(prepared: Prepared, digest: str) -> None:
    folder = prepared()
    run_shard(RunContext.of(folder, Silent(), shard=Shard(1, 2)))
    before = remaining(folder)
    assert 0 < before < 3 * QUESTIONS
    result = execute(folder, Silent())
    assert result.digest == digest
    assert sum(cost.generated_now for cost in result.costs.values()) == before
