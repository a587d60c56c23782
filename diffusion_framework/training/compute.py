"""How a run uses its devices, beyond the number format of `mixed_precision`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from .checks import expect
from .precision import Precision


@dataclass(frozen=True)
class Compute:
    """How the network is run and where its weights lie.

    Args:
        compile: Compile the network with `torch.compile`.
        shard: Keep on each of several processes only its part of the weights, of their average and
            of the optimizer's state (FSDP). Checkpoints hold them whole and serve any number of
            processes.
    """

    compile: bool = False
    shard: bool = False

    def accelerator(self, precision: Precision, results_folder: Path) -> Accelerator:
        """Returns the accelerator of a run.

        Args:
            precision: Number format of the network's arithmetic.
            results_folder: Folder for TensorBoard's files.

        Raises:
            ValueError: a way of launching whose runs could not be saved and resumed exactly.
        """
        # accelerate keeps the precision of the first accelerator in a process for all later ones.
        AcceleratorState._reset_state()
        accelerator = Accelerator(
            mixed_precision=precision,
            log_with="tensorboard",
            project_dir=os.fspath(results_folder),
        )
        kind = accelerator.distributed_type.value
        fix = (
            "launch with accelerate launch --multi_gpu, or torchrun, and set compute.shard to true "
            "for a model too large for one device"
        )
        fits = kind not in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA")
        expect(fits, "plain processes", f"{kind} of accelerate", fix)
        fits = not (self.shard and precision == "fp16")
        expect(fits, "bf16 or float32 with compute.shard", precision, "set mixed_precision to bf16")
        return accelerator
