"""The embedded default: a synthetic benchmark and four tiny trained models; a run needs no download."""

__all__ = [
    "benchmark",
    "settings",
]
