"""What a bundle is, and what is wrong with it, in words and as JSON."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from orch_local.deploy.bundle.checking import WHEELS, Bundle, BundleFaults
from orch_local.deploy.bundle.manifest import Content, Entry

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_BACKWARDS = frozenset({"R", "AL", "AN"})
_WHATS = {
    "missing": "missing",
    "wrong_size": "of another size, as a copy that was cut short",
    "wrong_bytes": "of other bytes, damaged or tampered with",
    "not_plain": "a link, pipe, device or folder, and no file",
    "unreadable": "cannot be read",
}


def harmless(text: str) -> str:
    """Make foreign text safe to print: one line, nothing that steers a terminal, hides or runs backwards."""
    return "".join(
        sign if _is_plain(sign) else sign.encode("unicode_escape", "replace").decode() for sign in text
    )


def _is_plain(sign: str) -> bool:
    if sign.isascii():
        return sign.isprintable()
    return (
        sign.isprintable()
        and unicodedata.bidirectional(sign) not in _BACKWARDS
        and not unicodedata.category(sign).startswith("M")  # piled up, they cover other lines
    )


def amount(size: int) -> str:
    """Write a number of bytes for people."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:,.1f} {_UNITS[unit]}" if unit else f"{size:,} {_UNITS[0]}"


def lines_of(bundle: Bundle, signed: str) -> Iterator[str]:
    """Describe a bundle, a line at a time.

    Parameters
    ----------
    signed:
        What is known about its signature.
    """
    manifest, target = bundle.manifest, bundle.manifest.target
    cut = f" in {len(manifest.parts):,} parts" if manifest.parts else ""
    yield f"orch-local  {harmless(manifest.version)}"
    yield harmless(
        f"for         Python {target.python}, {target.platform}, glibc {target.glibc} or later, "
        f"{target.device}"
    )
    yield f"signed      {signed}"
    yield f"holds       {len(manifest.files):,} files, {amount(manifest.size)}{cut}"
    wheels = wheels_of(bundle)
    yield f"wheels      {len(wheels):,}, {amount(sum(entry.size for entry in wheels))}"
    yield from _list("models", (_content(item) for item in manifest.models))
    yield from _list("benchmarks", (_content(item) for item in manifest.benchmarks))
    yield from _list("run files", map(harmless, manifest.run_files))
    yield from _list("left out", map(harmless, manifest.excluded))


def wheels_of(bundle: Bundle) -> list[Entry]:
    """List the wheels of a bundle."""
    return [entry for entry in bundle.manifest.files if entry.path.startswith(WHEELS + "/")]


def _list(title: str, items: Iterable[str]) -> Iterator[str]:
    for number, item in enumerate(items):
        yield f"{'' if number else title:<11} {item}"


def _content(item: Content) -> str:
    origin = f"{item.source}@{item.revision[:12]}" if item.source else "origin not known"
    return harmless(f"{item.name} ({origin}; licence: {item.licence or 'not known'})")


def json_of(bundle: Bundle, key: str) -> str:
    """Describe a bundle as JSON."""
    values: dict[str, Any] = asdict(bundle.manifest)
    wheels = wheels_of(bundle)
    values |= {
        "signed": bundle.signature is not None,
        "key": key,
        "signer": bundle.signer,
        "size": bundle.manifest.size,
        "wheels": {"count": len(wheels), "size": sum(entry.size for entry in wheels)},
    }
    return json.dumps(values, indent=1)


def problem_lines(found: BundleFaults) -> Iterator[str]:
    """Tell what is wrong with the files of a bundle, a line each."""
    for name, what in _WHATS.items():
        for path in getattr(found, name):
            yield f"{harmless(path)}: {what}"
    for path in found.unknown:
        planted = path in found.planted
        yield f"{harmless(path)}: not in the manifest" + (", among the wheels" if planted else "; not used")


def found_json(bundle: Bundle, found: BundleFaults, key: str) -> str:
    """Tell what is wrong as JSON; ``copy_again`` has the paths that a carrier should bring once more."""
    values = {
        "passed": found.passed,
        "signed": bundle.signature is not None,
        "key": key,
        "signer": bundle.signer,
        "checked": len(bundle.pieces),
        "copy_again": found.broken,
        "planted": found.planted,
        **asdict(found),
    }
    return json.dumps(values, indent=1)


class Progress:
    """One line at a terminal about how far reading got; nothing elsewhere."""

    def __init__(self) -> None:
        self._bytes = 0
        self._next = time.monotonic() + 1
        self._shown = False

    def on_bytes(self, path: str, size: int) -> None:
        """Count bytes that were read, and print the sum once a second."""
        self._bytes += size
        if time.monotonic() < self._next or not sys.stderr.isatty():
            return
        self._next = time.monotonic() + 1
        self._shown = True
        print(
            f"\r\x1b[K{amount(self._bytes)} read, at {harmless(path)[-60:]}",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def done(self) -> None:
        """Remove the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
