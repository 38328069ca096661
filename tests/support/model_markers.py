"""What a hostile text could try in the models of `model_configs/`: their control tokens and turns, by file.

The control tokens are facts of each model's published tokenizer (`tokenizer.json`, `added_tokens`) and the
turns of its published chat template, as the hub pages named in the configs' `hub_id` show them; those of many
reserved tokens are a selection. The vocabularies here are small ones of the same kind (`tokenizer_families`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tokenizer_families import Parts, _behind, _byte_level, _sentencepiece, added_token
from tokenizers import normalizers, pre_tokenizers


class Markers(NamedTuple):
    """How one kind of model tells its turns apart."""

    controls: tuple[str, ...]
    """Added tokens, flagged special or not: none may come from data."""
    turn: str
    """A turn, with ROLE and TEXT."""
    opening: str
    """What the chat template writes where the model is to go on."""
    build: Callable[[tuple[str, ...]], Parts]
    begin: str = ""
    """What the prompt begins with."""
    end: str = ""
    """The end-of-sequence token; the last control token of the turn where not given."""
    text_markers: tuple[str, ...] = ()
    """Text that is no token of its own and that the model was trained to heed, wherever it stands."""


def _bytes(controls: tuple[str, ...]) -> Parts:
    return _behind(_byte_level(), list(controls))


def _bytes_nfc(controls: tuple[str, ...]) -> Parts:
    return _behind(_byte_level(normalizers.NFC()), list(controls))


def _pieces(controls: tuple[str, ...]) -> Parts:
    parts = _sentencepiece(
        ["<unk>", *controls],
        normalizers.Replace(" ", "\u2581"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
    )
    known = {token["content"] for token in parts["added_tokens"]}
    missing = [control for control in controls if control not in known]
    first = len(parts["model"]["vocab"])
    parts["added_tokens"] += [added_token(first + i, control) for i, control in enumerate(missing)]
    return parts


_CHATML = "<|im_start|>ROLE\nTEXT<|im_end|>\n"
_SWITCHES = ("/think", "/no_think")
LLAMA3 = Markers(
    (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|python_tag|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_0|>",
    ),
    "<|start_header_id|>ROLE<|end_header_id|>\n\nTEXT<|eot_id|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    _bytes,
    "<|begin_of_text|>",
)
QWEN3 = Markers(
    (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<|vision_start|>",
        "<|image_pad|>",
        "<|fim_prefix|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ),
    _CHATML,
    "<|im_start|>assistant\n",
    _bytes_nfc,
    text_markers=_SWITCHES,
)
DEEPSEEK_R1_QWEN = Markers(
    (
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<\uff5cUser\uff5c>",
        "<\uff5cAssistant\uff5c>",
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",
        "<|EOT|>",
        "<think>",
        "</think>",
        "<|im_start|>",
        "<|im_end|>",
    ),
    "<\uff5cUser\uff5c>TEXT",
    "<\uff5cAssistant\uff5c><think>\n",
    _bytes_nfc,
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
GEMMA3 = Markers(
    (
        "<pad>",
        "<eos>",
        "<bos>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
        "<unused0>",
    ),
    "<start_of_turn>ROLE\nTEXT<end_of_turn>\n",
    "<start_of_turn>model\n",
    _pieces,
    "<bos>",
)
GLM4 = Markers(
    (
        "<|endoftext|>",
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
    ),
    "<|ROLE|>\nTEXT",
    "<|assistant|>\n",
    _bytes,
    "[gMASK]<sop>",
    "<|endoftext|>",
)
HARMONY = Markers(
    (
        "<|startoftext|>",
        "<|endoftext|>",
        "<|return|>",
        "<|constrain|>",
        "<|channel|>",
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|call|>",
        "<|endofprompt|>",
    ),
    "<|start|>ROLE<|message|>TEXT<|end|>",
    "<|start|>assistant",
    _bytes,
    end="<|return|>",
    text_markers=("Reasoning: high", "# Valid channels:"),
)
MISTRAL_TEKKEN = Markers(
    (
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[TOOL_CALLS]",
        "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
        "[IMG]",
        "[PREFIX]",
        "[MIDDLE]",
        "[SUFFIX]",
    ),
    "[INST]TEXT[/INST]",
    "",
    _bytes,
    "<s>",
    "</s>",
)
OLMO3 = Markers(
    ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "<|endofprompt|>", "<|fim_prefix|>"),
    _CHATML,
    "<|im_start|>assistant\n",
    _bytes,
    text_markers=("<functions>", "</functions>"),
)
PHI4 = Markers(
    (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_sep|>",
        "<|im_end|>",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|dummy_0|>",
    ),
    "<|im_start|>ROLE<|im_sep|>TEXT<|im_end|>",
    "<|im_start|>assistant<|im_sep|>",
    _bytes,
)
SMOLLM3 = Markers(
    (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|start_header_id|>",
        "<|eot_id|>",
    ),
    _CHATML,
    "<|im_start|>assistant\n",
    _bytes,
    text_markers=(*_SWITCHES, "## Custom Instructions"),
)
EXAONE4 = Markers(
    (
        "[BOS]",
        "[PAD]",
        "[|system|]",
        "[|user|]",
        "[|assistant|]",
        "[|tool|]",
        "[|endofturn|]",
        "<think>",
        "</think>",
    ),
    "[|ROLE|]\nTEXT[|endofturn|]\n",
    "[|assistant|]\n",
    _bytes_nfc,
)
GEMMA4 = Markers(
    (
        "<pad>",
        "<eos>",
        "<bos>",
        "<|turn>",
        "<turn|>",
        "<|channel>",
        "<channel|>",
        "<|think|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
        "<|image|>",
    ),
    "<|turn>ROLE\nTEXT<turn|>\n",
    "<|turn>model\n",
    _pieces,
    "<bos>",
)
MISTRAL_TEKKEN_13 = MISTRAL_TEKKEN._replace(
    controls=(
        *MISTRAL_TEKKEN.controls,
        "[THINK]",
        "[/THINK]",
        "[ARGS]",
        "[CALL_ID]",
        "[MODEL_SETTINGS]",
        "[/MODEL_SETTINGS]",
    )
)
NEMOTRON3 = Markers(
    (
        "<unk>",
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
    ),
    _CHATML,
    "<|im_start|>assistant\n",
    _bytes,
)
PHI4_REASONING = PHI4._replace(controls=(*PHI4.controls, "<think>", "</think>"))
SEED_OSS = Markers(
    (
        "<seed:bos>",
        "<seed:eos>",
        "<seed:pad>",
        "<seed:think>",
        "</seed:think>",
        "<seed:cot_budget_reflect>",
        "</seed:cot_budget_reflect>",
        "<seed:tool_call>",
        "</seed:tool_call>",
    ),
    "<seed:bos>ROLE\nTEXT<seed:eos>",
    "<seed:bos>assistant\n",
    _bytes,
)

MODELS = {
    "deepseek-r1-distill-qwen-7b": DEEPSEEK_R1_QWEN,
    "exaone-4.0-32b": EXAONE4,
    "gemma-3-12b-it": GEMMA3,
    "gemma-3-27b-it": GEMMA3,
    "gemma-4-12b-it": GEMMA4,
    "gemma-4-31b-it": GEMMA4,
    "glm-4-9b-0414": GLM4,
    "gpt-oss-120b": HARMONY,
    "gpt-oss-20b": HARMONY,
    "llama-3.1-8b-instruct": LLAMA3,
    "llama-3.3-70b-instruct": LLAMA3,
    "ministral-3-14b-instruct-2512": MISTRAL_TEKKEN_13,
    "mistral-small-24b-instruct-2501": MISTRAL_TEKKEN,
    "mistral-small-4-119b-2603": MISTRAL_TEKKEN_13,
    "nemotron-3-nano-30b-a3b": NEMOTRON3,
    "olmo-3-7b-instruct": OLMO3,
    "phi-4": PHI4,
    "phi-4-reasoning": PHI4_REASONING,
    "qwen3-0.6b": QWEN3,
    "qwen3-30b-a3b": QWEN3,
    "qwen3-30b-a3b-instruct-2507": QWEN3,
    "qwen3-32b": QWEN3,
    "qwen3-4b": QWEN3,
    "qwen3-8b": QWEN3,
    "qwen3-8b-awq": QWEN3,
    "qwen3.5-9b": QWEN3,
    "qwen3.6-27b": QWEN3,
    "qwen3.6-35b-a3b": QWEN3,
    "qwen3.8-27b": QWEN3,
    "seed-oss-36b-instruct": SEED_OSS,
    "smollm3-3b": SMOLLM3,
}
"""By name of the file in `model_configs/`."""


def make_files(markers: Markers, folder: Path) -> Path:
    """Write a small tokenizer with these control tokens and a chat template with these turns."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = markers.build(markers.controls)
    (folder / "tokenizer.json").write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
    end = markers.end or max(markers.controls, key=markers.turn.rfind)
    head, tail = markers.turn.replace("ROLE", "{{ m.role }}").split("TEXT")
    begin = markers.begin
    chat = (
        f"{begin}{{% for m in messages %}}{head}{{{{ m.content }}}}{tail}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{markers.opening}{{% endif %}}"
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "chat_template": chat,
        "eos_token": end,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
