"""What of a GPU a model takes and how fast it is there: by hand, by kind, and as one table for all models."""

from __future__ import annotations

import pytest
from golden_plans import TABLE, shapes, table
from hypothesis import given
from hypothesis import strategies as st

from orch_local.models.kv_cache import KvCache
from orch_local.placement.gpu_kinds import gpu_speed, is_known, kind_of
from orch_local.placement.gpu_memory import GpuGroup, fitting_tokens, step_gib
from orch_local.placement.roofline import Shape, Work, generating, shape

GIB = 2**30
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}
CACHE = KvCache(131_072)


# --- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "B200"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA GH200 480GB", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10"),
        ("NVIDIA GeForce RTX 5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 4090 D", "RTX 4090"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100"),
    ],
)
def test_a_kind_is_told_by_its_name(name: str, kind: str) -> None:
    assert kind_of(name, 0.0).name == kind
    assert is_known(name)


@pytest.mark.parametrize(
    ("gib", "kind"),
    [(180, "B200"), (141, "H200"), (80, "A100"), (48, "L40S"), (40, "A100"), (24, "A10"), (16, "T4")],
)
def test_an_unnamed_gpu_is_a_usual_one_of_its_memory(gib: float, kind: str) -> None:
    assert kind_of("", gib).name == kind
    assert not is_known("") and not is_known("Some GPU 9000")


def test_a_link_that_was_seen_counts_more_than_the_usual_one() -> None:
    linked, unlinked, usual = (gpu_speed("NVIDIA H100", 80.0, link) for link in (True, False, None))
    assert linked == usual
    assert unlinked.link_bytes_per_s < linked.link_bytes_per_s / 10
    assert gpu_speed("NVIDIA L4", 24.0, None).link_bytes_per_s == unlinked.link_bytes_per_s


# --- memory ---------------------------------------------------------------------------------------


def test_a_step_of_llama_8b_by_hand() -> None:
    # 8,192 tokens x (3 x 14336 + 6 x 4096) x 2 bytes, 256 x 128256 logits x 12 bytes
    assert step_gib(LLAMA_8B, 8192, 256) == pytest.approx(1.031 + 0.367, abs=0.001)
    # 8 experts of 768 a token: (2048 + 768) numbers each, less than a dense layer of 6144
    mixture = {"hidden_size": 2048, "moe_intermediate_size": 768, "num_experts_per_tok": 8}
    numbers = 8 * (2048 + 768) + 6 * 2048
    assert step_gib({**mixture, "intermediate_size": 6144}, 4096, 0) == pytest.approx(
        4096 * numbers * 2 / GIB
    )


def test_what_is_left_of_a_gpu_holds_sequences() -> None:
    group = GpuGroup(16.0, CACHE)  # 128 KiB a token
    assert group.sequences(20.0, 1.0, 1024) == 12  # 1.5 GiB of 0.125 each
    assert group.sequences(10.0, 1.0, 1024) == 0
    nothing_known = GpuGroup(16.0, KvCache(0))
    assert nothing_known.sequences(20.0, 1.0, 1024) > 10_000
    assert nothing_known.sequences(17.0, 1.0, 1024) == 0
    assert group.sequence_gib(1) == group.sequence_gib(16) == 16 / 8192


@given(room=st.floats(0, 200), window=st.integers(0, 4096), sequences=st.integers(1, 512))
def test_the_fitting_length_fits_and_a_longer_one_does_not(room: float, window: int, sequences: int) -> None:
    group = GpuGroup(10.0, KvCache(65_536, 65_536, window))

    def step(tokens: int) -> int:
        return max(tokens, sequences, 4096)

    def needed(tokens: int) -> float:
        return group.least_gib(step_gib(LLAMA_8B, step(tokens), sequences), tokens)

    found = fitting_tokens(group, LLAMA_8B, room, sequences, step)
    assert found % 256 == 0
    assert found == 0 or needed(found) <= room
    assert found == 256 * 2**13 or needed(found + 256) > room


# --- time -----------------------------------------------------------------------------------------


def test_the_active_parameters_of_mixtures() -> None:
    known = shapes()
    qwen = shape(known["qwen3-30b-a3b"], 61e9, 30.53e9)
    assert qwen.active == pytest.approx(3.3e9, rel=0.05)  # 3.3B on its card
    oss = shape(known["gpt-oss-20b"], 13.8e9, 20.9e9)
    assert oss.active == pytest.approx(3.6e9, rel=0.2)  # 3.6B on its card, embeddings left out
    dense = shape(LLAMA_8B, 16e9, 8.03e9)
    assert dense.active == 8.03e9 and dense.read_bytes(1) == dense.read_bytes(256) == 16e9
    assert qwen.read_bytes(1) < 0.15 * 61e9 and qwen.read_bytes(256) > 0.99 * 61e9


def test_a_roofline_by_hand() -> None:
    model = Shape(16e9, 8e9)
    speed = gpu_speed("NVIDIA H100", 80.0, None)
    few = generating(model, CACHE, Work(0, 1000, 1, 0), speed)
    assert few.total == pytest.approx(1000 * (16e9 / 2.2e12 + 0.01))
    assert few.idle == pytest.approx(10)
    reading = generating(model, CACHE, Work(1e6, 0, 1, 0), speed)
    assert reading.total == pytest.approx(2 * 8e9 * 1e6 / 4e14)
    full = generating(model, CACHE, Work(0, 256_000, 256, 1000), speed)
    assert full.total == pytest.approx(1000 * ((16e9 + 256_000 * 131_072) / 2.2e12 + 0.01))


def test_gpus_share_work_and_pay_for_their_link() -> None:
    model = shape(LLAMA_8B, 16e9, 8.03e9)
    work = Work(5e6, 1.5e6, 256, 575)
    linked, unlinked = (gpu_speed("NVIDIA H100", 80.0, link) for link in (True, False))
    alone = generating(model, CACHE, work, linked).total
    half = KvCache(65_536)
    assert alone / 2 < generating(model, half, work, linked, 2).total < alone
    assert generating(model, half, work, unlinked, 2).total > generating(model, half, work, linked, 2).total


# --- all of it ------------------------------------------------------------------------------------


def test_the_plans_of_all_models_are_those_of_the_table() -> None:
    """`python tests/support/golden_plans.py` writes it anew: would you place the models like that?"""
    assert table() == TABLE.read_text(encoding="utf-8")
