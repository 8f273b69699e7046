"""What runs are called, in tables and as folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BENCH, CELL = "bench.json", "cell.json"  # what a bench is; what it calls a run


def labels_name(settings: Mapping[str, Any]) -> str:
    """From settings of the data, dotted or not: how many labels there are."""
    found = {key.rpartition(".")[2]: value for key, value in settings.items() if value is not None}
    if "labels" in found:
        return str(found["labels"])
    if "labels_per_class" in found:
        return f"{found['labels_per_class']}-per-class"
    if "fraction" in found:
        return f"{100 * float(found['fraction']):g}-percent"
    return Path(str(found["lists"])).name if "lists" in found else "all"


def data_name(settings: Mapping[str, Any]) -> str:
    """From dotted settings: the published set or the source."""
    source = settings.get("data.source")
    return str(settings.get("data.protocol") or (Path(str(source)).stem if source else "data"))


def method_name(settings: Mapping[str, Any]) -> str:
    """From dotted settings: the method, and what is added to it."""
    addon = settings.get("addon.name")
    return f"{settings.get('method.name')}+{addon}" if addon else str(settings.get("method.name"))


def folder_name(name: str) -> str:
    """`name` where it is fit for a folder of any system, else with other characters replaced."""
    return re.sub(r"[^\w.+=-]+", "-", name).strip("-.") or "-"


def told_apart(names: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names, and behind those that several have the settings in which they differ.

    ["fixmatch (threshold=0.8)", "fixmatch (threshold=0.95)", "softmatch"]
    """
    found = []
    for name, mine in zip(names, settings, strict=True):
        others = [theirs for other, theirs in zip(names, settings, strict=True) if other == name]
        keys = {key for one in others for key in (*one, *mine) if one.get(key) != mine.get(key)}
        told = ", ".join(f"{key.rpartition('.')[2]}={mine.get(key)}" for key in sorted(keys))
        found.append(f"{name} ({told})" if told else name)
    return found
