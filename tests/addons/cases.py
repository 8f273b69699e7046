"""An add-on on a method, as a case for the laws of methods."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato.addons import ADDONS, fits, join
from sfumato.methods import METHODS, Facts, Method, build
from tests.methods.cases import Case, allowed
from tests.methods.problems import TASKS, Task


def joined(addon: str, name: str, task: Task) -> Case:
    """Both by their defaults; the options of a case are the add-on's."""

    def make(facts: Facts, options: Mapping[str, object]) -> Method:
        method = build(name, facts)
        join(addon, method, facts, options, method_name=name)
        return method

    return Case(f"{name}+{addon}", make, task, ADDONS[addon].build)


def pairs() -> list[tuple[str, str, Task]]:
    """Every add-on with every method that it fits, on every task that both are for."""
    return [
        (addon, name, task)
        for addon in sorted(ADDONS)
        for name in sorted(METHODS)
        for task in TASKS
        if allowed(METHODS[name], task) and fits(addon, name, dense=task.dense) is None
    ]
