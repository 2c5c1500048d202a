"""The machine that this runs on."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any


def cores() -> int:
    """Cores this process may use (a container or taskset may allow fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Processor, cores, memory in bytes where it is known, and the versions that speed depends on."""
    processor = _processor("model name") or platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "processor": processor,
        "cores": cores(),
        "memory": memory,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def instructions() -> str:
    """What tells processors apart that compute with other instructions, as far as the system says."""
    return _processor("flags", "Features") or f"{platform.machine()} {platform.processor()}"


def _processor(*names: str) -> str | None:
    """The first core's line of one of these names, on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(names)), None)
    except OSError:
        return None


def keep_memory() -> None:
    """Memory that is freed stays with this process for what it asks for next.

    glibc gives large blocks back to the system, which clears every page before it gives it out again: a quarter of the
    time that a training step takes on a CPU. Elsewhere nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block has pages of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nor are free ones at the end given back


def unique() -> str:
    """A name that no other process has, on this machine or another."""
    return f"{platform.node()}.{os.getpid()}"


def resident() -> int:
    """Bytes of memory that this process holds, its peak where the system does not say how many now."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
