"""Compilation of the network, and its distribution over several processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from .checks import expect
from .precision import Precision


@dataclass(frozen=True)
class Compute:
    """Options for compiling the network and distributing it over several processes.

    Args:
        compile: Whether to compile the network with `torch.compile`.
        shard: Whether to shard the weights, their EMA and the optimizer state over all processes
            (FSDP). Checkpoints hold full tensors and serve any number of processes.
        find_unused_parameters: Whether several processes look in each step for weights that took no
            part in it, which costs time. Needed for networks that do not use all their weights.
    """

    compile: bool = False
    shard: bool = False
    find_unused_parameters: bool = False

    def accelerator(self, precision: Precision, results_folder: Path) -> Accelerator:
        """Returns the accelerator of a run.

        Args:
            precision: Number format of the network's arithmetic.
            results_folder: Folder for TensorBoard's files.

        Raises:
            ValueError: If accelerate was launched with its own FSDP, DeepSpeed, Megatron-LM or XLA,
                or sharding is combined with fp16.
        """
        # accelerate keeps the precision of the first accelerator in a process for all later ones.
        AcceleratorState._reset_state()
        wrapper = DistributedDataParallelKwargs(find_unused_parameters=self.find_unused_parameters)
        accelerator = Accelerator(
            kwargs_handlers=[wrapper],
            mixed_precision=precision,
            log_with="tensorboard",
            project_dir=os.fspath(results_folder),
        )
        kind = accelerator.distributed_type.value
        fix = (
            "launch with torchrun or accelerate launch --multi_gpu, and set compute.shard to true "
            "if the model is too large for one device"
        )
        fits = kind not in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA")
        expect(fits, "plain or data-parallel processes", kind, fix)
        fits = not (self.shard and precision == "fp16")
        expect(fits, "bf16 or no for mixed_precision with compute.shard", precision, "choose bf16")
        return accelerator
