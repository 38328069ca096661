"""Which models are looked at on which machine: each family once, and each kind of GPU with a plain model."""

from __future__ import annotations

CASES: dict[str, tuple[tuple[str, str], ...]] = {
    "h100": (
        ("safe", "Qwen3-8B"),
        ("fast", "Qwen3-8B"),
        ("safe", "Qwen3-8B-FP8"),
        ("safe", "Qwen3-30B-A3B-Instruct-2507"),
        ("safe", "gemma-3-27b-it"),
        ("safe", "gpt-oss-20b"),
        ("safe", "DeepSeek-V2-Lite-Chat"),
    ),
    "4xa100": (
        ("safe", "Llama-3.3-70B-Instruct"),
        ("safe", "gpt-oss-20b"),
        ("safe", "Qwen3-30B-A3B-Instruct-2507-FP8"),
    ),
    "8xh200": (("safe", "Qwen3-Next-80B-A3B-Instruct"), ("safe", "Llama-3.3-70B-Instruct")),
    "b200": (("safe", "Qwen3-8B"),),
    "5090": (("safe", "Qwen3-8B"),),
    "4090": (("safe", "Qwen3-8B"), ("safe", "Qwen3-8B-AWQ")),
    "t4": (("safe", "Qwen3-8B-AWQ"),),
    "v100": (("safe", "Qwen3-8B"),),
}
"""By machine of ``machines.py``: modes and models of ``families.py``."""
