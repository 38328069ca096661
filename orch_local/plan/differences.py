"""What differs between two nested mappings, field by field; for specs, plans and environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ABSENT = "(absent)"
"""Stands for a field that one side does not have."""


class Change(NamedTuple):
    """One field with two values."""

    field: str
    """Dotted path of the field, e.g. ``environment.torch``."""
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {self.before} -> {self.after}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[Change]:
    """The fields in which two mappings differ, in the order of ``before``; lists are compared whole."""
    found: list[Change] = []
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(Change(f"{prefix}{name}", old, new))
    return found
