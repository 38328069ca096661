"""The four tiny networks and their structured initialisation.

With an ordinary random start a network of this size learns to compute values, but not to look up the label
of a value among the choices.  So the heads start with a job: those of the first layer look a fixed number of
tokens back, those of the later layers look for the token that equals their own (or the one before it).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StableLmConfig,
    StableLmForCausalLM,
)

ARCHITECTURES = {"quant": "llama", "chrono": "granite", "verbal": "stablelm", "merge": "llama"}
WIDTH, LAYERS, HEADS = 128, 3, 4
HEAD_DIM = WIDTH // HEADS
ROPE_THETA = 100_000.0
EMBEDDING_STD = 0.04
OFFSET_STRENGTH = 7.0  # size of the query and key biases that make a head look a fixed distance back
OFFSET_FREQUENCIES = 5  # how many of the fastest rotary frequencies carry them
MATCH_STRENGTH = 1.8  # scale of the queries and keys of the heads that look for an equal token
REPEL_STRENGTH = 4.0  # biases that keep those heads off their own neighbourhood
REPEL_FREQUENCIES = 4


def build_network(role: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A new network for a role, with the structured start."""
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
        "initializer_range": EMBEDDING_STD,
    }
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    architecture = ARCHITECTURES[role]
    model: PreTrainedModel
    if architecture == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(**common, head_dim=HEAD_DIM, attention_bias=True, rope_parameters=rope)
        )
    elif architecture == "granite":
        scale = HEAD_DIM**-0.5
        model = GraniteForCausalLM(
            GraniteConfig(**common, attention_bias=True, attention_multiplier=scale, rope_parameters=rope)
        )
    else:
        whole = {"partial_rotary_factor": 1.0}  # readers look for it in either place
        model = StableLmForCausalLM(
            StableLmConfig(**common, use_qkv_bias=True, rope_parameters={**rope, **whole}, **whole)
        )
    structure(model)
    return model


@torch.no_grad()
def structure(model: PreTrainedModel) -> None:
    """Give the attention heads of a fresh network their starting jobs."""
    stored: list[torch.Tensor] = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.weight.mul_(0.25)
        if index == 0:
            stored = _look_back(layer.self_attn)
        else:
            _look_for_equal(layer.self_attn, stored if index == 1 else None)


def _rows(head: int) -> slice:
    """The rows of a projection that belong to a head."""
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


def _look_back(attention: nn.Module) -> list[torch.Tensor]:
    """Head h attends to the token h + 1 places back and stores it in a subspace, which is returned."""
    half = HEAD_DIM // 2
    stored = []
    for head in range(HEADS):
        rows = _rows(head)
        attention.q_proj.weight[rows] *= 0.1
        attention.k_proj.weight[rows] *= 0.1
        query, key = attention.q_proj.bias[rows], attention.k_proj.bias[rows]
        for index in range(OFFSET_FREQUENCIES):
            angle = (head + 1) * ROPE_THETA ** (-index / half)
            key[index] = OFFSET_STRENGTH
            query[index] = OFFSET_STRENGTH * math.cos(angle)
            query[index + half] = -OFFSET_STRENGTH * math.sin(angle)
        subspace = nn.init.orthogonal_(torch.empty(HEAD_DIM, WIDTH))
        attention.v_proj.weight[rows] = subspace
        attention.o_proj.weight[:, rows] = subspace.T * EMBEDDING_STD
        stored.append(subspace)
    return stored


def _look_for_equal(attention: nn.Module, stored: list[torch.Tensor] | None) -> None:
    """Heads with equal query and key maps; with ``stored``, they copy what the first layer stored there."""
    for head in range(HEADS):
        rows = _rows(head)
        match = nn.init.orthogonal_(torch.empty(HEAD_DIM, WIDTH))
        if stored is not None and head % 2 == 1:
            match = stored[0]
        attention.q_proj.weight[rows] = match * MATCH_STRENGTH
        attention.k_proj.weight[rows] = match * MATCH_STRENGTH
        attention.k_proj.bias[rows][:REPEL_FREQUENCIES] = REPEL_STRENGTH
        attention.q_proj.bias[rows][:REPEL_FREQUENCIES] = -REPEL_STRENGTH
        if stored is not None:
            attention.v_proj.weight[rows] = stored[head]
            attention.o_proj.weight[:, rows] = stored[head].T * (2 * EMBEDDING_STD)
