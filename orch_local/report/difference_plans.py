"""The difference between two plans on the terminal, field by field."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from orch_local.audit.difference import (
    PlanChange,
    PlanDifference,
)
from orch_local.report.safe import safe

MAX_CHANGES = 30
MAX_TEXT_LINES = 16
MAX_VALUE = 60
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_DIGEST_SHOWN = 12


def print_plans(console: Console, plans: PlanDifference) -> None:
    lines = [*_changed_lines(plans), *_agent_lines(plans)]
    if not lines:
        return
    console.print(Text("Plans (A -> B)", "bold"))
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 2), expand=False), overflow="fold")
    console.print()


def _changed_lines(plans: PlanDifference) -> Iterator[Text]:
    for changed in plans.changed[:MAX_CHANGES]:
        yield from _change_lines(changed, _whose(changed, plans))
    if len(plans.changed) > MAX_CHANGES:
        yield Text(f"... and {len(plans.changed) - MAX_CHANGES:,} more; the two run.json hold them", "dim")


def _whose(changed: PlanChange, plans: PlanDifference) -> str:
    if not changed.agents:
        return ""
    if len(changed.agents) == plans.workers > 1:
        return "all agents: "
    return f"{', '.join(changed.agents)}: "


def _change_lines(changed: PlanChange, whose: str) -> Iterator[Text]:
    name, before, after = changed.change
    head = Text.assemble(safe(whose, "dim"), safe(name))
    if not (isinstance(before, str) and isinstance(after, str) and "\n" in before + after):
        yield head.append_text(Text.assemble(": ", safe(_value(before)), " -> ", safe(_value(after))))
        return
    lines = _text_lines(before, after)
    yield head.append(":" if lines else ": differs in white space only")
    for line in lines[:MAX_TEXT_LINES]:
        yield Text("  ").append_text(safe(line, "red" if line.startswith("-") else "green"))
    if len(lines) > MAX_TEXT_LINES:
        yield Text(f"  ... and {len(lines) - MAX_TEXT_LINES:,} more lines", "dim")


def _text_lines(before: str, after: str) -> list[str]:
    """The lines that differ, behind ``-`` and ``+``, in the order of a unified diff."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in list(lines)[2:] if not line.startswith("@@")]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _DIGEST.fullmatch(text):
        return text[:_DIGEST_SHOWN]
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _agent_lines(plans: PlanDifference) -> Iterator[Text]:
    renamed = [match for match in plans.matches if match.a != match.b]
    for match in renamed:
        yield Text.assemble("agent ", safe(match.a), " -> ", safe(match.b), ", matched by position")
    for run, names in (("A", plans.only_a), ("B", plans.only_b)):
        if names:
            yield Text.assemble(f"only in {run}: ", safe(", ".join(names)))
    if not plans.same_order:
        yield Text("the agents come in a different order, which decides ties and enters the digest")
