"""What several processes of a run agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def on_main_process(accelerator: Accelerator, task: Callable[[], T]) -> T | None:
    """Run the task on the main process while the others wait.

    Returns:
        What the task returned; None on the other processes.

    Raises:
        Exception: what the task raised; on the other processes an OSError with the same message.
    """
    result, error = None, None
    if accelerator.is_main_process:
        try:
            result = task()
        except Exception as caught:
            error = caught
    (message,) = broadcast_object_list([error and f"{type(error).__name__} on the main process: {error}"])
    if error is not None:
        raise error
    if message is not None:
        raise OSError(message)
    return result
