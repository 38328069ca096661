"""Patterns over the tokens of a tokenizer, executed by Outlines."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from orch_local.engines.base import RequestError, one_line


class Patterns:
    """Patterns compiled by Outlines for one tokenizer, each once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: Any = None
        self._indexes: dict[str, Any] = {}

    def guide(self, pattern: str) -> Any:
        """A fresh walk through the automaton of ``pattern``.

        Raises
        ------
        RequestError
            If Outlines cannot compile the pattern for this tokenizer.
        """
        import outlines_core

        if self._vocabulary is None:
            end = self._tokenizer.eos_token_id
            self._vocabulary = outlines_core.Vocabulary(end, _token_bytes(self._tokenizer))
        if pattern not in self._indexes:
            try:
                self._indexes[pattern] = outlines_core.Index(pattern, self._vocabulary)
            except ValueError as error:
                raise RequestError(f"the pattern cannot be compiled: {one_line(error)}") from error
        return outlines_core.Guide(self._indexes[pattern])


def _token_bytes(tokenizer: Any) -> dict[bytes, list[int]]:
    """What each token stands for, in bytes; special tokens are left out, no pattern may choose one.

    Outlines' own conversion goes through text, where a part of a character becomes U+FFFD and would be
    allowed inside strings.
    """
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
    spell = _spell_byte_level if '"ByteLevel"' in json.dumps(decoder) else _spell_sentence_piece
    added = tokenizer.added_tokens_decoder
    spelled: dict[bytes, list[int]] = {}
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        text = token.encode() if index in added else spell(token)
        if text and not (index in added and added[index].special) and index != tokenizer.eos_token_id:
            spelled.setdefault(text, []).append(index)
    return spelled


def _spell_byte_level(token: str) -> bytes:
    table = _byte_level_table()
    # An entry beyond the alphabet is plain text.
    return bytes(map(table.__getitem__, token)) if table.keys() >= set(token) else token.encode()


@functools.cache
def _byte_level_table() -> dict[str, int]:
    """Inverse of the printable alphabet in which byte-level BPE writes the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _spell_sentence_piece(token: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(byte[1]) if byte else token.replace("\u2581", " ").encode()
