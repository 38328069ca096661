"""What vLLM makes of our settings on machines that are not here, against snapshots.

A change of a snapshot is a change for users with that GPU. `ORCH_WRITE_SNAPSHOTS=1 bash scripts/test.sh cuda`
writes them anew; `git diff` shows what changes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cases import CASES
from lab import HERE, Lab

SNAPSHOTS = HERE / "snapshots"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model folders lie; a name that is always the same, since refusals repeat it."""
    return tmp_path_factory.mktemp("models")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", CASES)
def test_settings_are_those_of_the_snapshot(lab: Lab, root: Path, machine: str) -> None:
    arguments = [part for case in CASES[machine] for part in case]
    done = lab.run(machine, HERE / "driving.py", machine, root, *arguments, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.replace(str(root), "MODELS").splitlines() if line.startswith("{")]
    found = [json.loads(line) for line in lines]
    assert [(one["mode"], one["model"]) for one in found] == list(CASES[machine])
    file = SNAPSHOTS / f"{machine}.json"
    if os.environ.get("ORCH_WRITE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not file.exists():
        pytest.fail(f"there is no snapshot of {machine}: ORCH_WRITE_SNAPSHOTS=1 writes it")
    assert found == json.loads(file.read_text(encoding="utf-8"))


def snapshots() -> list[dict[str, Any]]:
    """All cases as they were written down, each with its machine."""
    return [
        {"machine": machine, **case}
        for machine in CASES
        if (SNAPSHOTS / f"{machine}.json").exists()
        for case in json.loads((SNAPSHOTS / f"{machine}.json").read_text(encoding="utf-8"))
    ]


def test_batch_invariant_models_attend_with_backends_that_declare_it() -> None:
    declared = {"FLASH_ATTN", "TRITON_ATTN", "FLEX_ATTENTION", "FLASH_ATTN_MLA", "TRITON_MLA"}
    cases = [case for case in snapshots() if case["VLLM_BATCH_INVARIANT"] == "1" and "refused" not in case]
    assert len(cases) >= 8
    for case in cases:
        assert set(case["attention"].values()) <= declared, case
        assert not case["prefix_caching"], case
        assert not case["chunked_prefill"], case


def test_only_gpus_that_are_too_old_refuse() -> None:
    assert {case["machine"] for case in snapshots() if "refused" in case} <= {"v100", "t4"}
