"""A run on a SLURM cluster: scripts, submission, what an array task does, and how far all is."""

__all__ = [
    "jobs",
    "queue",
    "scripts",
    "status",
    "submitting",
    "task",
    "terminal",
]
