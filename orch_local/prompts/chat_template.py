"""Chat templates: programs that come with a model, run where they can harm nothing.

Jinja2's sandbox keeps a template from reaching Python, but not from computing for a year or filling the
memory. So it is rendered in a child process (`confined.py`), which lives as long as this one: a rendering
costs a tenth of a second the first time and a millisecond from then on.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from orch_local.errors import PromptError
from orch_local.prompts.confined import Child, ChildKind, KilledError, LimitError, RefusedError
from orch_local.prompts.template import Message

PINNED_DATE = datetime(2024, 7, 26)
"""What a chat template that prints today's date gets, so that a prompt does not change overnight."""

SECONDS = 5.0
MEMORY_BYTES = 512 * 2**20
CHARACTERS = 4_000_000
"""Most that a template may write; the prompts of ours that it frames have some thousands."""

_KIND = ChildKind("template", ("jinja2", "markupsafe"), MEMORY_BYTES, SECONDS)
_ALIVE = 8
_OURS = ("messages", "add_generation_prompt")
_GIVEN = frozenset((*_OURS, "strftime_now"))


class Reading(NamedTuple):
    """What a template takes from outside, by its syntax tree; see `template_reading.py`."""

    names: frozenset[str]
    """All variables that it looks up."""
    options: frozenset[str]
    """Those of them that are for the user to set."""
    called: Mapping[str, str]
    """Those of them that it calls, and how it writes that."""
    parts: bool
    """Whether it loops over the content of a message."""


class _Renderer:
    """Renders one template; once it went beyond a limit, it is tried no more."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._child: Child | None = None
        self._verdict = ""
        self._reading: Reading | None = None

    def render(self, values: Mapping[str, Any]) -> str:
        return self._ask({"values": dict(values), "characters": CHARACTERS, "date": PINNED_DATE.isoformat()})

    def reading(self) -> Reading:
        if self._reading is None:
            found = json.loads(self._ask({"read": True}))
            names, options = (frozenset(found[key]) - _GIVEN for key in ("names", "options"))
            self._reading = Reading(names, options, dict(found["called"]), bool(found["parts"]))
        return self._reading

    def _ask(self, job: Mapping[str, Any]) -> str:
        if self._verdict:
            raise LimitError(self._verdict)
        self._child = self._child or Child(_KIND)
        try:
            return self._child.ask({"template": self._template, **job})
        except LimitError as error:
            self._verdict = "" if isinstance(error, KilledError) else str(error)
            self.close()
            raise

    def close(self) -> None:
        if self._child:
            self._child.close()
        self._child = None


_renderers: dict[str, _Renderer] = {}
_lock = threading.Lock()


def render_chat(
    template: str,
    messages: Sequence[Message],
    names: Mapping[str, str],
    options: Mapping[str, Any],
    *,
    parts: bool = False,
) -> str:
    """The messages as the template writes them, with the turn of the assistant opened at the end.

    Parameters
    ----------
    names:
        Texts of the tokenizer's tokens, e.g. ``bos_token``.
    options:
        Further variables of the template, from the model config; they win over ``names``.
    parts:
        Give the content of a message as a list with one part of the type ``text``, not as a text.

    Raises
    ------
    PromptError
        If the template refuses the messages, is no Jinja2, or needs more time, memory or room than a chat
        template has any use for.
    """
    taken = [name for name in _OURS if name in options]
    if taken:
        raise PromptError(
            f"`{taken[0]}` is no option of a chat template", hint="take it out of `chat_template_kwargs`"
        )
    values = {
        "tools": None,
        "documents": None,
        **names,
        **options,
        "messages": [_turn(message, parts=parts) for message in messages],
        "add_generation_prompt": True,
    }
    try:
        return _renderer_of(template).render(values)
    except LimitError as error:
        raise _beyond(error) from None
    except RefusedError as error:
        raise _failure(error, template, messages) from None


def read_template(template: str) -> Reading:
    """What a template takes from outside.

    Raises
    ------
    PromptError
        If it is no Jinja2, or reading it needs more time or memory than a chat template has any use for.
    """
    try:
        return _renderer_of(template).reading()
    except LimitError as error:
        raise _beyond(error) from None
    except RefusedError as error:
        raise _failure(error, template, ()) from None


def _turn(message: Message, *, parts: bool) -> dict[str, Any]:
    content = [{"type": "text", "text": message.content}] if parts else message.content
    return {"role": message.role, "content": content}


def _beyond(error: LimitError) -> PromptError:
    return PromptError(
        f"the chat template {error}",
        hint="no honest template does that: fetch the model's folder again, or put a "
        "`chat_template.jinja` that you trust into it",
    )


def _failure(error: RefusedError, template: str, messages: Sequence[Message]) -> PromptError:
    message = f"the chat template fails: {error.message}"
    return PromptError(message, hint=_cause(error, template, messages))


_REPLACE = "put a `chat_template.jinja` without it into the model's folder"
_CAUSES = {
    "TemplateSyntaxError": "it is not valid Jinja2: fetch the model's folder again",
    "TemplateAssertionError": f"it uses a filter or a test that Jinja2 does not have: {_REPLACE}",
    "SecurityError": f"it reaches for Python itself, which no honest template does: {_REPLACE}",
    "OverflowError": f"it computes with more than the sandbox of Jinja2 allows: {_REPLACE}",
}
"""By class of the exception: what is wrong with the template, and the next step."""


def _cause(error: RefusedError, template: str, messages: Sequence[Message]) -> str:
    """Why a template failed, and what to do about it."""
    roles = ", ".join(message.role for message in messages)
    if error.kind in _CAUSES:
        return _CAUSES[error.kind]
    if error.kind == "TemplateError":
        options = ", ".join(sorted(read_template(template).options))
        message = f"these are the template's own words about a chat of the turns {roles}"
        return f"{message}; the options that it reads are {options}" if options else message
    missing = re.fullmatch(r"'(\w+)' is undefined", error.message) if error.kind == "UndefinedError" else None
    if missing is None:
        message = f"it is an error of the template itself, met with the turns {roles}"
        return f"{message}: put a `chat_template.jinja` for plain chats into the model's folder"
    call = read_template(template).called.get(missing[1])
    if call:
        return (
            f"it calls {call}, and the functions that orch-local gives to a template are `strftime_now` (a "
            f"pinned date) and `raise_exception`: {_REPLACE}"
        )
    return (
        f"it needs a variable `{missing[1]}` that nothing sets: give it in `chat_template_kwargs` of the "
        f"model config, or {_REPLACE}"
    )


def _renderer_of(template: str) -> _Renderer:
    with _lock:
        if template not in _renderers and len(_renderers) >= _ALIVE:
            _renderers.pop(next(iter(_renderers))).close()
        return _renderers.setdefault(template, _Renderer(template))
