"""How much memory a run may still take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

_FILES = {  # of a control group, by the name of its hierarchy: the limit, the use, what of it could be dropped at once
    "": ("memory.max", "memory.current", "inactive_file"),  # version 2
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
}


def free_memory(hierarchies: Path = Path("/sys/fs/cgroup"), of_process: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that are free on the machine, or fewer if a container or a batch job leaves this process fewer.

    Args:
        hierarchies: Where Linux shows control groups, by which it limits such jobs.
        of_process: The file that names those of this process.
    """
    free = psutil.virtual_memory().available
    for line in of_process.read_text().splitlines() if of_process.exists() else ():
        _, hierarchy, group = line.split(":", 2)
        own = Path(group.lstrip("/"))
        for each in (own, *own.parents) if hierarchy in _FILES else ():  # the limits of those above hold as well
            with suppress(OSError, ValueError, KeyError):  # no limit, or none shown
                free = min(free, _left(hierarchies / hierarchy / each, *_FILES[hierarchy]))
    return free


def _left(group: Path, limit: str, use: str, droppable: str) -> int:
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    used = int((group / use).read_text()) - int(statistics[droppable])
    return int((group / limit).read_text()) - used
