"""orch-local: many analyses, one merge, on your own GPUs (ORCH, arXiv 2602.01797)."""

__version__ = "0.1.0"
