"""Prompt templates: text files with a ``[system]`` (optional) and a ``[user]`` section, in Jinja2.

What a template may use:

=================== ======================================================================
``question``         the text of the question (data)
``choices``          the choices, one ``A) text`` a line; empty for a numeric question (data)
``examples``         solved questions (few-shot) as text; empty where they are chat turns (data)
``panel``            the analyses, one JSON object a line; merge templates only (data)
``answer_form``      the keys of the JSON to reply with, each described in words
``labels``           the labels that may be answered, e.g. ``A, B, C or D``
``numeric``          true for a numeric question
``reasoning_words``  how many words to ask for, so that ``reasoning`` stays below its bound
``reasoning_chars``  that bound, in characters; 0 where the answer has no ``reasoning``
=================== ======================================================================

Solved examples become chat turns of their own, user and assistant, in the form that is asked for. They stand
as text in the user turn where the dataset has no worked solution to show as ``reasoning``, or where the chat
template refuses further turns.

Data never passes through Jinja2: a template is rendered with a marker in its place, the chat template is
applied to that, and only then is the text put where its marker stands. So data can neither be executed as
a template nor be mistaken for a part of one. See :mod:`orch_local.prompts.data` for what keeps data
apart from other parts of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from orch_local.config.answers import AnswerSchema
from orch_local.errors import PromptError
from orch_local.prompts.answer_forms import answer_form, reasoning_words
from orch_local.prompts.data import Data

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_MARKER = re.compile(f"{_OPEN}([a-z0-9.]+){_CLOSE}")
_EXAMPLE = re.compile(r"example([0-9]+)\.(?:question|choices|reply|answer)")
"""Names of the data of solved examples. A ``reply`` is in the form of the answer, an ``answer`` is not."""
_SECTION = re.compile(r"^\[(system|user)\][ \t]*$", re.MULTILINE)


class Message(NamedTuple):
    """One chat turn; its content still holds markers where data belongs."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template file."""

    text: str
    """The file as read; it enters the spec."""
    system: str
    user: str
    where: str = "the template"
    """What error messages call it."""

    def messages(self, schema: AnswerSchema, present: frozenset[str], *, turns: bool = True) -> list[Message]:
        """Chat messages with markers for the data named in ``present``; other data is empty.

        With ``turns`` solved examples are turns of their own, where they are in the form of the answer.

        Raises
        ------
        PromptError
            If the template uses a name that does not exist, leaves out data that is there, or is not
            valid Jinja2.
        """
        examples = _examples_of(present)
        in_turns = examples if turns and "example1.reply" in present else []
        values = self._values(schema, present, "" if in_turns else _examples_text(examples))
        messages = [Message("system", system)] if (system := _render(self.system, values, self.where)) else []
        for names in in_turns:
            asked = values | {"choices": "", **{name.split(".")[1]: _marker(name) for name in names}}
            messages.append(Message("user", _render(self.user, asked, self.where)))
            messages.append(Message("assistant", _marker(names[-1])))
        messages.append(Message("user", _render(self.user, values, self.where)))
        self._check_used(messages, present)
        return messages

    def _values(self, schema: AnswerSchema, present: frozenset[str], examples: str) -> dict[str, object]:
        """What the template may use, with markers in the place of data."""
        names = ("question", "choices", "panel")
        values: dict[str, object] = {name: _marker(name) if name in present else "" for name in names}
        if "panel" not in present:
            del values["panel"]  # no agent reads a panel: a template that asks for one is the wrong template
        return values | {
            "examples": examples,
            "numeric": not schema.labels,
            "labels": _spoken(schema.candidates or schema.labels),
            "reasoning_chars": schema.config.reasoning_chars,
            "reasoning_words": reasoning_words(schema),
            "answer_form": answer_form(schema),
        }

    def _check_used(self, messages: Sequence[Message], present: frozenset[str]) -> None:
        written = "".join(message.content for message in messages if message.role != "system")
        for name in sorted(present):
            if _marker(name) not in written:
                variable = "examples" if _EXAMPLE.fullmatch(name) else name
                raise PromptError(
                    f"the [user] section does not use {{{{ {variable} }}}}, so the model would not see it",
                    where=self.where,
                    hint=f"put {{{{ {variable} }}}} where it belongs",
                )


def check_kept(chat: str, present: Collection[str], where: str) -> None:
    """Refuse what a chat template made of the messages if data has lost its place in it.

    Raises
    ------
    PromptError
        If the place of data named in ``present`` is not there any more, or that of other data is.
    """
    places = {match[0] for match in _MARKER.finditer(chat)}
    hint = "fetch the model's folder again, or put a `chat_template.jinja` that you trust into it"
    for name in sorted(present):
        if _marker(name) not in places:
            message = f"the chat template loses the {name.partition('.')[0]}, so the model would not see it"
            raise PromptError(message, where=where, hint=hint)
    if len(places) > len(present):
        message = "the chat template writes private-use characters U+E0F0 and U+E0F1"
        raise PromptError(message, where=where, hint=hint)


def parse_template(text: str, where: str) -> Template:
    """Split a template into its sections.

    Raises
    ------
    PromptError
        If there is no ``[user]`` section, a section occurs twice, or the Jinja2 is not valid.
    """
    parts = _SECTION.split(text.replace("\r\n", "\n"))
    names, bodies = parts[1::2], parts[2::2]
    if _OPEN in text or _CLOSE in text:
        raise PromptError("holds a private-use character U+E0F0 or U+E0F1", where=where)
    if parts[0].strip() or "user" not in names or len(set(names)) != len(names):
        raise PromptError(
            "is not a prompt template: it needs one [user] line, optionally after one [system] section",
            where=where,
            hint="copy one of the built-in templates: `orch-local models --prompts DIR` writes them",
        )
    sections = dict(zip(names, (body.strip("\n") for body in bodies), strict=True))
    template = Template(text, sections.get("system", ""), sections["user"], where)
    for name, body in sections.items():
        _compile(body, f"{where}, section [{name}]")
    return template


def load_template(path: Path) -> Template:
    """Read a template file of the user's.

    Raises
    ------
    PromptError
        If it cannot be read or is not a template.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot be read: {error}", where=str(path), hint="check `prompt:`") from None
    return parse_template(text, str(path))


def builtin_names() -> list[str]:
    """Names of the built-in templates."""
    folder = resources.files(__package__)
    return sorted(
        entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")
    )


def builtin_text(name: str) -> str:
    """Text of a built-in template, e.g. ``solve``."""
    return resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def fill(text: str, data: Mapping[str, Data]) -> list[str]:
    """Cut ``text`` at its markers: trusted pieces as ``str``, the data between them as ``Data``."""
    pieces: list[str] = []
    for index, part in enumerate(_MARKER.split(text)):
        piece = data.get(part, Data("")) if index % 2 else part
        if piece:
            pieces.append(piece)
    return pieces


def _examples_of(present: frozenset[str]) -> list[list[str]]:
    """The names of each example that is present, in the order question, choices, reply or answer."""
    found: dict[int, list[str]] = {}
    for name in present:
        if match := _EXAMPLE.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    order = ("question", "choices", "reply", "answer")
    return [
        sorted(found[number], key=lambda name: order.index(name.split(".")[1])) for number in sorted(found)
    ]


def _examples_text(examples: Sequence[Sequence[str]]) -> str:
    return "\n\n".join(_example_text([_marker(name) for name in names]) for names in examples)


def _example_text(markers: Sequence[str]) -> str:
    *question, answer = markers
    return "\n".join(["Question:", *question, f"Answer: {answer}"])


def _marker(name: str) -> str:
    return f"{_OPEN}{name}{_CLOSE}"


def _spoken(labels: Sequence[str]) -> str:
    *head, last = labels or ("",)
    return f"{', '.join(head)} or {last}" if head else last


# Trailing newlines count in a prompt, so they are kept; block tags leave no empty lines behind.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


@cache
def _compile(source: str, where: str) -> jinja2.Template:
    try:
        return _ENVIRONMENT.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(
            f"is not valid Jinja2 in line {error.lineno}: {error.message}",
            where=where,
            hint="lines are counted from the first one of the section that is not empty",
        ) from None


def _render(source: str, values: Mapping[str, object], where: str) -> str:
    try:
        return _compile(source, where).render(values).strip("\n")
    except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
        raise PromptError(
            f"the prompt template fails: {error}",
            where=where,
            hint=f"a template may use {', '.join(sorted(values))}",
        ) from None
