"""Which of several runs is best, on the questions that they have in common."""

__all__ = [
    "aligning",
    "comparing",
    "competitors",
]
