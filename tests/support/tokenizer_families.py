"""Tokenizers of the common model families, rebuilt small: the same pipeline, control tokens and chat format.

The vocabularies are trained here on a few sentences, so that no model has to be downloaded. What matters for
safety is the same as in the real ones: normalizer, pre-tokenizer, decoder, where control tokens live (behind
the vocabulary or inside it), their flags, and what the chat template writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

Parts = dict[str, Any]
"""The content of a `tokenizer.json`."""

CORPUS = (
    'Reply with compact JSON of this form: {"reasoning":"at most 40 characters","answer":"A, B or C"}',
    "Question:\nWhich of these is the capital of the country?\n\nChoices:\nA) Paris\nB) London\nC) Rome",
    "The quick brown fox jumps over the lazy dog while 0123456789 bottles stand on the wall.",
    "def add(values):\n    total = 0\n    for value in values:\n        total += value\n\n\n    return total",
    "<div><s>struck</s> <a>[link]</a> |x| = (y|z) / user_id & end_of_turn </div>",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
)
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


class Family(NamedTuple):
    """One kind of tokenizer."""

    build: Callable[[], Parts]
    names: dict[str, str]
    """bos, eos, unk as in `tokenizer_config.json`."""
    chat_template: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Keyword arguments of the chat template."""
    system_role: bool = True


def make_family(name: str, folder: Path) -> Path:
    """Write the tokenizer files of a family; returns ``folder``."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(family.build(), ensure_ascii=False), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "chat_template": family.chat_template,
        **family.names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def added_token(index: int, content: str, *, special: bool = True, **flags: bool) -> Parts:
    """One entry of ``added_tokens``."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": index, "content": content, **usual, **flags, "special": special}


def _behind(parts: Parts, contents: list[str], plain: tuple[str, ...] = (), **flags: bool) -> Parts:
    """Control tokens with ids behind the vocabulary, as Llama 3, Qwen and Phi-3 have them."""
    first = len(parts["model"]["vocab"])
    for index, content in enumerate(contents, start=first):
        parts["added_tokens"].append(added_token(index, content, special=content not in plain, **flags))
    return parts


def _byte_level(normalizer: Any = None, ignore_merges: bool = False) -> Parts:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(
        tokenizer, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )


def _trained(tokenizer: Tokenizer, trainer: Any) -> Parts:
    tokenizer.train_from_iterator(CORPUS, trainer)
    parts: Parts = json.loads(tokenizer.to_str())
    return parts


def _sentencepiece(first: list[str], normalizer: Any = None, pre_tokenizer: Any = None) -> Parts:
    """BPE with byte fallback whose first entries are control tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*first, *_BYTES], show_progress=False)
    parts = _trained(tokenizer, trainer)
    # The trainer makes them all special; in the real files bytes are no added tokens.
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["content"] in first]
    return parts


def _begin(parts: Parts, bos: str) -> Parts:
    """A post-processor that puts bos in front, as Llama, Mistral and Gemma have it."""
    index = next(token["id"] for token in parts["added_tokens"] if token["content"] == bos)
    parts["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [index], "tokens": [bos]}},
    }
    return parts


def _llama3() -> Parts:
    contents = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|finetune_right_pad_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
        *(f"<|reserved_special_token_{number}|>" for number in (1, 2, 10, 11)),
    ]
    return _begin(_behind(_byte_level(ignore_merges=True), contents), "<|begin_of_text|>")


def _qwen3() -> Parts:
    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
    ]
    plain = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<tool_response>", "<think>", "</think>")
    return _behind(_byte_level(normalizers.NFC()), [*special, *plain], plain)


def _gemma() -> Parts:
    runs = ["\n\n", "\n\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "\u2581\u2581\u2581\u2581"]
    plain = ["[multimodal]", "<unused0>", "<unused1>", "<unused10>", *runs, "<table>", "</table>", "[@BOS@]"]
    parts = _sentencepiece(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *plain, "<start_of_turn>", "<end_of_turn>"],
        normalizers.Replace(" ", "\u2581"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
    )
    for token in parts["added_tokens"]:
        token["special"] = token["content"] not in plain
    return _begin(parts, "<bos>")


def _mistral() -> Parts:
    tools = ["[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = _sentencepiece(["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *tools], pre_tokenizer=metaspace)
    return _begin(parts, "<s>")


def _phi3() -> Parts:
    space = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    parts = _sentencepiece(["<unk>", "<s>", "</s>"], space)
    roles = ["<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"]
    _behind(parts, ["<|endoftext|>"])
    first = len(parts["model"]["vocab"]) + 1
    parts["added_tokens"] += [added_token(first + i, role, rstrip=True) for i, role in enumerate(roles)]
    next(token for token in parts["added_tokens"] if token["content"] == "</s>")["rstrip"] = True
    return parts


def _unigram() -> Parts:
    """The nasty one: pieces that spell control tokens and win, NFKC, tokens matched after it, no fallback."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    first = ["<unk>", "<s>", "</s>", "<TASK>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=first, unk_token="<unk>", show_progress=False
    )
    parts = _trained(tokenizer, trainer)
    for entry in parts["model"]["vocab"][: len(first)]:
        entry[1] = -0.1  # better than any spelling out
    normalized = [added_token(3, "<TASK>", special=False, normalized=True)]
    parts["added_tokens"] = parts["added_tokens"][:3] + normalized
    return _behind(parts, ["<sep>"], normalized=True)


def _spelling_bpe() -> Parts:
    """BPE whose merges make control tokens of plain text, and which takes whole words from the vocabulary."""
    parts = _sentencepiece(
        ["<unk>", "<s>", "</s>", "<turn>"],
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s"), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
        ),
    )
    model = parts["model"]
    model["ignore_merges"] = True
    for token in ("</s", "/s", "<s"):
        model["vocab"].setdefault(token, len(model["vocab"]))
    model["merges"] = [["/", "s"], ["<", "/s"], ["</s", ">"], ["<", "s"], ["<s", ">"], *model["merges"]]
    return parts


_LLAMA3_CHAT = (
    "{{ bos_token }}"
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_QWEN3_CHAT = (
    "{%- for message in messages %}{%- if message.content is string %}{%- set content = message.content %}"
    "{%- else %}{%- set content = '' %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}{%- endif %}"
)
_GEMMA_CHAT = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_MISTRAL_CHAT = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.last else '') + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
_PHI3_CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_TURNS_CHAT = (
    "{% for message in messages %}{{ bos_token + message['role'] + ': ' + message['content'] + eos_token }}"
    "{% endfor %}{{ bos_token + 'assistant: ' }}"
)

_SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
FAMILIES = {
    "llama3": Family(_llama3, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, _LLAMA3_CHAT),
    "qwen3": Family(
        _qwen3,
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        _QWEN3_CHAT,
        {"enable_thinking": False},
    ),
    "gemma": Family(
        _gemma,
        {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"},
        _GEMMA_CHAT,
        system_role=False,
    ),
    "mistral": Family(_mistral, _SENTENCEPIECE, _MISTRAL_CHAT),
    "phi3": Family(_phi3, {**_SENTENCEPIECE, "eos_token": "<|endoftext|>"}, _PHI3_CHAT),
    "unigram": Family(_unigram, _SENTENCEPIECE, _TURNS_CHAT),
    "spelling_bpe": Family(_spelling_bpe, _SENTENCEPIECE, _TURNS_CHAT),
}
