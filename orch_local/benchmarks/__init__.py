"""Loaders of questions: benchmark files and those of the user, few-shot examples, checks of the gold answers."""

__all__ = [
    "arc",
    "arrow_files",
    "fewshot",
    "files",
    "gold_checks",
    "gsm8k",
    "jsonl",
    "loading",
    "mmlu",
    "mmlu_pro",
    "reading",
    "rows",
]
