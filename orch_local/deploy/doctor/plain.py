"""The page without rich, for a machine where rich cannot be imported."""

from __future__ import annotations

from collections.abc import Iterator

from orch_local.deploy.doctor.checks import DoctorReport, Severity


def lines(page: DoctorReport) -> Iterator[str]:
    """Reds first, a line each."""
    yield page.verdict
    for level in Severity:
        for one in page.of_level(level):
            advice = f" -> {one.advice}" if one.advice else ""
            yield _printable(f"{level.value}: {one.title}: {one.fact}{advice}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
