"""How many texts occur more than once, counted in one pass and in bounded memory."""

from __future__ import annotations

from zlib import crc32

CAPACITY = 1 << 15
"""Different texts that are counted exactly; their hashes take some 3 MB."""


class Repeats:
    """Counts texts by their hashes.

    Of more than ``capacity`` different texts those are kept whose hash ends with enough zero bits (distinct
    sampling: Gibbons 2001, VLDB, 541). Each text that is kept was counted from its first occurrence on, and
    which texts are kept does not depend on their order. The share of repeated ones is then an estimate, with
    a standard error below 1 point.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._counts: dict[int, int] = {}
        self._mask = 0
        """The bits that are zero in each hash that is kept."""
        self._rows = 0

    def __len__(self) -> int:
        """Hashes in memory."""
        return len(self._counts)

    def add(self, text: bytes) -> None:
        """Count one text."""
        self._rows += 1
        # Several times faster than a cryptographic hash; texts of one length collide once in four billion.
        key = crc32(text) | len(text) << 32
        if key & self._mask:
            return
        counts = self._counts
        if key in counts:
            counts[key] += 1
            return
        counts[key] = 1
        while len(self._counts) > self._capacity:
            self._mask = mask = 2 * self._mask + 1
            self._counts = {key: count for key, count in self._counts.items() if not key & mask}

    @property
    def repeated(self) -> int:
        """Texts of which another occurrence was added."""
        once = sum(count == 1 for count in self._counts.values())
        return max(0, self._rows - once * (self._mask + 1))
