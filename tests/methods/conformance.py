"""Laws that every method obeys, on any task and any number of ranks.

    case = Case("mine", make_mine, CLASSIFICATION)     # make_mine(facts, options) -> Method
    report = run(case)                                 # raises, naming every law that does not hold

A law is a public function of one of the modules below: it takes a case, and returns nothing when it held, or why it
does not apply. With several ranks every one of them calls `run` on the same case, and has a share of each batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

from torch import Tensor

from sfumato import distributed
from sfumato.types import Progress
from tests.methods import laws_held_out, laws_memory, laws_options, laws_parts, laws_place, laws_survival, laws_teaching
from tests.methods.cases import STEPS, Case, nets_of, pseudo_of, registered, state, steps, trained, values
from tests.methods.problems import Tiny, image_batch

__all__ = ["CHECKS", "Case", "Report", "registered", "run", "trajectory"]

Check = Callable[[Case], str | None]


def _laws(module: ModuleType) -> dict[str, Check]:
    own = {name: law for name, law in vars(module).items() if getattr(law, "__module__", "") == module.__name__}
    return {name: law for name, law in own.items() if not name.startswith("_")}


CHECKS: dict[str, Check] = {
    name: law
    for module in (laws_teaching, laws_options, laws_survival, laws_memory, laws_parts, laws_place, laws_held_out)
    for name, law in _laws(module).items()
}


@dataclass
class Report:
    held: list[str] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)


def run(case: Case) -> Report:
    """Every check on the case. On one rank all failures are collected; on more the first one ends it, since the other
    ranks wait.
    """
    report, failures = Report(), []
    for name, law in CHECKS.items():
        try:
            reason = law(case)
        except Exception as error:
            error.add_note(f"{case.name} on {case.task.name}: {name}")
            if distributed.active():
                raise
            failures.append(error)
            continue
        if reason is None:
            report.held.append(name)
        else:
            report.not_applicable[name] = reason
    if failures:
        names = ", ".join(error.__notes__[-1].split(": ")[-1] for error in failures)
        raise ExceptionGroup(f"{case.name} on {case.task.name} fails {names}", failures)
    return report


def trajectory(case: Case) -> dict[str, Tensor]:
    """What a global batch leaves behind, however many ranks share it: all state, losses and gradients."""
    method, echo, out = case.method(), nets_of(), {}
    for k, batch in enumerate(case.batches(4, method, void=0.4)):
        (losses,) = steps(method, [batch], echo, start=k)
        for key, value in values(losses).items():
            out[f"{key} {k}"] = distributed.mean_over_ranks(value)
        out.update({f"{key} {k}": distributed.gather(value) for key, value in pseudo_of(losses).items()})
    out.update(state(method))
    nets = nets_of(Tiny(3, dense=case.task.dense))
    fresh = case.method(3, beside=nets.student)
    parameters = trained(fresh, nets)
    for k in range(2):
        losses = fresh.loss(nets, image_batch(case.task, fresh.views, seed=k), Progress(4 + k, STEPS))
        for parameter in parameters.values():
            parameter.grad = None
        losses.total.backward()
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                out[f"gradient {name} {k}"] = distributed.mean_over_ranks(parameter.grad).clone()
    return out
