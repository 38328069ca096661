"""A model folder as a hub's snapshot is, and an agent over it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from fake_engine import agent_plan

from orch_local.plan.plans import AgentPlan

PLANNED = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json")


def hub_snapshot(tmp_path: Path) -> Path:
    """A folder as a hub's snapshot is: links to files elsewhere, and more than is needed."""
    blobs, folder = tmp_path / "blobs", tmp_path / "model"
    blobs.mkdir()
    folder.mkdir()
    others = ("model.safetensors.index.json", "merges.txt", "README.md", "run.py", "old.safetensors")
    for number, name in enumerate((*PLANNED, *others)):
        (blobs / str(number)).write_bytes(bytes([number]) * (100_000 if name in PLANNED[:2] else 10))
        (folder / name).symlink_to(blobs / str(number))
    (folder / "original").mkdir()
    return folder


def agent_of(model: Path, names: tuple[str, ...] = PLANNED) -> AgentPlan:
    files = {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in names}
    plan = agent_plan()
    settings = dataclasses.replace(plan.settings, model_path=model)
    return plan.model_copy(update={"settings": settings, "spec_content": {"model": {"files": files}}})


def left_in(root: Path) -> list[str]:
    """What lies beside the copies and their locks."""
    entries = (root / "orch-local" / "models").iterdir()
    return [entry.name for entry in entries if entry.suffix != ".lock"]
