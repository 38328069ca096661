"""Whether this machine can do a run: what `orch-local doctor` looks at, and what it makes of it.

Each theme is a small module with two halves: ``examine``, which gathers facts, and functions named ``judge``,
which are pure and make findings of facts. Themes run in child processes (`child.py`, watched by `lanes.py`),
because a broken package may raise, crash or hang when it is imported, and a dead network disk hangs whoever
asks for it. What is lost with a child is the check at hand, and that is then a finding itself.

The parent imports the standard library alone, so that it works where nothing else does.
"""

__all__ = [
    "checks",
    "child",
    "clock",
    "digests",
    "disks",
    "engine",
    "filesystems",
    "gpu",
    "host",
    "imports",
    "inspection",
    "kernels",
    "lanes",
    "limits",
    "models",
    "offline",
    "packages",
    "parts",
    "placement",
    "plain",
    "printing",
    "python",
    "questions",
    "request",
    "run",
    "slurm",
    "subject",
    "terminal",
    "tools",
    "vendors",
]
