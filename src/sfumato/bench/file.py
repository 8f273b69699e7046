"""The file of a bench: a few axes, each a list of entries, and settings for all runs.

    methods: [fixmatch, {method: fixmatch, name: fixmatch-0.8, threshold: 0.8}]
    data: [mnist5k]
    labels: [40, {labels_per_class: 25}]
    seeds: 0:3
    baseline: supervised_strong
    settings: {steps: 1000}

An entry is a name, or a mapping of settings as `sfumato train` takes them, with `name` for what to call it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from sfumato.bench.names import labels_name
from sfumato.config import SettingsError, read_settings
from sfumato.config.keys import Keys
from sfumato.config.schema import DEFAULT_METHOD, DataSection, parse_seeds
from sfumato.config.text import parse
from sfumato.data import BUILTIN_NAMES
from sfumato.data.pairs import BUILTIN_NAMES as GENERATED
from sfumato.errors import nearest
from sfumato.run.prepare import FAIR_BASELINE

AXES = ("methods", "data", "labels", "seeds")
KEYS = (*AXES, "baseline", "settings")
OWN = {  # settings that an axis is there for
    "method": "methods", "addon": "methods", "data.source": "data", "seed": "seeds", "seeds": "seeds",
}  # fmt: skip
NEVER = {
    "baseline": "every method is a run of its own here, so is the baseline: name it outside of `settings`",
    "name": "a bench names its folders itself",
}


@dataclass(frozen=True)
class Choice:
    """An entry of an axis: what it is called, and its settings as a file of settings nests them."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchFile:
    """What a file says, the baseline among the methods. `labels` is empty where the data say which they are."""

    path: str
    methods: tuple[Choice, ...]
    data: tuple[Choice, ...]
    labels: tuple[Choice, ...]
    seeds: tuple[int, ...]
    baseline: str | None
    settings: dict[str, Any]
    overrides: tuple[str, ...] = ()


def read_bench(path: Path, overrides: Sequence[str] = ()) -> BenchFile:
    """The file `path`. overrides: `key=value` in place of an axis, or settings for all runs.

    Raises SettingsError with all mistakes in its axes, UsageError when it cannot be read.
    """
    content = read_settings(path)
    settings = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and key in (*AXES, "baseline"):
            content[key] = _typed(value)
        else:
            settings.append(text)
    return _Reader(str(path)).read(content, tuple(settings))


def _typed(text: str) -> Any:
    """The value of an axis on the command line: YAML, or words with commas."""
    try:
        value = parse(text)
    except yaml.YAMLError:
        value = text
    return [parse(part) for part in value.split(",")] if isinstance(value, str) and "," in value else value


class _Reader:
    """Reads one file, and collects what is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[str] = []

    def read(self, content: dict[str, Any], overrides: tuple[str, ...]) -> BenchFile:
        for key in content:
            if key not in KEYS:
                self.wrong(self._unknown(str(key)))
        settings = content.get("settings") or {}
        if not isinstance(settings, Mapping):
            self.wrong(f"settings: expected `key: value`, found {settings!r}.")
            settings = {}
        self.refuse_keys("settings", settings, OWN)
        self.refuse_keys("command line", dict.fromkeys(text.partition("=")[0] for text in overrides), OWN)
        methods = self.axis("methods", content, method_choice, needed="fixmatch")
        data = self.axis("data", content, data_choice, needed="mnist5k")
        labels = self.axis("labels", content, labels_choice)
        baseline = self.baseline(content.get("baseline", FAIR_BASELINE))
        if baseline is not None and baseline.name not in [choice.name for choice in methods]:
            methods = (baseline, *methods)
        seeds = self.seeds(content.get("seeds", (0,)))
        if self.problems:
            raise SettingsError(self.problems)
        name = None if baseline is None else baseline.name
        return BenchFile(self.path, methods, data, labels, seeds, name, dict(settings), overrides)

    def wrong(self, message: str) -> None:
        self.problems.append(f"{self.path}: {message}")

    def _unknown(self, key: str) -> str:
        """What to say of a key that is none of KEYS. A setting by its very name is one, however near an axis is."""
        if key in NEVER:
            return f"'{key}' has no place here: {NEVER[key]}."
        try:
            setting = Keys.of(DEFAULT_METHOD).find(key)
        except LookupError:
            return f"'{key}' is no axis.{nearest(key, KEYS)}"
        axis = OWN.get(key, OWN.get(setting))
        if axis is not None:
            return f"'{key}' is no axis. Did you mean '{axis}'?"
        return f"'{key}' is no axis. It is a setting: write it under `settings:`."

    def axis(
        self, axis: str, content: Mapping[str, Any], choose: Callable[[Any], Choice], needed: str = ""
    ) -> tuple[Choice, ...]:
        """The entries of an axis; one that is not in a list is a list of one."""
        given = content.get(axis)
        entries = given if isinstance(given, list | tuple) else [] if given is None else [given]
        if needed and not entries:
            self.wrong(f"{axis}: expected at least one entry, such as `{axis}: [{needed}]`.")
        found: list[Choice] = []
        for entry in entries:
            try:
                choice = choose(entry)
            except ValueError as error:
                self.wrong(f"{axis}: {error}")
                continue
            if choice.name in [one.name for one in found]:
                self.wrong(f"{axis}: two entries are called '{choice.name}'. Give one of them another `name`.")
                continue
            self.refuse_keys(f"{axis} '{choice.name}'", choice.settings, _refused(axis))
            found.append(choice)
        return tuple(found)

    def refuse_keys(self, where: str, settings: Mapping[str, Any], axis_of: Mapping[str, str]) -> None:
        for key in dotted(settings):
            if key in NEVER:
                self.wrong(f"{where}: '{key}' has no place here: {NEVER[key]}.")
            for start, axis in axis_of.items():
                if key == start or key.startswith(f"{start}."):
                    self.wrong(f"{where}: '{key}' belongs to the axis `{axis}`.")

    def baseline(self, given: Any) -> Choice | None:
        if given is None or given == "none":
            return None
        try:
            return method_choice(given)
        except ValueError as error:
            self.wrong(f"baseline: {error}")
            return None

    def seeds(self, given: Any) -> tuple[int, ...]:
        text = ",".join(map(str, given)) if isinstance(given, list | tuple) else str(given)
        try:
            return parse_seeds(text)
        except ValueError as error:
            self.wrong(f"seeds: {text}: {error}.")
            return ()


def _refused(axis: str) -> dict[str, str]:
    """Settings that entries of this axis must not hold, as another one does: runs are paired by data and seed."""
    if axis == "methods":
        return {"data": "data", "seed": "seeds", "seeds": "seeds"}
    return {key: other for key, other in OWN.items() if other != axis}


def dotted(settings: Mapping[str, Any]) -> list[str]:
    """The keys as the configuration has them where they are known, and as they were written where not."""
    keys, found = Keys.of(DEFAULT_METHOD), []
    for key, value in settings.items():
        inner = [f"{key}.{name}" for name in value] if isinstance(value, Mapping) and value else [str(key)]
        for one in inner:
            try:
                found.append(keys.find(one))
            except LookupError:
                found.append(one)
    return found


# Entries


def method_choice(entry: Any) -> Choice:
    """fixmatch, fixmatch+seval, or a mapping with `method`. Raises ValueError."""
    if isinstance(entry, str):
        return Choice(entry, _with_addon({"method": entry}))
    settings, name = _mapping(entry, "a method, such as fixmatch")
    settings = _with_addon(settings)
    method, addon = (_name_in(settings.get(key)) for key in ("method", "addon"))
    if method is None:
        raise ValueError(f"{entry}: expected `method: NAME` in it.")
    return Choice(name or (f"{method}+{addon}" if addon not in (None, "none") else method), settings)


def _with_addon(settings: dict[str, Any]) -> dict[str, Any]:
    """The name fixmatch+seval as two settings. Raises ValueError where they name another add-on."""
    given = settings.get("method")
    method, plus, addon = given.partition("+") if isinstance(given, str) else ("", "", "")
    if not plus:
        return settings
    section = settings.get("addon", {})
    options = section if isinstance(section, Mapping) else {"name": section}
    other = options.get("name", settings.get("addon.name", addon))
    if other != addon:
        raise ValueError(
            f"{settings}: '{given}' adds {addon}, and `addon` says {other}: expected one of them. "
            f"Write `method: {method}, addon: {other}`, or leave `addon` out."
        )
    return settings | {"method": method, "addon": {**options, "name": addon} if set(options) - {"name"} else addon}


def _name_in(section: Any) -> str | None:
    """Of a section, which may stand for its name alone."""
    name = section.get("name") if isinstance(section, Mapping) else section
    return name if isinstance(name, str) else None


def data_choice(entry: Any) -> Choice:
    """A source, a protocol, or a mapping with `source` or `protocol`. Raises ValueError."""
    if isinstance(entry, str):
        known = entry in (*BUILTIN_NAMES, *GENERATED) or Path(entry).exists()
        key = "protocol" if entry in _protocols() and not known else "source"
        return Choice(entry if key == "protocol" else Path(entry).stem, {f"data.{key}": entry})
    settings, name = _mapping(entry, "a folder, a built-in set or a protocol")
    places = ("data.source", "source", "data", "data.protocol", "protocol")
    source = next((settings[key] for key in places if settings.get(key)), None)
    if isinstance(source, Mapping):
        source = source.get("source")
    name = name or (Path(str(source)).stem if source else None)
    if name is None:
        raise ValueError(f"{entry}: expected `source: ...` or `name: ...` in it.")
    return Choice(name, settings)


def _protocols() -> set[str]:
    """Of every task."""
    parts, names = [DataSection.model_fields["protocol"].annotation], set()
    while parts:
        part = parts.pop()
        names |= {word for word in get_args(part) if isinstance(word, str)}
        parts += [inner for inner in get_args(part) if get_args(inner)]
    return names


def labels_choice(entry: Any) -> Choice:
    """A number of labels, `all`, or a mapping with labels_per_class, fraction or lists. Raises ValueError."""
    if isinstance(entry, int) and not isinstance(entry, bool):
        return Choice(str(entry), {"data.labels": entry})
    if entry == "all":
        return Choice("all", {"data.labels": None})  # in place of any number that stands further up
    settings, name = _mapping(entry, "a number of labels, `all`, or such as {labels_per_class: 4}")
    return Choice(name or labels_name(settings), settings)


def _mapping(entry: Any, expected: str) -> tuple[dict[str, Any], str | None]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{entry!r}: expected {expected}, or a mapping of settings.")
    settings = {str(key): value for key, value in entry.items()}
    name = settings.pop("name", None)
    if name is not None and not re.search(r"\w", str(name)):
        raise ValueError(f"name={name!r}: expected a word.")
    return settings, None if name is None else str(name)
