"""A run file frozen: specs, environment, and the differences between two plans."""

__all__ = [
    "differences",
    "dtypes",
    "execution",
    "files",
    "fingerprint",
    "freezing",
    "needs",
    "plans",
    "prefix_cache",
    "profiles",
    "unchanged",
]
