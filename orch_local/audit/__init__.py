"""What can be proved of a finished run: verify, replay, and the difference between two runs."""

__all__ = [
    "answer_diff",
    "calibrate",
    "diff",
    "difference",
    "plan_diff",
    "replay",
    "verify",
]
