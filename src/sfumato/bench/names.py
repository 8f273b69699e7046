"""What runs are called, in tables and as folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BENCH, CELL = "bench.json", "cell.json"  # what a bench is; what it calls a run


def labels_name(settings: Mapping[str, Any]) -> str:
    """From settings of the data, dotted or not: how many labels there are, and what else is said."""
    found = {key.rpartition(".")[2]: value for key, value in settings.items() if value is not None}
    count = ""
    if (number := found.pop("labels", None)) is not None:
        count = str(number)
    elif (number := found.pop("labels_per_class", None)) is not None:
        count = f"{number}-per-class"
    elif (share := found.pop("fraction", None)) is not None:
        count = f"{100 * float(share):g}-percent"
    elif (lists := found.pop("lists", None)) is not None:
        count = Path(str(lists)).name
    return "-".join([*([count] if count else []), *(f"{key}-{value}" for key, value in found.items())]) or "all"


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
