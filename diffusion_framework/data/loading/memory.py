"""Free memory of the machine, within the limits of a container or batch job."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

# Hierarchy of a control group -> files of its limit and usage, key of the reclaimable page cache
_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),  # cgroup v2
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # v1
}


def free_memory(
    hierarchies: Path = Path("/sys/fs/cgroup"), of_process: Path = Path("/proc/self/cgroup")
) -> int:
    """Returns the free memory in bytes, within the limits of this process's control groups.

    Linux limits containers and batch jobs through control groups.

    Args:
        hierarchies: Folder in which Linux mounts the control groups.
        of_process: File that lists the control groups of this process.
    """
    free = psutil.virtual_memory().available
    for line in of_process.read_text(encoding="utf-8").splitlines() if of_process.exists() else ():
        _, hierarchy, group = line.split(":", 2)
        own = Path(group.lstrip("/"))
        for each in (own, *own.parents) if hierarchy in _FILES else ():  # parents limit it as well
            with suppress(OSError, ValueError, KeyError):  # unlimited, or not visible here
                free = min(free, _remaining(hierarchies / hierarchy / each, *_FILES[hierarchy]))
    return free


def _remaining(group: Path, limit: str, usage: str, reclaimable: str) -> int:
    """Returns the bytes that a control group may still allocate."""
    statistics = dict(
        line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    )
    used = int((group / usage).read_text(encoding="utf-8")) - int(statistics[reclaimable])
    return int((group / limit).read_text(encoding="utf-8")) - used
