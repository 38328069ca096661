"""The store of a run: every path, atomic writes, rows, keys, shards, evidence."""

__all__ = [
    "evidence",
    "keys",
    "questions",
    "rows",
    "shards",
    "store",
]
