"""The models of the demo: small, and of different architectures."""

from __future__ import annotations

import json

from orch_local.demo.settings import RUN_FILE

MEGABYTE = 1_000_000


def test_the_demo_is_small_enough_for_a_repository() -> None:
    folder = RUN_FILE.parent
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 8 * MEGABYTE


def test_the_specialists_have_different_architectures() -> None:
    models = RUN_FILE.parent / "models"
    names = ("quant", "chrono", "verbal")
    configs = [json.loads((models / name / "config.json").read_text(encoding="utf-8")) for name in names]
    assert len({config["model_type"] for config in configs}) == 3
