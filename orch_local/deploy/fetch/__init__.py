"""Fetching: models and benchmarks from a hub, into a folder that a machine without a network can use as is.

Layout of a fetched folder::

    fetched.json             what was fetched: repository, commit, licence, files with their SHA-256
    models/<name>/           what ORCH_MODELS_DIR=<folder>/models makes a run find
    benchmarks/<name>/       what `benchmark.path` of a run file points at
    .../.partial/            of a fetch that is not finished: file beginnings, and the commit they are of

`hub.py` and `explaining.py` alone know `huggingface_hub`; only the first opens connections.
"""

__all__ = [
    "choosing",
    "explaining",
    "files",
    "getting",
    "hub",
    "record",
    "terminal",
    "wanted",
]
