"""Scores of the finished demo: each agent, the panel baselines, the merge model and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from .merging import Panel
from .rollout import accuracy_table, is_right
from .texts import SPECIALISTS, Reply


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float | int]:
    """Exact two-sided McNemar test of two methods on the same questions."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    total = only_first + only_second
    tail = sum(comb(total, k) for k in range(min(only_first, only_second) + 1))
    return {"only_first": only_first, "only_second": only_second, "p": min(1.0, 2 * tail / 2**total)}


def scores(panels: Sequence[Panel], merged: Sequence[Reply | None]) -> dict[str, object]:
    """Accuracy tables by method, and the merge model against each of the others."""
    asked = [panel.problem for panel in panels]
    right: dict[str, list[bool]] = {
        role: [is_right(panel.replies[index], panel.problem) for panel in panels]
        for index, role in enumerate(SPECIALISTS)
    }
    best_single = max(SPECIALISTS, key=lambda role: sum(right[role]))
    right["majority"] = [panel.majority == panel.problem.answer for panel in panels]
    right["loudest"] = [
        panel.loudest is not None and is_right(panel.replies[panel.loudest], panel.problem)
        for panel in panels
    ]
    right["merge"] = [is_right(reply, panel.problem) for reply, panel in zip(merged, panels, strict=True)]
    right["oracle"] = [any(is_right(r, panel.problem) for r in panel.replies) for panel in panels]
    return {
        "questions": len(panels),
        "chance": round(sum(1 / len(problem.choices) for problem in asked) / len(asked), 4),
        "best_single": best_single,
        "accuracy": {name: accuracy_table(values, asked) for name, values in right.items()},
        "mcnemar": {
            f"merge against {name}": mcnemar(right["merge"], right[name])
            for name in (best_single, "majority", "loudest")
        },
        "calibration": {
            **{
                role: calibration_table([panel.replies[index] for panel in panels], right[role])
                for index, role in enumerate(SPECIALISTS)
            },
            "merge": calibration_table(merged, right["merge"]),
        },
        "unusable": {
            **{
                role: sum(panel.replies[index] is None for panel in panels)
                for index, role in enumerate(SPECIALISTS)
            },
            "merge": sum(reply is None for reply in merged),
        },
    }


def calibration_table(replies: Sequence[Reply | None], right: Sequence[bool]) -> dict[str, dict[str, float]]:
    """For each fifth of the confidence scale: answers, their mean confidence and their accuracy."""
    table = {}
    for low in range(0, 100, 20):
        rows = [
            (reply.confidence, ok)
            for reply, ok in zip(replies, right, strict=True)
            if reply is not None and low <= reply.confidence < low + 20
        ]
        if rows:
            table[f"{low}-{low + 19}"] = {
                "answers": len(rows),
                "confidence": round(sum(confidence for confidence, _ in rows) / len(rows) / 100, 3),
                "accuracy": round(sum(ok for _, ok in rows) / len(rows), 3),
            }
    return table


def print_scores(title: str, result: dict[str, object]) -> None:
    """The scores as a small table."""
    print(f"\n{title}: {result['questions']} questions, chance {result['chance']}")
    accuracy = result["accuracy"]
    assert isinstance(accuracy, dict)
    columns = list(next(iter(accuracy.values())))
    print(" " * 9 + "".join(f"{column[:11]:>12}" for column in columns))
    for name, table in accuracy.items():
        print(f"{name:<9}" + "".join(f"{table[column]:>12.3f}" for column in columns))
    for name in ("mcnemar", "calibration", "unusable"):
        print(f"{name}: {result[name]}")
