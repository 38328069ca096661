"""The store of a run: every path, atomic writes, rows, keys, shards, evidence."""
