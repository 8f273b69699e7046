"""Settings from defaults, a recipe, a file and the command line, in this order; all mistakes in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from sfumato.config.check import (
    COMMAND_LINE,
    COUNTS,
    Settings,
    check_frequencies,
    check_method,
    check_names,
    check_use,
)
from sfumato.config.keys import Keys
from sfumato.config.recipe import recipe_text
from sfumato.config.schema import DEFAULT_METHOD, DEFAULT_RECIPES, Config, nested
from sfumato.config.text import parse, write
from sfumato.data.pairs import PROTOCOLS
from sfumato.data.protocols import CLASS_PROTOCOLS
from sfumato.data.task import Task, task_of
from sfumato.errors import UsageError, nearest, nearest_quoted
from sfumato.train_config import TrainConfig


@dataclass
class Layer:
    """Settings from one place, by the keys written there."""

    origin: str
    values: dict[str, Any]
    # of a recipe: options for when the method, or the add-on, is this one
    for_methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    for_addons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def get(self, *keys: str) -> Any:
        return next((self.values[key] for key in keys if key in self.values), None)


class SettingsError(UsageError):
    """Mistakes in settings, each a message of its own in `problems`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__(_all(self.problems))


def load(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    recipe: str | None = None,
    *,
    layers: Sequence[Layer] = (),
) -> Config:
    """The resolved settings.

    Args:
        path: a YAML file of settings, such as the config.yaml of a run.
        overrides: `key=value`, the key dotted or any word that is the end of one key only.
        recipe: name of a recipe, in place of the one that the file or `recipe=` names; "none" for none.
        layers: settings from elsewhere, which come after the file and before `overrides`.

    Raises:
        SettingsError: unknown keys, values that cannot be; everything found, in one message.
        UsageError: a file or recipe that cannot be read.
    """
    problems: list[str] = []
    upper = [*layers, _from_overrides(overrides, problems)]
    if path is not None:
        upper.insert(0, _from_file(path))
    below = [layer.values["recipe"] or "none" for layer in reversed(upper) if "recipe" in layer.values]
    named = str(recipe or next(iter(below), None) or _default_recipe(upper))
    from_recipe, budget = _from_recipe(named, *_asked_budget(upper, named, problems), problems)
    merged = [*from_recipe, *upper]
    task = _task(merged)
    method = next(
        (found for layer in reversed(merged) if (found := layer.get("method", "method.name"))), DEFAULT_METHOD
    )
    addon = _given(merged, "addon", "addon.name")
    settings = _merge(merged, str(method), None if addon is None else str(addon), problems)
    settings["recipe"] = (None if named == "none" else named, "recipe")
    settings["budget"] = (budget, "recipe")
    config = _validated(settings, task, problems)
    if problems:
        raise SettingsError(problems)
    assert config is not None
    return config


def dump(config: Config) -> str:
    """YAML that `load` reads back to the same settings."""
    return write(nested(config))


# Layers


def _default_recipe(layers: Sequence[Layer]) -> str:
    """A protocol brings the settings of its papers along, and else the task decides."""
    protocol = _given(layers, "data.protocol", "protocol")
    return str(protocol) if protocol in (*PROTOCOLS, *CLASS_PROTOCOLS) else DEFAULT_RECIPES[_task(layers)]


def _given(layers: Sequence[Layer], *keys: str) -> Any:
    found = next((found for layer in reversed(layers) if (found := layer.get(*keys)) is not None), None)
    return None if found == "none" else found


def _task(layers: Sequence[Layer]) -> Task:
    told = _given(layers, "data.task", "task")
    if told in DEFAULT_RECIPES:
        return cast(Task, told)
    named = {key: _given(layers, f"data.{key}", key) for key in ("masks", "labels_csv", "lists", "format", "protocol")}
    source = str(_given(layers, "data.source", "data", "source") or "")
    return task_of(source, **{key: None if value is None else str(value) for key, value in named.items()})


def _from_overrides(overrides: Sequence[str], problems: list[str]) -> Layer:
    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            problems.append(f"{COMMAND_LINE}: '{text}': expected key=value, such as steps=1000.")
        elif key in values:
            problems.append(f"{COMMAND_LINE}: '{key}' is given twice.")
        else:
            values[key] = _value(value)
    return Layer(COMMAND_LINE, values)


def _value(text: str) -> Any:
    """As YAML reads it; but text that is neither number nor truth nor in brackets is kept to the letter."""
    try:
        value = parse(text)
    except yaml.YAMLError:
        return text
    bare = (isinstance(value, str) and text[:1] not in "'\"") or (isinstance(value, dict) and text[:1] != "{")
    return text if bare else value


def _from_file(path: Path) -> Layer:
    return layer(read_settings(path), str(path))


def _asked_budget(layers: Sequence[Layer], recipe: str, problems: list[str]) -> tuple[str | None, str]:
    """The budget that is asked for, and where; it goes with the recipe that its layer names, if it names one.

    The config.yaml of a run holds all that its own budget brought, so that another would be a name only.
    """
    named = [one for one in layers if one.get("budget") is not None and one.values.get("recipe", recipe) == recipe]
    if not named:
        return None, ""
    last, budget = named[-1], str(named[-1].get("budget"))
    whole = next((one for one in named if one.get("train.steps") is not None and one.get("budget") != budget), None)
    if whole is not None:
        problems.append(
            f"{last.origin}: budget={budget}: nothing would use it: {whole.origin} holds all settings of the budget "
            f"{whole.get('budget')}. Name the protocol in place of the file."
        )
    return budget, last.origin


def _from_recipe(name: str, budget: str | None, origin: str, problems: list[str]) -> tuple[list[Layer], str | None]:
    """The layers of a recipe, and the budget that it is taken with: the first one unless another is asked for.

    A budget is a recipe that lies below, and what is different here.
    """
    if name == "none":
        return [], None
    content = _parsed(recipe_text(name), f"recipe {name}")
    chosen, budgets = _taken(content), content.pop("budgets", {})
    own = Layer(f"recipe {name}", dict(_flattened(content)), *chosen)
    if budget is not None and budget not in budgets:
        has = f"the budgets {', '.join(budgets)}" if budgets else f"no budgets; {', '.join(CLASS_PROTOCOLS)} have some"
        problems.append(f"{origin}: budget={budget}: recipe {name} has {has}.")
    if not budgets:
        return [own], None
    budget = budget if budget in budgets else next(iter(budgets))
    different = dict(budgets[budget])
    below, _ = _from_recipe(different.pop("recipe"), None, "", problems)
    chosen = _taken(different)
    return [*below, own, Layer(f"recipe {name}, budget {budget}", dict(_flattened(different)), *chosen)], budget


def _taken(content: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Takes what is for single methods and add-ons out of a recipe."""
    return content.pop("methods", {}), content.pop("addons", {})


def layer(content: Mapping[Any, Any], origin: str) -> Layer:
    """Settings as a YAML file nests them, from `origin`."""
    return Layer(origin, dict(_flattened(content)))


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a YAML file. Raises UsageError when there is none, or it is no mapping."""
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UsageError(f"{path}: no such file of settings." + (nearest(path.name, beside) if beside else ""))
    return _parsed(path.read_text(encoding="utf-8", errors="replace"), str(path))


def _parsed(text: str, origin: str) -> dict[str, Any]:
    try:
        content = parse(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{origin}{line}: not readable as YAML: {getattr(error, 'problem', error)}.") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UsageError(f"{origin}: expected settings as `key: value`, found {type(content).__name__}.")
    return content


def _flattened(content: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# Merging


def _merge(layers: Sequence[Layer], method: str, addon: str | None, problems: list[str]) -> dict[str, tuple[Any, str]]:
    """Dotted key -> (value, where it comes from); a later layer wins.

    Options of a method or add-on go with the one that their layer names: when a later layer names another, they go.
    A layer that says how many labels there are takes the place of all that is said of it before, in whatever unit.
    """
    keys = Keys.of(method, addon)
    settings: dict[str, tuple[Any, str]] = {}
    for layer in layers:
        others = tuple(
            f"{section}."
            for section, name in (("method", method), ("addon", addon))
            if layer.get(section, f"{section}.name") not in (None, name)
        )
        mine: dict[str, Any] = {}
        for given, value in layer.values.items():
            if given.startswith(others):
                continue
            try:
                mine[keys.find(given)] = value
            except LookupError as error:
                problems.append(f"{layer.origin}: {error.args[0]}")
        if not mine.keys().isdisjoint(COUNTS):  # one of them, or none: all labels
            settings = {key: setting for key, setting in settings.items() if key not in COUNTS}
        for key, value in mine.items():
            none = isinstance(value, str) and value.lower() == "none" and keys.allows_none(key)
            settings[key] = (None if none else value, layer.origin)
        chosen = {"method": layer.for_methods.get(method, {}), "addon": layer.for_addons.get(addon or "", {})}
        for section, options in chosen.items():
            for option, value in options.items():
                settings[option if "." in option else f"{section}.{option}"] = (value, layer.origin)
    settings["method.name"] = (method, settings.get("method.name", (method, "default"))[1])
    if addon is not None:
        settings["addon.name"] = (addon, settings["addon.name"][1])
    return _reconciled(settings)


def _rank(setting: tuple[Any, str]) -> int:
    """Of where a setting comes from: a recipe, a file, the command line."""
    return 2 if setting[1] == COMMAND_LINE else 0 if setting[1].startswith("recipe ") else 1


def _reconciled(settings: dict[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """Where a setting rules out one of a lower layer, the lower one goes."""

    def stronger(key: str, than: str) -> bool:
        value, origin = settings.get(key, (None, ""))
        return value is not None and than in settings and settings[than][1] != origin

    if stronger("train.steps", "train.epochs") and _rank(settings["train.steps"]) > _rank(settings["train.epochs"]):
        del settings["train.epochs"]
    if stronger("model.weights", "model.pretrained") and settings["model.pretrained"][1].startswith("recipe "):
        del settings["model.pretrained"]
    if stronger("seed", "seeds") and settings["seed"][1] == COMMAND_LINE:
        del settings["seeds"]
    return settings


# Checking


def _validated(settings: Settings, task: Task, problems: list[str]) -> Config | None:
    content: dict[str, Any] = {}
    for key, (value, _) in settings.items():
        *sections, leaf = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    content["train"] = _train(content.get("train", {}), settings, problems)
    config = None
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        problems.extend(_told(error, settings))
    if config is not None:
        check_frequencies(config.data, problems)
    check_method(content["method"], content.get("addon", {}), task, problems)
    check_names(settings, task, problems)
    check_use(settings, task, content["train"], problems)
    return config


def _train(values: dict[str, Any], settings: Settings, problems: list[str]) -> TrainConfig:
    """Apart from the rest: it checks itself, and a mistake in it must not hide others."""
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        problems.extend(_told(error, settings, "train."))
        wrong = {str(one["loc"][0]) for one in error.errors()}
        return _train({key: value for key, value in values.items() if key not in wrong}, settings, problems)
    except UsageError as error:
        problems.append(f"train.{error}")
    return TrainConfig()


def _told(error: ValidationError, settings: Settings, prefix: str = "") -> list[str]:
    found: dict[str, str] = {}
    for one in error.errors():
        place = [str(part) for part in one["loc"]]
        key = next(
            (name for n in (3, 2, 1) if (name := prefix + ".".join(place[:n])) in settings), prefix + ".".join(place)
        )
        value, origin = settings.get(key, (one["input"], "settings"))
        message = one["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        told = f"{origin}: {key}={value!r}: {message[0].lower()}{message[1:]}.{nearest_quoted(value, message)}"
        found.setdefault(key, told)
    return list(found.values())


def _all(found: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    return "\n".join([f"{len(found)} mistakes in the settings:", *(f"- {p}" for p in found)])
