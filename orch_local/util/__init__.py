"""What every layer may use: what the system says of the machine, children, locks, the offline guard."""

__all__ = [
    "children",
    "gpus",
    "host",
    "locks",
    "offline",
    "paths",
    "streams",
]
