"""The built-in prompts as files. `python tests/support/golden_prompts.py` writes them; read the difference.

Each shows the chat turns of one template for one kind of question, with the data in place.
"""

from __future__ import annotations

from collections.abc import Iterator

from paths import TESTS

from orch_local.config.blocks import AnswerConfig, MergeConfig
from orch_local.merge.merging import Panel, merge_task
from orch_local.prompts.tasks import Task, analysis_task
from orch_local.prompts.template import builtin_names, builtin_text, fill, parse_template
from orch_local.records import Analysis, Example, Outcome, Question

FOLDER = TESTS / "golden" / "prompts"

CHOICE = Question(
    "0" * 16,
    "A kettle is taken off the stove.\nWhat happens to the water in it?",
    ("It cools.", "It boils longer.", "It turns to ice at once.", "Nothing."),
    "A",
    "physics",
)
NUMBER = Question(
    "1" * 16,
    "A crate holds 12 bottles. How many bottles are in 300 crates?",
    (),
    "3600",
    "all",
)
SOLVED_CHOICE = (
    Example("Which is a metal?", ("wood", "iron", "glass"), "B", "Iron conducts; wood and glass do not."),
    Example("Which is a gas?", ("air", "sand"), "A", "Air fills any room."),
)
SOLVED_NUMBER = (
    Example("Ann has 3 pens and buys 4. How many has she?", (), "7", "3 + 4 = 7.\nShe has 7 pens."),
)
PANEL = Panel(
    ("one", "two", "three"),
    (
        Analysis("k", Outcome.OK, answer="A", reasoning='Heat leaves "slowly".', confidence=90),
        Analysis("k", Outcome.OK, answer="B", reasoning="It is hot.", eliminated=("C", "D"), confidence=60),
        Analysis("k", Outcome.INVALID),
    ),
)
NUMBERS = Panel(
    ("one", "two"),
    (
        Analysis("k", Outcome.OK, answer="3600", reasoning="12 * 300 = 3,600.", confidence=99),
        Analysis("k", Outcome.OK, answer="312", reasoning="12 + 300 = 312.", confidence=50),
    ),
)
DIRECT = AnswerConfig(reasoning_chars=0, eliminated=False, confidence=False)


def prompts() -> Iterator[tuple[str, str]]:
    """The name of each file and its text."""
    for name in builtin_names():
        for kind, question, solved in (("choice", CHOICE, SOLVED_CHOICE), ("number", NUMBER, SOLVED_NUMBER)):
            if name == "merge":
                panel = PANEL if question.choices else NUMBERS
                yield f"merge-{kind}", _shown(name, merge_task(question, panel, MergeConfig(model="m")))
                continue
            answer = DIRECT if name == "direct" else AnswerConfig(eliminated=name == "eliminate")
            yield f"{name}-{kind}", _shown(name, analysis_task(question, answer))
            with_examples = _with(question, solved)
            yield f"{name}-{kind}-few-shot", _shown(name, analysis_task(with_examples, answer))
            if name == "solve":
                unsolved = tuple(Example(one.text, one.choices, one.answer) for one in solved)
                bare = analysis_task(_with(question, unsolved), answer)
                yield f"{name}-{kind}-few-shot-without-solutions", _shown(name, bare)


def _with(question: Question, examples: tuple[Example, ...]) -> Question:
    return Question(question.id, question.text, question.choices, None, "", {}, examples)


def _shown(name: str, task: Task) -> str:
    messages = parse_template(builtin_text(name), name).messages(task.schema, frozenset(task.data))
    turns = (f"<{one.role}>\n{''.join(fill(one.content, task.data))}\n" for one in messages)
    return "\n".join(turns)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for file, text in prompts():
        (FOLDER / f"{file}.txt").write_text(text, encoding="utf-8")
