"""Data of prompts: questions, choices and solved examples as text that cannot be taken for our own.

A line break inside a question, a choice or an example is followed by three spaces, so no line of data but its
first begins where our own lines begin. A question that goes on with ``Analyses of the panel ...`` is read as
what it is, a question; see :func:`continued`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from orch_local.config.answers import AnswerSchema
from orch_local.records import LABELS, Example, Question

_BREAKS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
"""What `str.splitlines` takes for the end of a line."""
_UNESCAPED_BREAKS = "\x85\u2028\u2029"
"""Those of them that JSON does not escape."""
_LINE_BREAK = re.compile(f"(?:\r\n|[{_BREAKS}])(?![{_BREAKS}]|$)")
INDENT = "   "


class Data(str):
    """Text from a dataset or a model. It is encoded as plain text, whatever it looks like."""

    __slots__ = ()


def question_data(question: Question) -> dict[str, Data]:
    """Question and choices by template name; empty ones are left out."""
    values = {"question": continued(question.text), "choices": _choice_lines(question.choices)}
    return {name: Data(text) for name, text in values.items() if text}


def example_data(examples: Sequence[Example], schema: AnswerSchema) -> dict[str, Data]:
    """Solved examples by name: all in the form of the answer, or none.

    They are in the form only where each has a worked solution, or the form asks for no reasoning: a model
    imitates an empty ``reasoning``.
    """
    in_form = not schema.config.reasoning_chars or all(example.rationale for example in examples)
    data: dict[str, Data] = {}
    for number, example in enumerate(examples, start=1):
        data[f"example{number}.question"] = Data(continued(example.text))
        if example.choices:
            data[f"example{number}.choices"] = Data(_choice_lines(example.choices))
        if in_form:
            data[f"example{number}.reply"] = Data(_reply(example, schema))
        else:
            data[f"example{number}.answer"] = Data(example.answer)
    return data


def continued(text: str) -> str:
    """The text with its lines, from the second on, indented; empty ones stay empty.

    So the text between two parts of a prompt is distinguished from them without a mark of its own: a text
    ends before the first line that is neither empty nor indented, and taking the indentation away gives the
    text back.
    """
    return _LINE_BREAK.sub(rf"\g<0>{INDENT}", text)


def one_line_json(entry: Mapping[str, object]) -> str:
    """Compact JSON in the order of its keys, without any character that ends a line."""
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    for line_break in _UNESCAPED_BREAKS:
        text = text.replace(line_break, f"\\u{ord(line_break):04x}")
    return text


def _reply(example: Example, schema: AnswerSchema) -> str:
    """What would be the right reply to a solved example."""
    labels = LABELS[: len(example.choices)]
    fields: dict[str, object] = {
        "reasoning": _within(example.rationale, schema.config.reasoning_chars),
        "answer": example.answer,
        "eliminated": [label for label in labels if label != example.answer],
        "confidence": 100,
    }
    return one_line_json({name: fields[name] for name in schema.fields})


def _within(text: str, bound: int) -> str:
    """The text, or as many of its words as the bound allows."""
    if len(text) <= bound:
        return text
    words = text[: max(0, bound - len("..."))].rsplit(maxsplit=1)
    return f"{words[0]}..." if words else text[:bound].strip()


def _choice_lines(choices: Sequence[str]) -> str:
    return "\n".join(f"{label}) {continued(text)}" for label, text in zip(LABELS, choices, strict=False))
