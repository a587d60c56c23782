"""What a run changes as it trains, and how that is put into a checkpoint and taken out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from ema_pytorch import EMA
from torch import Tensor

from ..checkpoint import Checkpoint
from ..diffusion import GaussianDiffusion


class TrainingState:
    """The weights, their average, the optimizer and the number of steps done.

    Args:
        diffusion: The model; it is moved to the device.
        accelerator: Says which device, and wraps the model for several processes.
        ema: Options of the average (`ema_pytorch.EMA`).
        adam: Options of AdamW.
        compile: Compile the network.

    Attributes:
        step: Optimizer steps done.
        model: The diffusion model as it is to be called in training: wrapped for several processes.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        accelerator: Accelerator,
        *,
        ema: Mapping[str, Any],
        adam: Mapping[str, Any],
        compile: bool,
    ) -> None:
        self.accelerator, self.step = accelerator, 0
        self.diffusion = diffusion.to(accelerator.device)
        # Made on the device rather than moved there: its step counter then stays on the CPU, where reading it is free.
        self.ema = EMA(self.diffusion, include_online_model=False, use_foreach=True, **ema)
        if compile:
            self.diffusion.model.compile()
        fused = accelerator.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(self.diffusion.parameters(), fused=fused, **adam)
        self.model, self.optimizer = accelerator.prepare(self.diffusion, optimizer)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors of a checkpoint, by file and name."""
        return {
            "model": self.diffusion.state_dict(),
            "ema": self.ema.ema_model.state_dict(),
            "optimizer": self._optimizer_slots(Tensor),
        }

    def numbers(self) -> dict[str, Any]:
        """What a checkpoint needs beside the tensors, as plain data."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self._optimizer_slots((int, float)),
            "ema_step": int(self.ema.step),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Go back to where `tensors` and `numbers` were taken. Raises ValueError if the checkpoint does not fit."""
        checkpoint.load_weights(self.diffusion, "model")
        checkpoint.load_weights(self.ema.ema_model, "ema")
        numbers = checkpoint.state
        self._load_optimizer({**checkpoint.tensors("optimizer"), **numbers["optimizer"]})
        self.ema.step.fill_(numbers["ema_step"])
        self.ema.initted.fill_(True)
        if numbers["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(numbers["scaler"])
        self.step = checkpoint.step

    def _names(self) -> list[str]:
        """Of the parameters, in the optimizer's order."""
        return [name for name, _ in self.diffusion.named_parameters()]

    def _optimizer_slots(self, kind: Any) -> dict[str, Any]:
        """What the optimizer remembers that is of this kind, as "parameter.slot"."""
        names = self._names()
        return {
            f"{names[index]}.{slot}": value
            for index, slots in self.optimizer.state_dict()["state"].items()
            for slot, value in slots.items()
            if isinstance(value, kind)
        }

    def _load_optimizer(self, slots: dict[str, Any]) -> None:
        """Undo `_optimizer_slots`. The options of the parameter groups are the optimizer's own, not stored ones."""
        index = {name: i for i, name in enumerate(self._names())}
        state: dict[int, dict[str, Any]] = {}
        for key, value in slots.items():
            name, _, slot = key.rpartition(".")
            state.setdefault(index[name], {})[slot] = value
        with torch.no_grad():
            self.optimizer.load_state_dict(
                {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
