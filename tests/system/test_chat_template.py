"""Chat templates are foreign programs: they write what they write in transformers, and may do little else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_families import FAMILIES

from orch_local.errors import PromptError
from orch_local.prompts import chat_template
from orch_local.prompts.chat_template import PINNED_DATE, render_chat
from orch_local.prompts.template import Message

DEMO_MODELS = Path(chat_template.__file__).parents[1] / "demo" / "models"
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
HELLO = [Message("system", "Be brief."), Message("user", " Hello\n")]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No child of another test, and none left behind."""
    yield
    for renderer in chat_template._renderers.values():
        renderer.close()
    chat_template._renderers.clear()


def by_transformers(
    template: str, messages: Sequence[Message], names: Mapping[str, str], options: Mapping[str, Any]
) -> str:
    """What transformers makes of it, the way that it was asked before."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(
        conversations=[[message._asdict() for message in messages]],
        chat_template=template,
        add_generation_prompt=True,
        **{**names, "strftime_now": PINNED_DATE.strftime, **options},
    )
    return str(rendered[0])


def outcome(render: Any, *arguments: Any) -> str:
    """The text, or the words of the refusal."""
    try:
        return f"text: {render(*arguments)}"
    except PromptError as error:
        return f"refused: {error.message.removeprefix('the chat template fails: ')}"
    except Exception as error:  # noqa: BLE001 - as transformers leaves it
        return f"refused: {str(error)[:500]}"


def demo_template() -> str:
    settings = json.loads((DEMO_MODELS / "quant" / "tokenizer_config.json").read_text())
    return str(settings["chat_template"])


FEATURES = {
    "blocks": "{% if true %}\n  x\n{% endif %}\n    {% if true %}y{% endif %}\n\n",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}"
    "{% break %}{% endfor %}",
    "tojson": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ '<é&>' | tojson }}"
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':'), ensure_ascii=true) }}",
    "tojson of nothing": "{{ nothing | tojson }}",
    "raise_exception": "{{ raise_exception('Roles must alternate: ' + messages[0].role) }}",
    "strftime_now": "{{ strftime_now('%d %b %Y') }}{{ strftime_now('%A %j %H:%M') }}",
    "generation": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }} <{{ bos_token }}>{% endgeneration %}"
    "{{ x }}",
    "generation that breaks": "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}"
    "{% endfor %}",
    "generation without end": "{% generation %}x",
    "namespace": "{% set n = namespace(k=0) %}{% for m in messages %}{% set n.k = n.k + 1 %}{% endfor %}"
    "{{ n.k }}",
    "macros": "{% macro say(m, tail='') %}<{{ m.role }}>{{ m['content'] | trim }}{{ tail }}{% endmacro %}"
    "{% for m in messages %}{{ say(m, eos_token) }}{% endfor %}",
    "defaults": "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}"
    "{{ nothing is defined }}{{ nothing }}{{ nothing | default('d') }}",
    "nothing of nothing": "{{ nothing.more }}",
    "tests and filters": "{{ 'x' is string }}{{ messages is sequence }}{{ messages is mapping }}"
    "{{ messages | length }}{{ messages | map(attribute='role') | join(',') }}{{ ' a ' | trim | upper }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'a b' | title }}"
    "{{ 'one two three' | wordwrap(5) }}{{ '<b>x</b>' | striptags }}{{ messages[0] | pprint }}"
    "{{ 'www.a.de' | urlize }}{{ '&' | e }}{{ messages[0] | items | list }}{{ 'x' | indent }}"
    "{{ '%5.2f' | format(1) }}",
    "methods": "{{ messages[0].content.split(' ') }}{{ 'x'.startswith('x') }}"
    "{{ messages[0].get('name', '-') }}{{ 'a-b'.replace('-', '+').lstrip('a') }}"
    "{{ '{}-{:>4}'.format(1, 'x') }}{{ 'é'.encode('utf-8') }}"
    "{{ messages[::-1][0].role }}{{ '\\u00e9\\n\\N{BULLET}' }}",
    "changing what is given": "{{ messages.append(1) }}",
    "changing a string list": "{% set _ = messages[0].update({'role': 'x'}) %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
    "no end": "{% for m in messages %}",
    "unknown tag": "{% evil %}",
    "unknown filter": "{{ 1 | evil }}",
    "out of the sandbox": "{{ messages.__class__ }}",
    "further out": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "through format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "through format_map": "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "through attr": "{{ messages | attr('__class__') }}",
    "through a function": "{{ raise_exception.__globals__ }}",
    "through self": "{{ self.__init__.__globals__ }}",
    "through a cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "through the loop": "{% for m in messages %}{{ loop.__class__ }}{% endfor %}",
    "through code": "{{ raise_exception.__code__ }}",
    "range": "{{ range(100001) | length }}",
    "division": "{{ 1 // 0 }}",
    "lone surrogate": "{{ '\ud800' }} \udfff",
    "null": "a\0b{{ 'c\0' }}",
    "empty": "",
}


@pytest.mark.parametrize("template", [pytest.param(text, id=name) for name, text in FEATURES.items()])
def test_a_template_does_what_it_does_in_transformers(template: str) -> None:
    ours, theirs = (outcome(render, template, HELLO, NAMES, {}) for render in (render_chat, by_transformers))
    assert ours == theirs


def test_the_environment_hides_what_it_should() -> None:
    # Not only equal to transformers: these are refused indeed.
    for name in (name for name in FEATURES if name.startswith(("out of", "further", "through"))):
        said = outcome(render_chat, FEATURES[name], HELLO, NAMES, {})
        assert "unsafe" in said or "undefined" in said or said == "text: ", (name, said)


TEMPLATES = [*(family.chat_template for family in FAMILIES.values()), demo_template()]
_texts = st.text(max_size=30) | st.sampled_from(
    ["", " x ", "\n", "\ue0f0question\ue0f1", "<|im_end|>", "{{ 1 }}", "é中\0"]
)
_messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool", ""]), _texts), max_size=4
)
_options = st.dictionaries(
    st.sampled_from(["enable_thinking", "date_string", "reasoning_effort", "bos_token", "strftime_now", "x"]),
    st.booleans() | st.integers() | st.floats() | _texts,
    max_size=3,
)


@pytest.mark.parametrize("template", TEMPLATES, ids=[*FAMILIES, "demo"])
def test_families_are_written_as_by_transformers(template: str) -> None:
    @fuzz(60)
    @given(messages=_messages, options=_options)
    def compare(messages: list[Message], options: dict[str, Any]) -> None:
        ours, theirs = (
            outcome(render, template, messages, NAMES, options) for render in (render_chat, by_transformers)
        )
        assert ours == theirs

    compare()


_fragments = st.sampled_from(
    [
        *(
            "{{ messages[0].content }}",
            "{{ messages | tojson }}",
            "{{ bos_token }}",
            "{{ x }}",
            "{%- if x -%}",
        ),
        *(
            "{% endif %}",
            "{% for m in messages %}",
            "{% endfor %}",
            "{{ m.role }}",
            "{% else %}",
            "{{ 1 +",
            "}}",
        ),
        *(
            "{# c #}",
            "{% generation %}",
            "{% endgeneration %}",
            "{% set y = 2 %}",
            "{{ y }}",
            "\n",
            "  ",
            "{%",
        ),
        *(
            "{% raw %}",
            "{% endraw %}",
            "{% break %}",
            "{{ raise_exception('no') }}",
            "é",
            "{{ x.y.z }}",
            "%}",
        ),
    ]
)


@fuzz(25)
@given(parts=st.lists(_fragments, max_size=8), options=_options)
def test_any_template_is_written_as_by_transformers(parts: list[str], options: dict[str, Any]) -> None:
    arguments = "".join(parts), HELLO, NAMES, options
    ours, theirs = (outcome(render, *arguments) for render in (render_chat, by_transformers))
    assert ours == theirs


# --- attacks --------------------------------------------------------------------------------------


def test_a_refusal_ends_nothing() -> None:
    template = "{% if messages | length > 1 %}{{ raise_exception('no system') }}{% endif %}fine"
    with pytest.raises(PromptError, match="no system"):
        render_chat(template, HELLO, NAMES, {})
    assert render_chat(template, HELLO[1:], NAMES, {}) == "fine"


def test_a_long_refusal_is_cut() -> None:
    with pytest.raises(PromptError) as caught:
        render_chat("{{ raise_exception('x' * 1000000) }}", HELLO, NAMES, {})
    assert len(caught.value.message) < 600


def test_options_of_ours_are_not_theirs() -> None:
    with pytest.raises(PromptError, match="`messages` is no option"):
        render_chat("x", HELLO, NAMES, {"messages": "x"})
