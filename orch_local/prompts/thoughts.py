"""Thoughts of reasoning models in a prompt: the tags around them, and whether a prompt ends inside of one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TAIL = 60


class Tags(NamedTuple):
    """What stands around a thought."""

    open: str
    end: str
    """The tag that ends it."""
    close: str
    """All that stands between the thought and the answer, as ``think_close`` in a model config."""


_ELEMENT = re.compile(
    r"<((?:[a-z]+:)?(?:think|thinking|thoughts?|reason|reasoning|reflection|scratchpad)(?::[^\s<>]+)?)>"
)
_TURN_END = "<|end|>"
"""Ends any turn, and so a thought that is a turn of its own."""
_FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"
_KNOWN = (
    Tags("[THINK]", "[/THINK]", "[/THINK]"),  # Magistral, Ministral 3 Reasoning
    Tags(
        "<|START_THINKING|>", "<|END_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"
    ),  # Command A Reasoning
    Tags("◁think▷", "◁/think▷", "◁/think▷\n\n"),  # Kimi-VL-Thinking
    Tags("<|begin_of_thought|>", "<|end_of_thought|>", "<|end_of_thought|>\n\n"),  # OpenThinker
    Tags("<|think|>", _TURN_END, "<|end|><|begin|>assistant<|content|>"),  # Solar Open
    Tags(  # Kimi K3
        "<|open|>think<|sep|>", "<|close|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>"
    ),
    Tags("<|channel>thought", "<channel|>", "<channel|>"),  # Gemma 4
    Tags(  # Apriel Thinker
        "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", "\n[BEGIN FINAL RESPONSE]\n"
    ),
    Tags("<|channel|>analysis<|message|>", _TURN_END, _FINAL),  # gpt-oss, as the next
    Tags("<|channel|>commentary<|message|>", _TURN_END, _FINAL),
)
_HARMONY_HEADER = re.compile(r"<\|start\|>assistant(<\|channel\|>\w*)?\s*")
"""A turn of gpt-oss whose channel is not chosen yet."""
HARMONY_PREFIX = "<|channel|>final<|message|>"


def tag_of(close: str) -> str:
    """The tag itself of all that stands between a thought and the answer."""
    return next((line for line in map(str.strip, close.splitlines()) if line), "")


def lead(chat: str, last: str) -> str:
    """What a chat template wrote behind the text of the last turn; the whole chat where that is not found."""
    tail = last.rstrip()[-_TAIL:]
    return chat.rpartition(tail)[2] if tail else chat


def open_thought(text: str, own: Tags | None = None) -> Tags | None:
    """The tags of the thought that ``text`` ends in; ``None`` if it does not end in a thought.

    Known tags are looked for, and those of a model config (``own``).
    """
    found = [
        (start, tags)
        for tags in _candidates(text, own)
        if (start := text.rfind(tags.open)) >= 0 and tags.end not in text[start + len(tags.open) :]
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def closed_thought(text: str, tags: Tags) -> bool:
    """Whether the last thing that ``text`` says of a thought is that it has ended."""
    ends = tags.end in text and (tags.end != _TURN_END or tags.open in text)
    return ends and open_thought(text, tags) is None


def ends_in_header(text: str) -> bool:
    """Whether ``text`` ends in the header of a turn whose channel is still to be written (gpt-oss)."""
    start = text.rfind("<|start|>")
    return start >= 0 and _HARMONY_HEADER.fullmatch(text, start) is not None


def known_tags(text: str) -> Tags | None:
    """The first known tags of which ``text`` (a chat template, say) has both."""
    found = [(text.find(tags.open), tags) for tags in _candidates(text, None)]
    both = [one for one in found if one[0] >= 0 and one[1].end in text]
    return min(both, key=lambda one: one[0])[1] if both else None


def _candidates(text: str, own: Tags | None) -> Iterator[Tags]:
    if own:
        yield own
    yield from (tags for tags in _KNOWN if own is None or tags.open != own.open)
    for name in dict.fromkeys(_ELEMENT.findall(text)):
        if own is None or own.open != f"<{name}>":
            yield Tags(f"<{name}>", f"</{name}>", f"</{name}>\n\n")
