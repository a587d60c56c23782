"""`Muon`, an optimizer of matrices, with AdamW for all other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .distributed import full_tensor, shard_like

_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the polynomial that Jordan et al. 2024 found


@final
class Muon(Optimizer):
    """Steps of matrices are orthogonal; other weights take those of AdamW (Jordan et al. 2024).

    The weight of a convolution is a matrix [out, in * height * width]. Steps are scaled to the size
    of those of AdamW, so that both share a learning rate (Liu et al. 2025, "Muon is scalable").

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        momentum: Decay of the momentum of matrices (Nesterov).
        betas: AdamW's betas, for weights of less than two dimensions.
        eps: AdamW's epsilon.
        weight_decay: Weight decay of all weights, times the learning rate.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, {**options, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes a step; a closure is not called."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change = _matrix_step if parameter.ndim > 1 else _adam_step
                    update = change(parameter.grad, self.state[parameter], group)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"])


def _matrix_step(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Returns the orthogonal step, whose mean square is 0.2², as that of AdamW is in practice."""
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    whole = full_tensor(gradient.lerp(momentum, group["momentum"]))
    matrix = whole.flatten(1)
    step = (orthogonalised(matrix) * (0.2 * max(matrix.shape) ** 0.5)).view_as(whole)
    return shard_like({"step": step}, {"step": gradient})["step"]


def _adam_step(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Returns the step of Adam (Kingma & Ba 2015, alg. 1)."""
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(gradient)}
        state["square"] = torch.zeros_like(gradient)
    state["step"] += 1
    first, second = group["betas"]
    mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
    square = state["square"].lerp_(gradient.square(), 1 - second)
    return mean / ((square / (1 - second ** state["step"])).sqrt() + group["eps"])


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Returns a matrix with the singular vectors of another, and singular values near 1.

    The iteration is of Newton and Schulz; values of 0 stay 0. GPUs compute in bfloat16.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    x = x / (x.norm() + 1e-7)
    x = x.mT if len(matrix) > matrix.shape[1] else x
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    x = x.mT if len(matrix) > matrix.shape[1] else x
    return x.to(matrix.dtype)
