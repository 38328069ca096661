"""Counts of one system for an export: right, scored, and what is unscored by reason."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from orch_local.export.cases import SystemAnswer


@dataclass
class Tally:
    """Counts over the questions that a system was asked."""

    correct: int = 0
    scored: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    """By reason; ``no_gold`` among them."""

    def add(self, answer: SystemAnswer) -> None:
        """Take in one question."""
        if answer.correct is None:
            self.unscored[answer.unscored] += 1
            return
        self.scored += 1
        self.correct += answer.correct

    @property
    def asked(self) -> int:
        """Questions, scored or not."""
        return self.scored + self.unscored.total()

    @property
    def accuracy(self) -> float | None:
        """correct / scored; ``None`` where nothing is scored."""
        return self.correct / self.scored if self.scored else None

    @property
    def variance(self) -> float | None:
        """Population variance of the scores."""
        return None if self.accuracy is None else self.accuracy * (1 - self.accuracy)

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean from the sample variance; ``None`` with less than two scores."""
        if self.variance is None or self.scored < 2:
            return None
        return math.sqrt(self.variance / (self.scored - 1))
