"""Checks of paths and digests that come from outside: what a bundle, or a folder that becomes one, may hold.

Only the standard library is imported: this module is part of ``install.pyz``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
PART = re.compile(r"part-[0-9]{5}")
"""Name of a part of a bundle."""
MAX_PATH = 1024
_MAX_NAME = 255
_DEEPEST = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESERVED = frozenset({MANIFEST, SIGNATURE})
_VENV = "venv"
"""Where an installation makes its environment: a file of the bundle in it could run before pip does."""


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256 in lower case."""
    return _SHA256.fullmatch(text) is not None


def check_path(path: str) -> None:
    """Refuse a path that could lie outside of the folder, or be another one on another file system.

    Raises
    ------
    ValueError
        With the path, cut short.
    """
    shown = repr(path[:80])
    if not 0 < len(path.encode("utf-8", "replace")) <= MAX_PATH:
        raise ValueError(f"{shown} is no path, or too long a one")
    if not path.isprintable() or unicodedata.normalize("NFC", path) != path:
        raise ValueError(f"the path {shown} has characters that cannot be seen, or not in their normal form")
    parts = path.split("/")
    if len(parts) > _DEEPEST:
        raise ValueError(f"the path {shown} is more than {_DEEPEST} folders deep")
    # A colon is a drive or a stream on Windows; a name that ends in a dot or a blank loses it there.
    if any(part in ("", ".", "..") or part[-1] in ". " or len(part.encode()) > _MAX_NAME for part in parts):
        raise ValueError(f"the path {shown} leads out of the bundle, or nowhere")
    first = parts[0].casefold()  # where case does not count, PART-00001 is a part
    reserved = first == _VENV or path.casefold() in _RESERVED or PART.fullmatch(first)
    if reserved or any(sign in path for sign in "\\:"):
        raise ValueError(f"the path {shown} may not be in a bundle")


def check_distinct(paths: Sequence[str]) -> None:
    """Refuse two files that are one where case does not count, and one where another one needs a folder.

    Raises
    ------
    ValueError
        With one of the paths, cut short.
    """
    folded = [path.casefold() for path in paths]
    if len(set(folded)) != len(folded):
        times = Counter(folded)
        twice = next(path for path, low in zip(paths, folded, strict=True) if times[low] > 1)
        raise ValueError(f"the path {twice[:80]!r} is there twice")
    folders = {low[:end] for low in folded for end in _slashes(low)}
    if both := folders & set(folded):
        raise ValueError(f"{min(both)[:80]!r} is a file and a folder")


def _slashes(path: str) -> list[int]:
    return [index for index, character in enumerate(path) if character == "/"]
