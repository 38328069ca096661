"""The paths of a run's files on this machine: kept beside the manifest of the run, not in it.

``run.json`` may be shown to anybody. In it a path is its last name alone, and ``places.json`` beside it holds
the whole paths, by JSON pointer (RFC 6901) into ``run.json``. Without that file the run can still be read,
scored, replayed and reported; only what needs the models themselves does not find them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

_BLOCKS = ("config", "agents", "merger", "store")
_VERBATIM = ("spec_content", "template", "vllm_args")
"""What a spec is made of is shown as it is, or its digest could not be checked."""


def reduced(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A plan's values with each absolute path cut to its last name, and the paths by JSON pointer."""
    places: dict[str, str] = {}

    def cut(pointer: str, text: str) -> str:
        if not text.startswith("/"):
            return text
        places[pointer] = text
        return PurePosixPath(text).name or "/"

    return _mapped(values, cut), places


def restored(values: Mapping[str, Any], places: Mapping[str, object]) -> dict[str, Any]:
    """Inverse of :func:`reduced`. A path that is not the place of the name in ``values`` is left out."""

    def put_back(pointer: str, text: str) -> str:
        place = places.get(pointer)
        fits = isinstance(place, str) and place.startswith("/")
        return str(place) if fits and (PurePosixPath(str(place)).name or "/") == text else text

    return _mapped(values, put_back)


def _mapped(values: Mapping[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    return {
        name: _walked(value, f"/{name}", change) if name in _BLOCKS else value
        for name, value in values.items()
    }


def _walked(value: Any, pointer: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(pointer, value)
    if isinstance(value, list):
        return [_walked(item, f"{pointer}/{index}", change) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return dict(_items(value, pointer, change))
    return value


def _items(
    value: Mapping[str, Any], pointer: str, change: Callable[[str, str], str]
) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        escaped = name.replace("~", "~0").replace("/", "~1")
        yield name, item if name in _VERBATIM else _walked(item, f"{pointer}/{escaped}", change)
