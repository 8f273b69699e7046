"""What a run ran on."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("sfumato", "torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn", "pydantic", "safetensors")


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def device_name() -> str:
    """In words: the accelerator that will be used, or the processor."""
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{torch.cuda.get_device_name(0)} ({memory:.0f} GiB) x {torch.cuda.device_count()}"
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads)"


def environment() -> dict[str, Any]:
    """The content of environment.json: nothing that names a person or a machine, apart from paths in the command."""
    return {
        "command": ["sfumato", *sys.argv[1:]],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
        "packages": {name: found for name in PACKAGES if (found := installed(name)) is not None},
    }
