"""A finished run in the file formats of other evaluation tools; what each holds: docs/exports.md."""

__all__ = [
    "cases",
    "datasets_folder",
    "folders",
    "formats",
    "inspect_log",
    "inspect_samples",
    "lm_eval_files",
    "nemo_files",
    "systems",
    "tallies",
]
