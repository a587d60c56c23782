"""How a run uses its devices, beyond the number format of `mixed_precision`."""

from __future__ import annotations

from dataclasses import dataclass


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
