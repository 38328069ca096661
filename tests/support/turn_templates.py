"""Chat templates that take the parts of a turn in one way or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_models import make_tiny_tokenizer

from orch_local.prompts.tokenizer import PromptTokenizer

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


ASSISTANT = "{{ '<|im_start|>assistant\n' }}"


"""In an expression, since a template loses the line break at its end."""


PLAIN = TURNS + ASSISTANT


def tokenizer(folder: Path, template: str, **update: Any) -> PromptTokenizer:
    """A tokenizer with this chat template; ``update`` are further keys of `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "chat_template": template, **update}), encoding="utf-8")
    return PromptTokenizer(folder)


BY_INDEX = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"
    + ASSISTANT
)


BY_LOOP = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + ASSISTANT
)


BY_BOTH = BY_LOOP.replace(
    "{% for part in m.content %}",
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}",
).replace("{% endif %}{% endfor %}<", "{% endif %}{% endfor %}{% endif %}<")


BY_MACRO = (
    "{% macro say(what) %}{% for part in what %}{{ part['text'] }}{% endfor %}{% endmacro %}"
    "{% set chat = messages %}{% for m in chat %}<|im_start|>{{ m.role }}\n{{ say(m.content) }}<|im_end|>\n"
    "{% endfor %}" + ASSISTANT
)


BY_NAME = (
    "{% for m in messages %}{% set content = m.content %}<|im_start|>{{ m.role }}\n"
    "{% for part in content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}" + ASSISTANT
)


BY_OTHER_NAME = BY_NAME.replace("content =", "written =").replace("in content", "in written")
