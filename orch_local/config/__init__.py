"""Run files, model configs, and the answer schema with its grammar and parser."""

__all__ = [
    "answers",
    "blocks",
    "model_configs",
    "model_search",
    "numerals",
    "run_files",
    "slurm_options",
    "yaml_files",
]
