"""The table of the fake engine: a JSON Lines file into rows, and which row fits a request.

A row names what it is for (``agent``, ``question``, ``prompt``; all that it names must fit), and what comes
of it. The first row that fits counts. A row that names nothing fits everything; docs/runs.md has examples.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orch_local.config.yaml_files import nearest, parse
from orch_local.errors import ConfigError

_QUESTION_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST_LINE = 1_000_000
_WORDS = re.compile(r"\s+")
_HINT = "see `The fake engine` in docs/runs.md for what a row may hold"


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    delay_s: float = Field(default=0.0, ge=0, le=1e6)
    hold: Path | None = None
    """It waits while this file exists. A relative path is one in the folder of the table."""
    once: Path | None = None
    """The row fits until this file exists, and makes it when it happens: the failure happens once."""
    message: str = "the table has it so"
    """The words of a failure; where `load` is ok, what is printed meanwhile, as libraries do."""


class TableRow(_Row):
    """What comes of the requests that it fits."""

    agent: str | None = None
    """Name of an agent of the run file; ``merge`` is the merge agent."""
    question: str | None = Field(default=None, min_length=1)
    """Id of a question, or its text."""
    prompt: str | None = Field(default=None, min_length=1)
    """A text that the prompt holds."""
    answer: str | int | float | None = None
    reasoning: str = ""
    eliminated: tuple[str, ...] = ()
    confidence: int | None = Field(default=None, ge=0, le=100)
    probabilities: dict[str, float] | None = None
    """Of each label; the label of ``answer`` alone where there are none."""
    thought: str = "The table has no thought."
    text: str | None = None
    """The whole output instead of an answer, also one that no real engine could write."""
    fail: Literal["refused", "failed", "engine", "raised", "killed", "hang"] | None = None
    """The request is refused, or fails; the engine fails, raises what nobody foresaw, is killed, or hangs."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> TableRow:
        said = {"answer": self.answer, "text": self.text, "fail": self.fail}
        given = [name for name, value in said.items() if value is not None]
        if len(given) > 1:
            raise ValueError(
                f"a row has one of `answer`, `text` and `fail`, this one has {' and '.join(given)}"
            )
        if self.once is not None and self.fail is None:
            raise ValueError("`once` needs `fail`: an answer must be the same each time")
        if self.probabilities and not all(0 <= share <= 1 for share in self.probabilities.values()):
            raise ValueError("`probabilities` are numbers from 0 to 1")
        return self


class LoadRow(_Row):
    """What comes of loading a model."""

    load: Literal["ok", "failed", "killed", "hang"]
    model: str | None = None
    """Last name of the model folder; none for all models."""


@dataclass(frozen=True)
class Table:
    """The rows of a table."""

    path: Path
    rows: tuple[tuple[int, TableRow], ...]
    """With the numbers of their lines."""
    loads: tuple[LoadRow, ...]
    sha256: str
    _by_id: Mapping[str, list[tuple[int, TableRow]]] = field(default_factory=dict)
    _others: Sequence[tuple[int, TableRow]] = ()

    @property
    def reads_prompts(self) -> bool:
        """Whether the text of a prompt decides which row fits."""
        return any(row.prompt or row.question for _, row in self._others)

    def fitting(self, agent: str, question: str, prompt: str) -> Iterator[tuple[int, TableRow]]:
        """The rows that fit a request, in order, with the numbers of their lines.

        Parameters
        ----------
        question:
            Id of the question.
        prompt:
            Text of the prompt; need not be known where :attr:`reads_prompts` says so.
        """
        squeezed = _WORDS.sub(" ", prompt)
        named = self._by_id.get(question, ())
        for number, row in heapq.merge(named, self._others, key=lambda numbered: numbered[0]):
            done = row.once is not None and self.place(row.once).exists()
            if not done and _fits(row, agent, question, prompt, squeezed):
                yield number, row

    def place(self, path: Path) -> Path:
        """A path of a row, relative to the folder of the table."""
        return self.path.parent / path


def _fits(row: TableRow, agent: str, question: str, prompt: str, squeezed: str) -> bool:
    if row.agent is not None and row.agent != agent:
        return False
    if row.prompt is not None and row.prompt not in prompt:
        return False
    return row.question is None or row.question == question or _occurs(row.question, squeezed)


def _occurs(question: str, prompt: str) -> bool:
    """Whether a prompt holds the text of a question, and not as a part of words: 1 + 4 is not in 11 + 4."""
    text = _WORDS.sub(" ", question).strip()
    start = prompt.find(text)
    while start >= 0:
        end = start + len(text)
        before, behind = prompt[max(0, start - 1) : start], prompt[end : end + 1]
        if not (before.isalnum() and text[:1].isalnum()) and not (behind.isalnum() and text[-1:].isalnum()):
            return True
        start = prompt.find(text, start + 1)
    return False


def read_table(path: Path) -> Table:
    """Read and check a table.

    Raises
    ------
    ConfigError
        Naming the file and the line.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        hint = "make it, an empty file will do: answers are then chosen by a hash of the prompt"
        message = f"the table of the fake engine cannot be read: {error.strerror}"
        raise ConfigError(message, where=str(path), hint=hint) from None
    except UnicodeDecodeError:
        raise ConfigError("the table of the fake engine is not UTF-8", where=str(path), hint=_HINT) from None
    rows: list[tuple[int, TableRow]] = []
    loads: list[LoadRow] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = _parsed(line, f"{path}:{number}")
            loads.append(row) if isinstance(row, LoadRow) else rows.append((number, row))
    return table_of(path, rows, loads, hashlib.sha256(content).hexdigest())


def table_of(
    path: Path, rows: Sequence[tuple[int, TableRow]], loads: Sequence[LoadRow], sha256: str
) -> Table:
    """A table whose rows that name a question by its id are found without looking at the others."""
    by_id: dict[str, list[tuple[int, TableRow]]] = {}
    others = []
    for number, row in rows:
        if row.question and _QUESTION_ID.fullmatch(row.question):
            by_id.setdefault(row.question, []).append((number, row))
        else:
            others.append((number, row))
    return Table(path, tuple(rows), tuple(loads), sha256, by_id, others)


def _parsed(line: str, where: str) -> TableRow | LoadRow:
    try:
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"the line has more than {_LONGEST_LINE:,} characters")
        values = json.loads(line)
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not JSON: {_said(error)}", where=where, hint=_HINT) from None
    if not isinstance(values, dict):
        raise ConfigError("is not a JSON object", where=where, hint=_HINT)
    values = _plain(values)
    return parse(LoadRow, values, where) if "load" in values else parse(TableRow, values, where)


def _said(error: BaseException) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:200]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values without nulls: a null is as good as none."""
    return {name: value for name, value in values.items() if value is not None}


def check_agents(table: Table, agents: Sequence[str]) -> None:
    """Refuse a row for an agent that there is not: it would be passed over without a word.

    Raises
    ------
    ConfigError
        Naming file, line and agent.
    """
    for number, row in table.rows:
        if row.agent is not None and row.agent not in agents:
            raise ConfigError(
                f"no agent of the run is named {row.agent!r}{nearest(row.agent, agents)}",
                where=f"{table.path}:{number}",
                hint=f"the run has {', '.join(agents)}",
            )
