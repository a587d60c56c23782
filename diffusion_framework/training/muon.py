"""`Muon`, an optimizer of matrices, with AdamW for all other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

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
            given = [parameter for parameter in group["params"] if parameter.grad is not None]
            self._step_matrices([parameter for parameter in given if parameter.ndim > 1], group)
            self._step_others([parameter for parameter in given if parameter.ndim < 2], group)

    def _step_matrices(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Takes orthogonal steps, whose mean square is 0.2², as that of AdamW is in practice."""
        shapes: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter in parameters:
            state: dict[str, Tensor] = self.state[parameter]
            gradient: Any = parameter.grad
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            matrix = full_tensor(gradient.lerp(momentum, group["momentum"])).flatten(1)
            shapes.setdefault(matrix.shape, []).append((parameter, matrix))
        for shape, members in shapes.items():  # together, as each alone is small
            steps = orthogonalised(torch.stack([matrix for _, matrix in members]))
            for (parameter, _), step in zip(
                members, steps * (0.2 * max(shape) ** 0.5), strict=True
            ):
                own = shard_like({"step": step.view(parameter.shape)}, {"step": parameter})["step"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(own, alpha=-group["lr"])

    def _step_others(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Takes the steps of AdamW."""
        for parameter in parameters:
            if not self.state[parameter]:
                for slot in ("exp_avg", "exp_avg_sq"):
                    self.state[parameter][slot] = torch.zeros_like(parameter)
                self.state[parameter]["step"] = torch.tensor(0.0)
        slots = ("exp_avg", "exp_avg_sq")
        means, squares = ([self.state[p][slot] for p in parameters] for slot in slots)
        gradients: list[Any] = [p.grad for p in parameters]
        steps = [self.state[p]["step"] for p in parameters]
        options: dict[str, Any] = {
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "eps": group["eps"],
        }
        options |= {"beta1": group["betas"][0], "beta2": group["betas"][1]}
        options |= {"amsgrad": False, "maximize": False}
        adamw([*parameters], gradients, means, squares, [], steps, **options)


def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Returns matrices with the singular vectors of others, and singular values near 1.

    The iteration is of Newton and Schulz; values of 0 stay 0. GPUs compute in bfloat16.

    Args:
        matrices: Matrices [..., rows, columns].
        iterations: Number of iterations.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)
