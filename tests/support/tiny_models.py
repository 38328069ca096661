"""Tiny random models in complete Hugging Face folders, for tests that need real engines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

END = "<|im_end|>"
SPECIAL = ("<|endoftext|>", "<|im_start|>", END, "<think>", "</think>")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = (
    'Answer as JSON: {"reasoning":"the sum of the two numbers is even","eliminated":["A","B"],"answer":"C",'
    '"confidence":87}',
    "Which of the choices is the capital of the country? A) Paris B) London C) Rome D) Madrid",
    "The quick brown fox jumps over the lazy dog while 0123456789 bottles stand on the wall.",
)


def make_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    architecture: str = "llama",
    max_positions: int = 2048,
    wide: bool = False,
) -> Path:
    """Write a complete model folder: random weights, a byte-level BPE tokenizer, a chat template.

    Parameters
    ----------
    folder:
        Made if missing.
    seed:
        Of the random weights; equal seeds give equal files.
    architecture:
        ``llama`` or ``qwen2``.
    max_positions:
        Longest context in tokens.
    wide:
        Hidden size 512 for 64. Only then does what was read at once differ in its last bits, on a CPU, from
        what was written token by token.

    Returns
    -------
    Path
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = make_tiny_tokenizer(folder)
    _write_weights(folder, seed, _config(architecture, vocabulary, max_positions, wide=wide))
    return folder


def make_models(root: Path, names: Iterable[str], make: Callable[..., object]) -> Path:
    """Write a model folder for each name by ``make``; the second has another architecture."""
    for seed, name in enumerate(names):
        make(root / name, seed=seed, architecture="qwen2" if seed == 1 else "llama")
    return root


def make_weightless_model(folder: Path, *, seed: int = 0, architecture: str = "llama") -> Path:
    """Write a model folder that can be planned and digested, but answers nothing: its only tensor is a seed.

    Unlike `make_tiny_model` it imports neither torch nor transformers, which takes ten seconds of CPU.
    """
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = make_tiny_tokenizer(folder)
    name = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[architecture]
    config = {
        "architectures": [name],
        "model_type": architecture,
        "dtype": "float32",
        "vocab_size": len(vocabulary) + 1,
        "hidden_size": 64,
        "intermediate_size": 1408,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 2048,
        "eos_token_id": vocabulary[END],
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    save_file({"lm_head.weight": np.full((1, 64), seed, np.float32)}, folder / "model.safetensors")
    return folder


def make_tiny_tokenizer(folder: Path) -> dict[str, int]:
    """Write a byte-level BPE tokenizer with a chat template; returns its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return dict(tokenizer.get_vocab())


def _config(architecture: str, vocabulary: dict[str, int], max_positions: int, *, wide: bool) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    classes: dict[str, Any] = {"llama": LlamaConfig, "qwen2": Qwen2Config}
    return classes[architecture](
        # One row more than the tokenizer has, as real models often do.
        vocab_size=len(vocabulary) + 1,
        hidden_size=512 if wide else 64,
        # Wider than 1024, where oneDNN computes a single row in its own way.
        intermediate_size=1408,
        num_hidden_layers=2,
        # vLLM has no CPU attention for heads narrower than 32.
        num_attention_heads=8 if wide else 2,
        num_key_value_heads=2 if wide else 1,
        max_position_embeddings=max_positions,
        bos_token_id=None,
        eos_token_id=vocabulary[END],
        pad_token_id=None,
        tie_word_embeddings=False,
    )


def _write_weights(folder: Path, seed: int, config: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # Wider than the default, so that random models write varied texts.
        torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    model.generation_config = GenerationConfig(eos_token_id=config.eos_token_id)
    model.save_pretrained(folder, safe_serialization=True)
