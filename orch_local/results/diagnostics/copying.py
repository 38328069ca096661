"""Whether a reasoning repeats the instructions of its prompt. Texts are compared by their letters alone."""

from __future__ import annotations

import string
from collections.abc import Iterable

RUN = 32
"""So many letters of instructions in a row (40 characters or so) do not occur in a reasoning by chance."""
SHORTEST = 12
"""A reasoning that is nothing but a part of the instructions may be as short ("the answer is" has 11)."""
_BLOCK = 14
_STRIDE = RUN - _BLOCK + 1
"""Each run of ``RUN`` letters holds a block of ``_BLOCK`` that begins at a multiple of this."""
_SMALL = bytes.maketrans(string.ascii_uppercase.encode(), string.ascii_lowercase.encode())
_NO_LETTERS = (string.punctuation + string.digits + string.whitespace).encode()


def letters(text: bytes) -> bytes:
    """UTF-8 in small letters without white space, digits and punctuation, as far as they are ASCII."""
    return text.translate(_SMALL, _NO_LETTERS)


class Instructions:
    """The trusted parts of a prompt, to be found again in reasonings."""

    def __init__(self, texts: Iterable[str]) -> None:
        # A line break is no letter, so no block reaches from one part into the next.
        self._text = b"\n".join(letters(text.encode("utf-8", "surrogatepass")) for text in texts)
        self._blocks = frozenset(self._text[at : at + _BLOCK] for at in range(len(self._text) - _BLOCK + 1))

    def are_copied(self, text: bytes) -> bool:
        """Whether the letters of a text hold ``RUN`` of theirs in a row, or are wholly a part of them."""
        if len(text) < RUN:
            return len(text) >= SHORTEST and text in self._text
        blocks = self._blocks
        for at in range(0, len(text) - _BLOCK + 1, _STRIDE):
            if text[at : at + _BLOCK] in blocks and self._has_run(text, at):
                return True
        return False

    def _has_run(self, text: bytes, block: int) -> bool:
        """Whether a run of instructions reaches over the block at this place."""
        starts = range(max(0, block - _STRIDE + 1), min(block, len(text) - RUN) + 1)
        return any(text[at : at + RUN] in self._text for at in starts)
