"""What was measured on, and with what."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("iglens", "torch", "transformers", "numpy")


def machine() -> dict[str, Any]:
    """Processor, threads, memory, and how busy it was."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of Python and the packages that matter."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def _processor() -> str:
    """Its model, as the system calls it."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        lines = told.read_text(encoding="utf-8").splitlines()
        named = dict(line.split(":", 1) for line in lines if ":" in line)
        for key, value in named.items():
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
