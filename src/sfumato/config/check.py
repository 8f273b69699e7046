"""What settings must not say beyond the types of their values: wrong names, and values that nothing would use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sfumato.addons import join
from sfumato.config.meant import check_addon_name, check_method_name
from sfumato.config.schema import DEFAULT_RECIPES, DataSection
from sfumato.data.pairs import PROTOCOLS
from sfumato.data.protocols import CLASS_PROTOCOLS
from sfumato.data.task import Task
from sfumato.errors import UsageError, nearest
from sfumato.methods import METHODS, Facts, build, describe
from sfumato.models import OWN_NAMES, check_model_name, check_segmenter_name, segmenter_names
from sfumato.train_config import TrainConfig
from sfumato.views.dense_presets import DENSE_PRESETS
from sfumato.views.presets import PRESETS

Settings = Mapping[str, tuple[Any, str]]
"""Dotted key -> (value, where it comes from)."""

COMMAND_LINE = "command line"
DATA_IS: dict[Task, str] = {
    "classification": "the data has a class for each image",
    "segmentation": "the data has masks",
}
OTHER: dict[Task, str] = {"classification": "images with masks", "segmentation": "images with a class each"}
NAMES: dict[Task, tuple[Iterable[str], Callable[[str], None]]] = {  # of views, and what refuses other models
    "classification": (PRESETS, check_model_name),
    "segmentation": (DENSE_PRESETS, check_segmenter_name),
}
_OF_MASKS = (
    "data.masks", "data.lists", "data.format", "data.classes", "data.mapping", "data.void", "data.resize",
    "model.encoder",
)  # fmt: skip
_OF_CLASSES = (
    "data.gamma_labeled", "data.gamma_unlabeled", "data.head_labeled", "data.head_unlabeled", "data.class_order",
    "data.noise", "data.noise_kind", "data.noise_val", "data.download",
)  # fmt: skip
# keys that a task has no use for, with what to give instead
NOT_OF: dict[Task, dict[str, str]] = {
    "classification": dict.fromkeys((*_OF_MASKS, "views.crop", "evaluate.inference"), ""),
    "segmentation": {
        **dict.fromkeys(_OF_CLASSES, ""),
        "data.labels_per_class": "Use labels=NUMBER of masks, or fraction: a mask holds many classes.",
        "data.image_size": "Use resize=LONG_SIDE to read images smaller, crop=SIDE for what training sees at a time.",
        "model.dropout": "",
        "train.layer_decay": "",
    },
}
PROTOCOL_OF: dict[Task, Iterable[str]] = {"classification": CLASS_PROTOCOLS, "segmentation": PROTOCOLS}
OTHER_TASK: dict[Task, Task] = {"classification": "segmentation", "segmentation": "classification"}
COUNTS = ("data.labels", "data.labels_per_class", "data.fraction")  # of labels: one of them at most


def check_method(section: dict[str, Any], addon: dict[str, Any], task: Task, problems: list[str]) -> None:
    """Built once for nothing: a method checks its own options, and this is before any image is read."""
    # How many classes there are is not known yet: as many as an option has numbers, which may be one a class.
    classes = max((len(x) for x in (*section.values(), *addon.values()) if isinstance(x, list | tuple)), default=0)
    classes = max(2, classes)
    facts = Facts(classes, 2, task == "segmentation", num_labeled=classes, label_counts=(1,) * classes)
    try:
        check_method_name(section["name"])
        method = build(section["name"], facts, _options(section))
    except UsageError as error:
        problems.append(str(error))
        return
    try:
        if addon.get("name") is not None:
            check_addon_name(addon["name"])
            join(addon["name"], method, facts, _options(addon), method_name=section["name"])
        elif _options(addon):
            problems.append(f"addon.{next(iter(_options(addon)))}: no add-on is named, addon=NAME.")
    except UsageError as error:
        problems.append(str(error))


def _options(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


def check_frequencies(data: DataSection, problems: list[str]) -> None:
    """Long tails and label noise check themselves; what excludes one another by itself is told elsewhere."""
    for asked in ("long_tail", "label_noise", "request"):
        try:
            getattr(data, asked)
        except UsageError as error:
            if asked != "request" or data.gamma_labeled is not None:
                problems.append(str(error))


def check_names(settings: Settings, task: Task, problems: list[str]) -> None:
    values = {key: value for key, (value, _) in settings.items()}
    preset, model = str(values.get("views.preset", "auto")), str(values.get("model.name", "auto"))
    presets, check_model = NAMES[task]
    if preset not in ("auto", *presets):
        problems.append(f"views.preset='{preset}': {_wrong_preset(preset, task, _data_is(settings, task))}")
    counts = [key for key in COUNTS if values.get(key) is not None]
    if len(counts) > 1:
        problems.append(f"{' and '.join(counts)} are both given: expected one of them, or none to use all labels.")
    if model != "auto":
        try:
            check_model(model)
        except UsageError as error:
            problems.append(_wrong_model(error, settings, task))


def _wrong_preset(preset: str, task: Task, data_is: str) -> str:
    own = list(NAMES[task][0])
    if not any(preset in presets for presets, _ in NAMES.values()):
        return f"no such preset.{nearest(preset, ['auto', *own])}"
    return f"a preset for {OTHER[task]}, and {data_is}. Expected auto, {', '.join(own)}."


def _wrong_model(error: UsageError, settings: Settings, task: Task) -> str:
    name, origin = settings["model.name"]
    if origin.startswith("recipe "):
        return f"{origin} is for {OTHER[task]}, and {_data_is(settings, task)}. Take recipe={DEFAULT_RECIPES[task]}."
    if task == "classification" and name in segmenter_names():
        known = f"Expected {', '.join(OWN_NAMES)}, or a name of timm.list_models()."
        return f"model '{name}' is for {OTHER[task]}, and {_data_is(settings, task)}. {known}"
    return str(error)


def _data_is(settings: Settings, task: Task) -> str:
    """Why a value of the other task does not do."""
    if settings.get("data.source", ("", ""))[0] or settings.get("data.task", ("auto", ""))[0] != "auto":
        return DATA_IS[task]
    return f"without data the task is {task}, unless task= names another"


def check_use(settings: Settings, task: Task, train: TrainConfig, problems: list[str]) -> None:
    """A value that nothing uses is a mistake when someone has just typed it."""
    weights, method = settings.get("model.weights", (None, ""))[0], settings["method.name"][0]
    in_rounds = method in METHODS and describe(method).views.stored
    unused = {
        "train.steps": (train.epochs is not None, f"epochs={train.epochs} takes its place. Give one of the two"),
        "train.momentum": (train.optimizer != "sgd", "only optimizer=sgd has a momentum"),
        "train.final_lr": (train.schedule != "cosine_half", "only schedule=cosine_half has a final_lr"),
        "train.unlabeled_start": (in_rounds, f"{method} has the labels of all its images from the first step"),
        "model.pretrained": (weights is not None, "weights=FILE takes its place"),
    }
    for key, (is_unused, why) in unused.items():
        value, origin = settings.get(key, (None, ""))
        if is_unused and value and origin == COMMAND_LINE:
            problems.append(f"{COMMAND_LINE}: {key}={value}: nothing would use it: {why}.")
    protocol, origin = settings.get("data.protocol", (None, ""))
    if protocol in PROTOCOL_OF[OTHER_TASK[task]]:
        problems.append(f"{origin}: data.protocol={protocol}: for {OTHER[task]}, and {_data_is(settings, task)}.")
    for key, instead in NOT_OF[task].items():
        value, origin = settings.get(key, (None, ""))
        if value is not None and origin == COMMAND_LINE:
            why = f"{_data_is(settings, task)}. {instead}".strip()
            problems.append(f"{COMMAND_LINE}: {key}={value}: nothing would use it: {why}")
