"""What was found when rows were generated again in other batches: the evidence behind a run's level.

An analysis is promised to be a function of spec and question, so evidence belongs to a spec. It is kept in
the store beside the rows, one immutable file for each time that rows were compared.

A :class:`Check` is evidence of another kind, about an *execution*: model files, engine and environment,
whatever is asked. `benchmarks/determinism.py --model` makes it, and it decides whether `prefix_cache: auto`
is on (`plan/prefix_cache.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from orch_local.errors import StoreError
from orch_local.records import Analysis, canonical_json, digest
from orch_local.store.store import Store, read_json, write_json

ALONE_SHARE = 4
"""One in so many sampled rows is generated alone."""
SMALL_BATCH = 7
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """One comparison of rows with what they came to when they were generated again."""

    by: Literal["worker", "verify"]
    rows: int
    """Rows generated again."""
    same: int
    """Rows that came to the same bytes: text, parsed fields and probabilities."""
    same_text: int
    sample: str
    """Digest of the keys of the rows, so that the same sample counts once."""
    different: tuple[str, ...]
    """Keys of the first rows that differed."""
    head_size: int | None = None
    """Dimension of an attention head, where the engine tells it; public reports of differing rows name it."""
    attention: str | None = None
    """Attention backend, where the engine tells it."""

    @classmethod
    def of(
        cls, by: Literal["worker", "verify"], pairs: Iterable[tuple[Analysis, Analysis | None]]
    ) -> Evidence:
        """Compare each row with what it came to, ``None`` where it did not come."""
        keys, different, texts = [], [], 0
        for row, again in pairs:
            keys.append(row.key)
            texts += again is not None and row.text == again.text
            if not same_bytes(row, again):
                different.append(row.key)
        same, first = len(keys) - len(different), tuple(sorted(different)[:_NAMED])
        return cls(by, len(keys), same, texts, digest(sorted(keys)), first)


def same_bytes(row: Analysis, again: Analysis | None) -> bool:
    """Whether all that must be the same is, bit by bit."""
    return again is not None and canonical_json(row.content()) == canonical_json(again.content())


def sampled(keys: Iterable[str], count: int, *, last: bool = False) -> list[str]:
    """A fixed sample: keys are hashes, so the first (or last) in their order are as good as drawn by lot."""
    return sorted(set(keys), reverse=last)[:count]


def other_batches(keys: Sequence[str]) -> list[list[str]]:
    """Batches unlike those of a run: some rows alone, some by sevens, the rest all together, backwards."""
    backwards = list(reversed(keys))
    alone = (len(keys) + ALONE_SHARE - 1) // ALONE_SHARE
    by_sevens = SMALL_BATCH * (len(keys) // (2 * SMALL_BATCH))
    batches = [[key] for key in backwards[:alone]]
    middle, rest = backwards[alone : alone + by_sevens], backwards[alone + by_sevens :]
    batches += [middle[start : start + SMALL_BATCH] for start in range(0, len(middle), SMALL_BATCH)]
    return [*batches, rest] if rest else batches


def keep_evidence(store: Store, spec: str, evidence: Evidence) -> None:
    """Write evidence beside the rows of ``spec``.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    write_json(store.evidence(spec) / f"{_name(evidence)}.json", _values(evidence))


class Found(NamedTuple):
    """All evidence about a spec."""

    evidence: list[Evidence]
    damaged: list[Path]
    """Files that are not what was written; what stood in them is not known."""


def read_evidence(store: Store, spec: str) -> Found:
    """All evidence about ``spec``, in a fixed order."""
    return Found(*_read(store.evidence(spec), _evidence))


def _evidence(values: dict[str, Any]) -> Evidence:
    return Evidence(**{**values, "different": tuple(values["different"])})


CaseName = Literal["batches", "chunks", "warm cache", "preemption"]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to compute rows, compared with whole prompts all at once."""

    name: CaseName
    rows: int
    same: int
    """Rows with the same token ids and, bit by bit, the same log-probabilities."""
    same_text: int
    """Rows with the same token ids."""
    met: int
    """How often the case came about: cached blocks read, requests put off, prompts cut; 0 shows nothing."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check of one execution found."""

    cases: tuple[Case, ...]
    sample: str
    """Digest of what was asked."""
    longest: int
    """Tokens of the longest prompt."""
    head_size: int | None = None
    attention: str | None = None

    def named(self, name: CaseName) -> Case | None:
        """The case of that name; ``None`` where it was not checked."""
        return next((case for case in self.cases if case.name == name), None)


_Kept = TypeVar("_Kept", Evidence, Check)


def keep_check(store: Store, execution: str, check: Check) -> None:
    """Write a check under the digest of its execution, see :func:`orch_local.plan.execution.execution_spec`.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    write_json(store.checks(execution) / f"{_name(check)}.json", _values(check))


class Checked(NamedTuple):
    """All checks of an execution."""

    checks: list[Check]
    damaged: list[Path]


def read_checks(store: Store, execution: str) -> Checked:
    """All checks of an execution, in a fixed order."""
    return Checked(*_read(store.checks(execution), _check))


def _check(values: dict[str, Any]) -> Check:
    return Check(**{**values, "cases": tuple(Case(**case) for case in values["cases"])})


def _read(folder: Path, build: Callable[[dict[str, Any]], _Kept]) -> tuple[list[_Kept], list[Path]]:
    """What is kept in a folder, and the files that are not what was written."""
    kept, damaged = list[_Kept](), list[Path]()
    for file in sorted(folder.glob("*.json")):
        try:
            found = build(read_json(file))
            if _name(found) != file.stem:
                raise ValueError("its name is the SHA-256 of something else")
        except (StoreError, TypeError, KeyError, ValueError):
            damaged.append(file)
        else:
            kept.append(found)
    return kept, damaged


def _values(evidence: Evidence | Check) -> dict[str, object]:
    """Its fields without those that are not known, so that evidence of earlier versions keeps its name."""
    return {name: value for name, value in asdict(evidence).items() if value is not None}


def _name(evidence: Evidence | Check) -> str:
    return hashlib.sha256(canonical_json(_values(evidence)).encode()).hexdigest()
