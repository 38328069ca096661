"""The command line, a file a group of commands; `app.py` puts them together."""

__all__ = [
    "app",
    "bundle",
    "bundle_install",
    "commands",
    "doctor",
    "evidence",
    "fetch",
    "front_page",
    "grouping",
    "models",
    "options",
    "report",
    "router",
    "run",
    "slurm",
    "watching",
]
