"""The command line, a file a group of commands; `app.py` puts them together."""

__all__ = [
    "app",
    "bundle",
    "bundle_install",
    "doctor",
    "evidence",
    "fetch",
    "grouping",
    "models",
    "options",
    "report",
    "router",
    "run",
    "slurm",
    "watching",
]
