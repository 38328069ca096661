"""The Muon optimizer in float32 (PyTorch's own works in bfloat16, which is slow on most CPUs)."""

from __future__ import annotations

from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix with singular values of one (Newton-Schulz iteration)."""
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices, scaled to the size of an Adam step."""

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["buffer"] = torch.zeros_like(matrix)
                buffer = state["buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalise(matrix.grad.lerp(buffer, group["momentum"]))
                scale = 0.2 * max(matrix.shape) ** 0.5
                matrix.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"] * scale)
