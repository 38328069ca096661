"""What a machine needs for a run, and whether it has it: `fetch`, `bundle`, `doctor`."""

__all__ = [
    "bundle",
    "doctor",
    "fetch",
]
