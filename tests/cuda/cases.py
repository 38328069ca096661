"""Which models are looked at on which machine: each family once, and each kind of GPU with a plain model."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A model of ``families.py``, as a user runs it."""

    model: str
    gpus: int = 1
    """GPUs that share it, fixed here: `golden_plans.py` is where the choice is looked at."""
    fast: bool = False


CASES = {
    "h100": (
        Case("Qwen3-8B"),
        Case("Qwen3-8B", fast=True),
        Case("Qwen3-8B-FP8"),
        Case("Qwen3-30B-A3B-Instruct-2507"),
        Case("gemma-3-27b-it"),
        Case("gpt-oss-20b"),
        Case("DeepSeek-V2-Lite-Chat"),
    ),
    "4xa100": (
        Case("Llama-3.3-70B-Instruct", 4),
        Case("gpt-oss-20b"),
        Case("Qwen3-30B-A3B-Instruct-2507-FP8"),
    ),
    "8xh200": (Case("Qwen3-Next-80B-A3B-Instruct", 2), Case("Llama-3.3-70B-Instruct", 2)),
    "4090": (Case("Qwen3-8B"), Case("Qwen3-8B-AWQ")),
    "b200": (Case("Qwen3-8B"),),
    "5090": (Case("Qwen3-8B"),),
    "t4": (Case("Qwen3-8B-AWQ"),),
    "v100": (Case("Qwen3-8B"),),
}
"""By machine of ``machines.py``."""
