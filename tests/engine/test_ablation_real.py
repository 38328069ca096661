"""An ablation of the demo with its real models: the merges that it needs are generated once."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import snapshot
from running import Silent, execute

from orch_local.ablate.study import Ablating
from orch_local.ablate.variants import wanted
from orch_local.config.run_files import load_run
from orch_local.demo.settings import RUN_FILE, demo_overrides
from orch_local.run.preparation import prepare
from orch_local.store.store import RunFolder


@pytest.mark.vllm
@pytest.mark.slow
def test_the_demo_is_ablated_twice_and_generates_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each model and each variant loads an engine, so two agents and one variant must do: another order.
    monkeypatch.setattr("orch_local.ablate.study.wanted", lambda *args: wanted(*args)[-1:])
    folder = RunFolder(tmp_path / "runs" / "demo")
    config = load_run(RUN_FILE, demo_overrides(folder.root, 24, "vllm"))
    prepare(config.model_copy(update={"agents": config.agents[:2]}), folder, tmp_path / "store")
    digest = execute(folder, Silent()).digest
    before = snapshot(folder.root)
    stored, nothing = Ablating(folder, "few", orders=1).finish(Silent())
    first, generated = Ablating(folder, "few", orders=1).finish(Silent(), generate=True)
    again, none = Ablating(folder, "few", orders=1).finish(Silent())
    after = snapshot(folder.root)
    assert (nothing, generated) == (0, 24)
    assert [one.merges for one in stored.left_out] == [24] and not first.left_out
    assert len(first.orders) == 2
    assert none == 0
    assert again == first
    assert first.digest == digest
    assert {name: after[name] for name in before} == before
