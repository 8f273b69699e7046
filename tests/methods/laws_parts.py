"""The law of parts: all that a method reads belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType

from torch import Tensor, nn

from sfumato.rules import Rule
from tests.methods.cases import Case


def what_is_read_is_a_part(case: Case) -> None:
    """A module with memory that is kept for reading alone, in a tuple say, observes and is saved in another place."""
    method = case.method()
    own = {id(module) for module in method.modules()}
    lost = [type(module).__name__ for module in _reached(method) if id(module) not in own and _remembers(module)]
    assert not lost, f"read, but neither shown anything nor saved: {', '.join(lost)}"


def _remembers(module: nn.Module) -> bool:
    return bool(module.state_dict()) or (isinstance(module, Rule) and type(module).observe is not Rule.observe)


def _reached(start: object) -> Iterator[nn.Module]:
    """All modules that attributes lead to, through containers, bound methods and objects of the package's own."""
    found, ahead = {}, [start]
    while ahead:
        one = ahead.pop()
        if id(one) in found or isinstance(one, Tensor | type):
            continue
        found[id(one)] = one
        if isinstance(one, dict):
            ahead += one.values()
        elif isinstance(one, list | tuple | set):
            ahead += one
        elif isinstance(one, MethodType):
            ahead.append(one.__self__)
        elif isinstance(one, nn.Module) or type(one).__module__.startswith("sfumato."):
            ahead += getattr(one, "__dict__", {}).values()
        if isinstance(one, nn.Module):
            yield one
