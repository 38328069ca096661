"""Loaders of questions: benchmark files and the files of the user, few-shot examples, gold checks."""

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
