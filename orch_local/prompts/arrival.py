"""Does what a chat template is given arrive in the prompt? Checked with probe texts before a model is loaded.

A template can drop the system turn, ignore an option, or end the prompt inside a thought, and it says nothing
about it: the run would only score worse. Here such a template becomes an error, or a decision that the plan
shows to the user.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from orch_local.config.model_configs import ModelConfig
from orch_local.errors import ConfigError, PromptError
from orch_local.prompts.template import Message
from orch_local.prompts.thoughts import (
    HARMONY_PREFIX,
    Tags,
    closed_thought,
    ends_in_header,
    known_tags,
    lead,
    open_thought,
    tag_of,
)
from orch_local.prompts.tokenizer import PromptTokenizer

_SYSTEM = "This is the probe of a system turn."
_USER = "This is the probe of a user turn."
_SWITCH = re.compile(r"(?!.*(budget|effort)).*(think|reason)")
"""Names of options that may switch thoughts on and off; budgets and efforts are no switches."""
_OPTION_KEYS = ("chat_template_kwargs", "thinking_template_kwargs")
_HARMONY_TOKEN = "<|channel|>"

Options = Mapping[str, Any]


class Arrival(NamedTuple):
    """How an agent's prompt is put into the chat template of its model."""

    system_role: bool
    """Whether the system text has a turn of its own; else it begins the user turn."""
    tags: Tags | None
    """The tags of the agent's thought; ``None`` where it does not think."""
    notes: tuple[str, ...]
    """What was decided here, and what the user may want to change, in words."""


class ChatNeeds(NamedTuple):
    """What an agent asks of the chat template."""

    thinking: bool
    system: bool
    """Whether its prompt has a system text."""
    shipped: bool
    """Whether the model config came with orch-local, so that its options are not the user's own words."""


def arrive(tokenizer: PromptTokenizer, model: ModelConfig, asked: ChatNeeds) -> Arrival:
    """Decide what a model config leaves open, and refuse what would not arrive.

    Raises
    ------
    ConfigError
        If an option is not read by the template, or an agent thinks and its tags are not known.
    PromptError
        If the template fails, leaves the system text out although the config says that it takes it, or ends
        the prompt inside a thought (or a channel) of an agent that does not think, or behind one of an agent
        that does.
    """
    notes = check_options(tokenizer, model, shipped=asked.shipped)
    options = model.template_options(thinking=asked.thinking)
    system_role, note = True, ""
    if asked.system:
        system_role, note = system_turn(tokenizer, options, model.system_role)
    probe = _Probe(tokenizer, options, system=asked.system and system_role)
    if asked.thinking:
        tags, end_note = _thinks(probe, model)
    else:
        tags, end_note = None, _check_end(probe, model)
    return Arrival(system_role, tags, tuple(filter(None, (*notes, note, end_note))))


def check_options(tokenizer: PromptTokenizer, model: ModelConfig, *, shipped: bool = False) -> list[str]:
    """Refuse options that the chat template does not read: they would have no effect.

    Those of a shipped config become notes: it was written for the hub's copy of the model, which is another
    one than the user's then.

    Raises
    ------
    ConfigError
        Naming the key and the nearest one that the template reads.
    PromptError
        If the template is no Jinja2.
    """
    notes = []
    for key in _OPTION_KEYS:
        for name in getattr(model, key):
            if name in tokenizer.reading.names:
                continue
            message = f"the chat template does not read `{name}`, which `{key}` of {model.name!r} sets"
            if not shipped:
                raise ConfigError(message, where=str(tokenizer.folder), hint=_nearest(name, tokenizer))
            notes.append(f"{message}: is this the model that the config is made for?")
    return notes


def _nearest(name: str, tokenizer: PromptTokenizer) -> str:
    options = sorted(tokenizer.reading.options - {"tools", "documents"})
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean `{close[0]}`?"
    listed = f"it reads {', '.join(options)}" if options else "it reads no options"
    return f"{listed}: take `{name}` out of the model config"


def system_turn(tokenizer: PromptTokenizer, options: Options, stated: bool | None) -> tuple[bool, str]:
    """Whether the system text gets a turn of its own, and a note where the template decided that.

    Raises
    ------
    PromptError
        If the template takes no system turn and ``stated`` says that it does, or takes no user turn either.
    """
    if stated is False:
        return False, ""
    try:
        chat = tokenizer.chat([Message("system", _SYSTEM), Message("user", _USER)], options)
        problem = "" if _SYSTEM in chat else "leaves the text of the system turn out"
    except PromptError as error:
        # Whatever it is, it is not the system turn if the user turn alone fails, too.
        tokenizer.chat([Message("user", _USER)], options)
        problem = f"refuses a system turn ({error.message.removeprefix('the chat template fails: ')})"
    if not problem:
        return True, ""
    if stated:
        raise PromptError(
            f"the chat template {problem}, but the model config has `system_role: true`",
            where=str(tokenizer.folder),
            hint="take `system_role: true` out: the system text then begins the user turn",
        )
    return False, f"the chat template {problem}, so the system text begins the user turn"


class _Probe:
    """The end of a prompt with these options."""

    def __init__(self, tokenizer: PromptTokenizer, options: Options, *, system: bool) -> None:
        self.tokenizer = tokenizer
        self._options = dict(options)
        self._messages = [Message("system", _SYSTEM)] * system + [Message("user", _USER)]
        self.lead = self._lead(self._options)

    @property
    def where(self) -> str:
        """What error messages name."""
        return str(self.tokenizer.folder)

    @property
    def controls(self) -> list[str]:
        """Texts of the control tokens."""
        return [token.content for token in self.tokenizer.controls.values()]

    def _lead(self, options: Options) -> str:
        return lead(self.tokenizer.chat(self._messages, options), _USER)

    def switch(self, fits: Callable[[str], bool], value: bool) -> str:
        """An option of the template that makes the end fit if set to ``value``, as YAML; or empty."""
        for name in sorted(filter(_SWITCH.match, self.tokenizer.reading.options)):
            try:
                if fits(self._lead({**self._options, name: value})):
                    return f"{{{name}: {str(value).lower()}}}"
            except PromptError:
                continue
        return ""


def _check_end(probe: _Probe, model: ModelConfig) -> str:
    """Refuse a prompt that ends where no answer belongs; returns a note on a switch that is not set."""
    own, prefix = own_tags(model), model.answer_prefix
    end = probe.lead + prefix
    tags = open_thought(end, own)
    if tags is not None:
        switch = probe.switch(lambda lead: open_thought(lead + prefix, own) is None, False)
        raise thought_left_open(tags, model, probe.where, switch)
    if _HARMONY_TOKEN in probe.controls and ends_in_header(end):
        raise PromptError(
            "the prompt ends before the channel of the answer is chosen: this model first writes "
            f"{_HARMONY_TOKEN} and a name, and an answer without it is outside of its format",
            where=probe.where,
            hint=_set(model, f"answer_prefix: {json.dumps(HARMONY_PREFIX)}"),
        )
    if known_tags(end):
        return ""
    switch = probe.switch(lambda lead: known_tags(lead) is not None and open_thought(lead) is None, False)
    # No path in it: notes are part of the manifest of a run, which may be shown to anybody.
    setting = f"`chat_template_kwargs: {switch}` in a model config"
    return (
        f"the chat template writes an empty thought before the answer only with {setting}" if switch else ""
    )


def thought_left_open(tags: Tags, model: ModelConfig, where: str, switch: str = "") -> PromptError:
    """The error of a prompt that ends in a thought although the agent does not think.

    ``switch`` is an option of the template that ends it, as YAML.
    """
    prefix = f"answer_prefix: {json.dumps(tags.close, ensure_ascii=False)}"
    ways = ["let it think (`thinking: true`)"]
    ways += [_set(model, f"chat_template_kwargs: {switch}")] if switch else []
    ways += [f"to close the thought, {_set(model, prefix)}"]
    return PromptError(
        f"the chat template of {model.name!r} opens a thought ({tags.open.strip()}), but the agent does not "
        "think: its answer would be inside of that thought",
        where=where,
        hint=", or ".join(ways),
    )


def _set(model: ModelConfig, setting: str) -> str:
    """How to write a setting of a model down; where it has no config, a whole one to paste into a file."""
    if model != ModelConfig(name=model.name, hub_id=model.hub_id, path=model.path):
        return f"set `{setting}` in the model config"
    path = json.dumps(str(model.path), ensure_ascii=False)
    whole = f"{{name: {model.name}, path: {path}, {setting}}}"
    return f"write `{whole}` into a file NAME.yaml and give that as the model of the agent"


def own_tags(model: ModelConfig) -> Tags | None:
    """The tags that a model config names; ``None`` where it names none.

    Raises
    ------
    ConfigError
        If it names one of the two, or nothing but white space.
    """
    if not model.think_open and not model.think_close:
        return None
    opening, close = model.think_open or "", model.think_close or ""
    if not opening.strip() or not close.strip():
        raise ConfigError(
            f"model {model.name!r} has no thinking tags: `think_open` and `think_close` go together",
            hint="set both, as the model itself writes them",
        )
    return Tags(opening, tag_of(close), close)


def _thinks(probe: _Probe, model: ModelConfig) -> tuple[Tags, str]:
    """The tags of an agent that thinks, and a note where they are not those of a model config."""
    own = own_tags(model)
    tags = own or _found_tags(probe, model)
    if closed_thought(probe.lead, tags):
        switch = probe.switch(lambda lead: not closed_thought(lead, tags), True)
        setting = _set(model, f"thinking_template_kwargs: {switch}")
        raise PromptError(
            f"the chat template of {model.name!r} ends the thought before it begins ({tags.end}), but the "
            "agent has `thinking: true`",
            where=probe.where,
            hint=setting if switch else "set in `thinking_template_kwargs` what lets this template think",
        )
    found = f"the thought stands between {tags.open.strip()} and {tags.end}, as the model's own files have it"
    return tags, "" if own else found


def _found_tags(probe: _Probe, model: ModelConfig) -> Tags:
    """The tags in which the prompt ends, or which chat template and vocabulary show."""
    shown = "\n".join([probe.tokenizer.chat_template, *probe.controls])
    tags = open_thought(probe.lead) or known_tags(shown)
    if tags is None:
        raise ConfigError(
            f"the agent has `thinking: true`, but model {model.name!r} has no thinking tags: neither its "
            "config nor its chat template and control tokens have any",
            where=probe.where,
            hint="set `think_open` and `think_close` in the model config, or choose a reasoning model",
        )
    return tags
