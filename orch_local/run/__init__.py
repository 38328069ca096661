"""One execution of a plan: the pipeline, scheduling, supervision of worker processes, the worker itself."""

__all__ = [
    "context",
    "conversation",
    "forecast",
    "interrupts",
    "missing",
    "pipeline",
    "planning",
    "preparation",
    "profiling",
    "remaining",
    "staging",
    "supervisor",
    "waves",
]
