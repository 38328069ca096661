"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from orch_local.errors import InputError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SMALLEST = 2**10
"""Bytes; below it a bundle would be more file names than content."""


def parse_size(text: str) -> int:
    """Bytes of a size such as ``60MiB`` or ``1.5 GB``.

    Raises
    ------
    InputError
        If it is none, or less than 1 KiB.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMG]I?B)?", text.strip().upper(), re.ASCII)
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < _SMALLEST:
        raise InputError(
            f"{text[:40]!r} is no size of at least 1 KiB", hint="for example 60MiB, 650MB or 4GiB"
        )
    return size


def shown(size: int) -> str:
    """A size for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
