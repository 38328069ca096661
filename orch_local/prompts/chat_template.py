"""Chat templates: programs that come with a model, run where they can harm nothing.

Jinja2's sandbox keeps a template from reaching Python, but not from computing for a year or filling the
memory. So it is rendered in a child process (`confined.py`), which lives as long as this one: a rendering
costs a tenth of a second the first time and a millisecond from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orch_local.errors import PromptError
from orch_local.prompts.confined import Child, KilledError, Kind, LimitError
from orch_local.prompts.template import Message

PINNED_DATE = datetime(2024, 7, 26)
"""What a chat template that prints today's date gets, so that a prompt does not change overnight."""

SECONDS = 5.0
MEMORY_BYTES = 512 * 2**20
CHARACTERS = 4_000_000
"""Most that a template may write; the prompts of ours that it frames have some thousands."""

_KIND = Kind("template", ("jinja2", "markupsafe"), MEMORY_BYTES, SECONDS)
_ALIVE = 8
_OURS = ("messages", "add_generation_prompt")


class _Renderer:
    """Renders one template; once it went beyond a limit, it is tried no more."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._child: Child | None = None
        self._verdict = ""

    def render(self, values: Mapping[str, Any]) -> str:
        if self._verdict:
            raise LimitError(self._verdict)
        self._child = self._child or Child(_KIND)
        job = {"template": self._template, "values": dict(values), "characters": CHARACTERS}
        try:
            return self._child.ask({**job, "date": PINNED_DATE.isoformat()})
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
    template: str, messages: Sequence[Message], names: Mapping[str, str], options: Mapping[str, Any]
) -> str:
    """The messages as the template writes them, with the turn of the assistant opened at the end.

    Parameters
    ----------
    names:
        Texts of the tokenizer's tokens, e.g. ``bos_token``.
    options:
        Further variables of the template, from the model config; they win over ``names``.

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
        "messages": [message._asdict() for message in messages],
        "add_generation_prompt": True,
    }
    try:
        return _renderer_of(template).render(values)
    except LimitError as error:
        raise PromptError(
            f"the chat template {error}",
            hint="no honest template does that: fetch the model's folder again, or put a "
            "`chat_template.jinja` that you trust into it",
        ) from None
    except PromptError as error:
        raise PromptError(
            f"the chat template fails: {error.message}",
            hint="`system_role: false` in the model config puts the system text into the user turn",
        ) from None


def _renderer_of(template: str) -> _Renderer:
    with _lock:
        if template not in _renderers and len(_renderers) >= _ALIVE:
            _renderers.pop(next(iter(_renderers))).close()
        return _renderers.setdefault(template, _Renderer(template))
