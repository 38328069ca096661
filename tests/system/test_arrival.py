"""What a chat template is given arrives in the prompt, or the plan says what does not and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CHAT_TEMPLATE
from tokenizer_families import FAMILIES, make_family
from turn_templates import (
    ASSISTANT,
    BY_BOTH,
    BY_INDEX,
    BY_LOOP,
    BY_MACRO,
    BY_NAME,
    BY_OTHER_NAME,
    PLAIN,
    TURNS,
    tokenizer,
)

from orch_local.config.model_configs import ModelConfig
from orch_local.errors import ConfigError, PromptError
from orch_local.prompts.arrival import Arrival, ChatNeeds, arrive, check_options
from orch_local.prompts.template import Message
from orch_local.prompts.thoughts import closed_thought, ends_in_header, known_tags, lead, open_thought, tag_of
from orch_local.prompts.tokenizer import PromptTokenizer

DROPS = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}" + ASSISTANT
)
RAISES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + PLAIN
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}" + PLAIN
)
SWITCHED = (
    PLAIN
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
OPENED = PLAIN + "{{ '<think>\n' }}"
OPENED_UNLESS = PLAIN + "<think>\n{% if reasoning is false %}\n</think>\n\n{% endif %}"
CLOSED_UNLESS = PLAIN + "{% if not thinking %}</think>{% else %}<think>\n{% endif %}"
HELLO = [Message("user", "Hello")]


def arrived(
    folder: Path,
    template: str,
    *,
    thinking: bool = False,
    system: bool = True,
    shipped: bool = False,
    **model: Any,
) -> Arrival:
    config = ModelConfig(name="mine", path=folder, **model)
    return arrive(tokenizer(folder, template), config, ChatNeeds(thinking, system, shipped))


# --- the system turn


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (DROPS, "leaves the text of the system turn out"),
        (RAISES, "refuses a system turn (System role not supported)"),
        (ALTERNATES, "refuses a system turn (Conversation roles must alternate)"),
    ],
    ids=["drops", "raises", "alternates"],
)
def test_a_template_without_a_system_turn_moves_its_text(tmp_path: Path, template: str, words: str) -> None:
    found = arrived(tmp_path, template)
    assert not found.system_role
    assert found.notes == (f"the chat template {words}, so the system text begins the user turn",)
    with pytest.raises(PromptError, match="`system_role: true`") as caught:
        arrived(tmp_path, template, system_role=True)
    assert words in caught.value.message
    assert "take `system_role: true` out" in caught.value.hint
    # Nothing to say where the config says it, or no prompt has a system text.
    assert arrived(tmp_path, template, system_role=False) == Arrival(False, None, ())
    assert arrived(tmp_path, template, system=False) == Arrival(True, None, ())


@pytest.mark.parametrize("stated", [None, True])
def test_a_system_turn_that_arrives_stays(tmp_path: Path, stated: bool | None) -> None:
    assert arrived(tmp_path, PLAIN, system_role=stated) == Arrival(True, None, ())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_tell_by_themselves_whether_they_take_a_system_turn(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    model = ModelConfig(name="mine", chat_template_kwargs=family.options)
    found = arrive(PromptTokenizer(make_family(name, tmp_path)), model, ChatNeeds(False, True, False))
    assert found.system_role is family.system_role


def test_what_fails_for_a_user_turn_alone_is_not_the_system_turn(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="needs a plan") as caught:
        arrived(tmp_path, "{{ raise_exception('needs a plan') }}")
    assert "the template's own words about a chat of the turns user" in caught.value.hint


def test_a_template_that_demands_a_system_turn_gets_one(tmp_path: Path) -> None:
    template = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    assert arrived(tmp_path, template) == Arrival(True, None, ())


# --- options


def test_an_option_that_is_not_read_is_refused_with_the_nearest(tmp_path: Path) -> None:
    for key in ("chat_template_kwargs", "thinking_template_kwargs"):
        with pytest.raises(ConfigError, match=f"does not read `enable_thinkng`, which `{key}`") as caught:
            arrived(tmp_path, SWITCHED, **{key: {"enable_thinkng": False}})
        assert caught.value.hint == "did you mean `enable_thinking`?"
        assert caught.value.where == str(tmp_path)


def test_an_option_that_is_like_none_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        arrived(tmp_path, SWITCHED, chat_template_kwargs={"x": 1})
    assert caught.value.hint == "it reads enable_thinking: take `x` out of the model config"
    with pytest.raises(ConfigError) as caught:
        arrived(tmp_path, PLAIN, chat_template_kwargs={"x": 1})
    assert caught.value.hint == "it reads no options: take `x` out of the model config"


def test_an_option_that_is_read_and_changes_nothing_is_fine(tmp_path: Path) -> None:
    template = PLAIN + "{% if x %}{% endif %}"
    assert arrived(tmp_path, template, chat_template_kwargs={"x": True}) == Arrival(True, None, ())


def test_an_option_of_a_shipped_config_becomes_a_note(tmp_path: Path) -> None:
    (note,) = arrived(tmp_path, PLAIN, chat_template_kwargs={"enable_thinking": False}, shipped=True).notes
    assert "does not read `enable_thinking`" in note


@pytest.mark.parametrize(
    "template",
    [
        "{% set x = x | default('y') %}{{ x }}",
        "{% if x is not defined %}{% set x = 1 %}{% endif %}{{ x }}",
        "{% macro m(a) %}{{ a }}{{ x }}{% endmacro %}{{ m(1) }}",
        "{% set n = namespace(v=x) %}{{ n.v }}",
        "{% for m in messages %}{% for y in x %}{% endfor %}{% endfor %}",
    ],
)
def test_an_option_may_be_read_in_many_ways(tmp_path: Path, template: str) -> None:
    config = ModelConfig(name="mine", chat_template_kwargs={"x": "1"})
    assert check_options(tokenizer(tmp_path, template), config) == []


# --- the end of the prompt


def test_a_prompt_that_ends_in_a_thought_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PromptError, match=r"opens a thought \(<think>\), but the agent does not think"
    ) as caught:
        arrived(tmp_path, OPENED, dtype="float32")
    assert caught.value.hint == (
        "let it think (`thinking: true`), or to close the thought, "
        r'set `answer_prefix: "</think>\n\n"` in the model config'
    )
    # What the hint says, works.
    assert arrived(tmp_path, OPENED, thinking=True).tags is not None
    assert arrived(tmp_path, OPENED, answer_prefix="</think>\n\n") == Arrival(True, None, ())


def test_without_a_config_a_whole_one_is_offered(tmp_path: Path) -> None:
    with pytest.raises(PromptError) as caught:
        arrived(tmp_path, OPENED)
    text = caught.value.hint.rpartition("write `")[2].partition("` into a file NAME.yaml")[0]
    config = ModelConfig.model_validate(yaml.safe_load(text))
    assert (config.path, config.answer_prefix) == (tmp_path, "</think>\n\n")
    found = arrive(PromptTokenizer(tmp_path), config, ChatNeeds(False, True, False))
    assert found == Arrival(True, None, ())


def test_a_switch_that_works_is_offered(tmp_path: Path) -> None:
    with pytest.raises(PromptError) as caught:
        arrived(tmp_path, OPENED_UNLESS, dtype="float32")
    assert "set `chat_template_kwargs: {reasoning: false}` in the model config" in caught.value.hint
    assert arrived(tmp_path, OPENED_UNLESS, chat_template_kwargs={"reasoning": False}).notes == ()
    # One that is read and does not help is not offered.
    with pytest.raises(PromptError) as caught:
        arrived(tmp_path, OPENED + "{% if enable_thinking %}{% endif %}")
    assert "chat_template_kwargs" not in caught.value.hint


@pytest.mark.parametrize(
    "end",
    [
        "<think>",
        "<thinking>\n",
        "<thought>\n",
        "<seed:think>",
        "<think:more>",
        "[THINK]",
        "◁think▷",
        "<|START_THINKING|>",
        "<|channel>thought\n",
        "<|channel|>analysis<|message|>",
        "<think>\n\n</think>\n\n<think>\n",
    ],
)
def test_thoughts_of_many_kinds_are_seen(tmp_path: Path, end: str) -> None:
    with pytest.raises(PromptError, match="opens a thought"):
        arrived(tmp_path, PLAIN + end)
    tags = arrived(tmp_path, PLAIN + end, thinking=True).tags
    assert tags is not None
    assert tags.open in end
    assert open_thought(end + tags.close) is None


@pytest.mark.parametrize(
    "end", ["", "<think></think>", "</think>", "<think>\n\n</think>\n\n", "[THINK]x[/THINK]", "I think "]
)
def test_a_thought_that_is_closed_is_none(tmp_path: Path, end: str) -> None:
    assert arrived(tmp_path, PLAIN + end) == Arrival(True, None, ())


def test_tags_in_the_words_of_a_system_prompt_are_no_thought(tmp_path: Path) -> None:
    template = "<|im_start|>system\nThink after <think> first.<|im_end|>\n" + PLAIN
    assert arrived(tmp_path, template) == Arrival(True, None, ())


def test_tags_of_a_config_are_seen_too(tmp_path: Path) -> None:
    tags = {"think_open": "<ponder>", "think_close": "</ponder>\n"}
    with pytest.raises(PromptError, match=r"opens a thought \(<ponder>\)"):
        arrived(tmp_path, PLAIN + "<ponder>\n", **tags)
    found = arrived(tmp_path, PLAIN + "<ponder>\n", thinking=True, **tags)
    assert found.tags is not None
    assert (found.tags.open, found.tags.close, found.notes) == ("<ponder>", "</ponder>\n", ())


@pytest.mark.parametrize(
    "tags", [{"think_open": "<think>"}, {"think_open": "<think>", "think_close": "\n\n"}]
)
def test_half_of_the_tags_is_none(tmp_path: Path, tags: dict[str, str]) -> None:
    for thinking in (True, False):
        with pytest.raises(ConfigError, match="go together"):
            arrived(tmp_path, PLAIN, thinking=thinking, **tags)


def test_a_channel_must_be_chosen(tmp_path: Path) -> None:
    added = {"900": {"content": "<|channel|>", "special": True}}
    reader = tokenizer(tmp_path / "harmony", TURNS + "<|start|>assistant", added_tokens_decoder=added)
    with pytest.raises(PromptError, match="before the channel of the answer is chosen") as caught:
        arrive(reader, ModelConfig(name="mine", dtype="float32"), ChatNeeds(False, True, False))
    assert 'set `answer_prefix: "<|channel|>final<|message|>"` in the model config' in caught.value.hint
    fixed = ModelConfig(name="mine", answer_prefix="<|channel|>final<|message|>")
    assert arrive(reader, fixed, ChatNeeds(False, True, False)) == Arrival(True, None, ())
    # A turn that is so called by a model without channels is as good as any.
    assert arrived(tmp_path / "other", TURNS + "<|start|>assistant") == Arrival(True, None, ())


def test_the_end_of_the_user_turn_is_not_that_of_a_thought(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
        "{{ '<|channel|>analysis<|message|>' if never }}<|start|>assistant"
    )
    tags = arrived(tmp_path, template, thinking=True).tags
    assert tags is not None
    assert (tags.open, tags.end) == ("<|channel|>analysis<|message|>", "<|end|>")
    assert closed_thought("<|channel|>analysis<|message|>x<|end|><|start|>assistant", tags)


def test_a_budget_is_no_switch(tmp_path: Path) -> None:
    template = PLAIN + "{% if thinking_budget == 0 %}<think></think>{% endif %}"
    assert arrived(tmp_path, template) == Arrival(True, None, ())


def test_an_unset_switch_is_told(tmp_path: Path) -> None:
    (note,) = arrived(tmp_path, SWITCHED).notes
    assert "only with `chat_template_kwargs: {enable_thinking: false}` in a model config" in note
    assert str(tmp_path) not in note  # it is part of the manifest
    assert arrived(tmp_path, SWITCHED, chat_template_kwargs={"enable_thinking": False}).notes == ()


# --- agents that think


def test_tags_are_found_where_no_config_names_them(tmp_path: Path) -> None:
    by_template = PLAIN + "{{ '[THINK][/THINK]' if never }}"
    for number, (template, opening) in enumerate({OPENED: "<think>", by_template: "[THINK]"}.items()):
        found = arrived(tmp_path / str(number), template, thinking=True)
        assert found.tags is not None
        assert found.tags.open == opening
        assert "as the model's own files have it" in found.notes[-1]
    # The tokenizer of the tiny model has <think> among its control tokens.
    found = arrived(tmp_path / "vocabulary", CHAT_TEMPLATE, thinking=True)
    assert found.tags is not None
    assert found.tags.close == "</think>\n\n"


def test_a_model_without_tags_cannot_think(tmp_path: Path) -> None:
    reader = PromptTokenizer(make_family("phi3", tmp_path))
    with pytest.raises(ConfigError, match="has no thinking tags") as caught:
        arrive(reader, ModelConfig(name="mine"), ChatNeeds(True, True, False))
    assert "`think_open`" in caught.value.hint


def test_a_thought_that_the_template_ends_is_refused_with_the_switch(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="ends the thought before it begins") as caught:
        arrived(tmp_path, CLOSED_UNLESS, thinking=True, dtype="float32")
    assert caught.value.hint == "set `thinking_template_kwargs: {thinking: true}` in the model config"
    found = arrived(tmp_path, CLOSED_UNLESS, thinking=True, thinking_template_kwargs={"thinking": True})
    assert found.tags is not None
    with pytest.raises(PromptError, match="ends the thought") as caught:
        arrived(tmp_path, PLAIN + "<think></think>", thinking=True)
    assert "thinking_template_kwargs" in caught.value.hint


# --- tags


def test_the_end_of_a_text_decides() -> None:
    tags = open_thought("[THINK]a[/THINK]<think>b")
    assert tags is not None
    assert tags.open == "<think>"
    assert open_thought("<think>[THINK]a") == open_thought("[THINK]a")
    assert closed_thought("<think>a</think>", tags)
    assert not closed_thought("<think>a</think><think>", tags)
    assert not closed_thought("", tags)


@given(st.text(max_size=80))
def test_any_text_is_either_open_or_not(text: str) -> None:
    tags = open_thought(text)
    if tags is not None:
        assert open_thought(text + tags.close) != tags
    assert (known_tags(text) is None) or (known_tags(text).open in text)  # type: ignore[union-attr]


@given(st.text(max_size=80), st.text(min_size=1, max_size=80).filter(str.strip), st.text(max_size=20))
def test_the_lead_is_behind_the_last_turn(before: str, last: str, behind: str) -> None:
    assert behind.endswith(lead(before + last.rstrip() + behind, last))


def test_headers() -> None:
    assert ends_in_header("<|start|>user<|message|>x<|end|><|start|>assistant")
    assert ends_in_header("<|start|>assistant<|channel|>analysis")
    assert not ends_in_header("<|start|>assistant<|channel|>final<|message|>")
    assert not ends_in_header("<|start|>user")
    assert not ends_in_header("")


@pytest.mark.parametrize(
    ("close", "tag"),
    [
        ("</think>\n\n", "</think>"),
        ("\n</think>", "</think>"),
        ("</think>\n\nAnswer: ", "</think>"),
        ("\n", ""),
    ],
)
def test_the_tag_of_a_close(close: str, tag: str) -> None:
    assert tag_of(close) == tag


# --- text or parts


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        (PLAIN, False),
        (CHAT_TEMPLATE, False),
        (BY_LOOP, True),
        (BY_BOTH, True),
        (BY_MACRO, True),
        (BY_NAME, True),
        (BY_INDEX, True),  # by trying: its tree has no loop
        (BY_OTHER_NAME, True),
    ],
    ids=["plain", "tiny", "loop", "both", "macro", "name", "index", "other name"],
)
def test_content_is_given_as_the_template_takes_it(tmp_path: Path, template: str, parts: bool) -> None:
    reader = tokenizer(tmp_path, template)
    assert reader.takes_parts is parts
    expected = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert reader.chat(HELLO, {}) == expected
    assert reader.chat([Message("system", "Be brief."), *HELLO], {}) == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{expected}"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_take_text(tmp_path: Path, name: str) -> None:
    assert not PromptTokenizer(make_family(name, tmp_path)).takes_parts


def test_a_list_written_out_has_not_arrived(tmp_path: Path) -> None:
    # It would be the text of a Python list, not that of the turn.
    template = "{% for m in messages %}{% if m.content is not string %}{{ m.content }}{% endif %}{% endfor %}"
    assert not tokenizer(tmp_path, template).takes_parts
