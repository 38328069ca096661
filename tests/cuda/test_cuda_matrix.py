"""What vLLM makes of our settings on machines that are not here, against snapshots.

A change of a snapshot is a change for users with that GPU. `ORCH_WRITE_SNAPSHOTS=1 bash scripts/test.sh cuda`
writes them anew, and the stamp with them; `git diff` shows what changes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, Case
from lab import HERE, Lab

SNAPSHOTS = HERE / "snapshots"
INVARIANT = {"FLASH_ATTN", "TRITON_ATTN", "FLEX_ATTENTION", "FLASH_ATTN_MLA", "TRITON_MLA"}
"""The attention backends that declare batch invariance (`supports_batch_invariance` in vllm/v1/attention)."""
TOO_OLD = {"v100", "t4"}
_PATIENCE_S = 1800
"""The longest took 30 s of two idle cores, and 70 s of busy ones."""


@pytest.mark.timeout(_PATIENCE_S)
@pytest.mark.parametrize("machine", CASES)
def test_settings_are_those_of_the_snapshot(lab: Lab, tmp_path: Path, machine: str) -> None:
    done = lab.run(machine, HERE / "driving.py", machine, tmp_path, timeout=_PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.replace(str(tmp_path), "MODELS").splitlines() if line[0] == "{"]
    found = [json.loads(line) for line in lines]
    assert [Case(one["model"], one["gpus"], one["fast"]) for one in found] == list(CASES[machine])
    for case in found:
        check(machine, case)
    file = SNAPSHOTS / f"{machine}.json"
    if os.environ.get("ORCH_WRITE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not file.exists():
        pytest.fail(f"there is no snapshot of {machine}: ORCH_WRITE_SNAPSHOTS=1 writes it")
    assert found == json.loads(file.read_text(encoding="utf-8"))


def check(machine: str, case: dict[str, Any]) -> None:
    """What no snapshot may say, even if it is written anew."""
    assert "refused" not in case or machine in TOO_OLD, case
    assert case["torch_has_kernels"] or machine in TOO_OLD, case
    if case["VLLM_BATCH_INVARIANT"] == "1":
        assert set(case["attention"]) <= INVARIANT, case
        assert not case["chunked_prefill"], case
