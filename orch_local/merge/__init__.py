"""From a panel to a decision: votes, tie-breaks, the requests of the merge agent. Pure."""

__all__ = [
    "deciding",
    "merging",
    "panels",
]
