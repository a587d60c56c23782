"""Compilation of the network, and its distribution over several processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from .checks import expect
from .launching import check_launch
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
        timeout: Seconds to wait for another process of the run, such as one that was stopped,
            before the run ends with an error that names it.

    Raises:
        ValueError: If a field is out of range.
    """

    compile: bool = False
    shard: bool = False
    find_unused_parameters: bool = False
    timeout: float = 900.0

    def __post_init__(self) -> None:
        wanted = "compute.timeout above 0"
        expect(self.timeout > 0, wanted, self.timeout, "give seconds, such as 900")

    def accelerator(self, precision: Precision, results_folder: Path) -> Accelerator:
        """Returns the accelerator of a run.

        Args:
            precision: Number format of the network's arithmetic.
            results_folder: Folder for the files of trackers.

        Raises:
            ValueError: If accelerate was launched with its own FSDP, DeepSpeed, Megatron-LM or XLA,
                sharding is combined with fp16, or the processes of a launcher form no run.
        """
        # accelerate keeps the precision of the first accelerator in a process for all later ones.
        AcceleratorState._reset_state()
        wrapper = DistributedDataParallelKwargs(find_unused_parameters=self.find_unused_parameters)
        patience = InitProcessGroupKwargs(timeout=timedelta(seconds=self.timeout))
        accelerator = Accelerator(
            kwargs_handlers=[wrapper, patience],
            mixed_precision=precision,
            project_dir=os.fspath(results_folder),
        )
        check_launch(accelerator)
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
