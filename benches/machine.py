"""What the numbers were measured on."""

import os
import platform
import resource
from pathlib import Path
from typing import Any

FILE_SYSTEMS_WITHOUT_DISK = ("tmpfs", "ramfs", "overlay")


def facts(directory: Path) -> dict[str, Any]:
    """Return processor, kernel, memory, file system of `directory` and load, without the machine's name."""
    device, kind, options = mount_of(directory)
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": f"{kind} ({options})",
        "disk": _disk(device),
        "load_average": os.getloadavg(),
    }


def mount_of(directory: Path) -> tuple[str, str, str]:
    """Return device, kind and options of the file system that holds `directory`."""
    found = ("", "unknown", "")
    longest = -1
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, place, kind, options, *_ = line.split()
        if directory.resolve().is_relative_to(place) and len(place) >= longest:
            found, longest = (device, kind, options), len(place)
    return found


def allow_many_files() -> int:
    """Raise this process's limit of open files as far as the system lets it, and return it; children inherit it."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    return files_max


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _disk(device: str) -> str:
    name = Path(device).name
    for candidate in (name, name.rstrip("0123456789")):
        cache = Path("/sys/block") / candidate / "queue" / "write_cache"
        if cache.exists():
            return f"{candidate}, {cache.read_text(encoding='ascii').strip()}"
    return name
