"""Shards: disjoint parts of a run's questions, so that many jobs can work on one run at once.

To which shard a question belongs is told by its key alone. It is therefore the same in every run and for
every order of the questions, and what another shard holds need never be read.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from orch_local.errors import InputError

_NAME = re.compile(r"(\d+)-of-(\d+)")
_KEY_DIGITS = 15
"""Hex digits of a key that count: 60 bits, far more than there are questions."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` (from 1) of ``of`` parts."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InputError(
                f"there is no shard {self.number} of {self.of}", hint="shards are 1/N, 2/N ... N/N"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """Name of a folder of this shard, e.g. ``00003-of-00008``."""
        return f"{self.number:05}-of-{self.of:05}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of ``3/8``.

        Raises
        ------
        InputError
            If the text is none.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise InputError(f"{text!r} is no shard", hint="write it as 3/8: the third of eight")
        return cls(int(number), int(of))

    @classmethod
    def named(cls, name: str) -> Shard | None:
        """The shard whose folder has this name; ``None`` where it is none's."""
        match = _NAME.fullmatch(name)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            return None
        return cls(int(match[1]), int(match[2]))

    def holds(self, key: str) -> bool:
        """Whether the question with this key belongs to the shard."""
        return number_of(key, self.of) == self.number

    def held(self, keys: array[int]) -> Sequence[int]:
        """Where among these keys, held as numbers, are those of the shard's questions."""
        # Deferred: the command line starts without numpy.
        import numpy as np

        digits = np.frombuffer(keys, np.uint64) >> np.uint64(64 - 4 * _KEY_DIGITS)
        found: list[int] = np.flatnonzero(digits % np.uint64(self.of) == self.number - 1).tolist()
        return found

    def meets(self, other: Shard) -> bool:
        """Whether any question can belong to both (by the Chinese remainder theorem)."""
        return (self.number - other.number) % math.gcd(self.of, other.of) == 0


def number_of(key: str, of: int) -> int:
    """Number of the shard, of so many, that the question with this key belongs to."""
    return int(key[:_KEY_DIGITS], 16) % of + 1
