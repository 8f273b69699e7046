"""All that training remembers, in one place: saved whole, restored whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sfumato import checkpoint, distributed
from sfumato.errors import DataError
from sfumato.forward import Nets
from sfumato.label_history import LabelHistory
from sfumato.teacher import unwrapped
from sfumato.telemetry import Telemetry


@dataclass
class Memory:
    """What the loop remembers beside the modules' tensors."""

    val: dict[str, float] | None = None
    best_step: int | None = None
    best_score: list[float] = field(default_factory=list)  # the criterion, then minus NLL
    best_state: dict[str, Tensor] = field(default_factory=dict)  # the evaluation network's
    collapse: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def consider(self, step: int, val: dict[str, float], model: nn.Module, *, by: str) -> None:
        """Take the validation figures of `step`, and its weights if it is the best so far; ties go to the earlier."""
        self.val = val
        score = [val[by], -val["nll"]]
        if not self.best_score or score > self.best_score:
            self.best_step, self.best_score = step, score
            self.best_state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


@dataclass
class TrainingState:
    """Networks, method, telemetry, optimiser and memory; `save` and `restore` are the whole of resuming.

    identity: what the run was configured as, flat; a checkpoint of another identity is refused.
    """

    nets: Nets
    method: nn.Module
    telemetry: Telemetry
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    memory: Memory
    identity: dict[str, object]
    labels: LabelHistory | None = None

    @property
    def statistics(self) -> list[Tensor]:
        """Floating buffers of the student, such as the running statistics of batch norm, and these of the method.

        All other memory of a method is that of all ranks already.
        """
        norms = [module for module in self.method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        buffers = [*self.nets.student.buffers(), *(buffer for norm in norms for buffer in norm.buffers())]
        return [buffer for buffer in buffers if buffer.is_floating_point()]

    @property
    def gradients_beside(self) -> list[Tensor]:
        """Of what the method trains beside the student. A parameter has one on every rank or on none."""
        return [parameter.grad for parameter in self.method.parameters() if parameter.grad is not None]

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"model": unwrapped(self.nets.student), "method": self.method, "telemetry": self.telemetry}
        optional = {"teacher": self.nets.teacher, "labels": self.labels}
        return modules | {key: module for key, module in optional.items() if module is not None}

    def save(self, folder: Path | None, step: int, *, keep: int) -> None:
        """Write the state after `step` finished steps; only the first rank writes."""
        self.telemetry.merge()
        if folder is not None and distributed.rank() == 0:
            tensors: dict[str, Mapping[str, Tensor]] = {key: m.state_dict() for key, m in self._modules().items()}
            tensors["best"] = self.memory.best_state
            told = {key: value for key, value in vars(self.memory).items() if key != "best_state"}
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
            state = {"memory": told, "identity": self.identity, "scaler": scaler}
            checkpoint.save(folder, step, tensors, state, self.optimizer.state_dict())
            checkpoint.prune(folder, keep)
        distributed.barrier()

    def keep_copy(self, folder: Path | None, step: int) -> None:
        """The weights of the network to evaluate, beside the checkpoints of the run in `folder`."""
        if folder is not None and distributed.rank() == 0:
            checkpoint.save_copy(folder / checkpoint.COPIES, step, self.nets.evaluation.state_dict())

    def restore(self, folder: Path) -> tuple[int, list[str]]:
        """Load the newest whole checkpoint: the number of finished steps, 0 if there is none, and what was passed over.

        Raises:
            DataError: it was written by a run of another configuration.
        """
        path, skipped = checkpoint.latest(folder)
        if path is None:
            return 0, skipped
        loaded = checkpoint.load(path)
        self._check_identity(path, loaded.state["identity"])
        for key, module in self._modules().items():
            module.load_state_dict(loaded.tensors.get(key, {}))
        if distributed.rank() != 0:
            self.telemetry.reset()  # the first rank holds the sums of all
        self.optimizer.load_state_dict(loaded.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(loaded.state["scaler"])
        for key, value in loaded.state["memory"].items():
            setattr(self.memory, key, value)
        self.memory.best_state = loaded.tensors.get("best", {})
        return loaded.step, skipped

    def _check_identity(self, path: Path, theirs: Mapping[str, object]) -> None:
        keys = sorted(self.identity.keys() | theirs.keys())
        differ = [
            f"{key} is {self.identity.get(key)!r} now and was {theirs.get(key)!r}"
            for key in keys
            if self.identity.get(key) != theirs.get(key)
        ]
        if differ:
            raise DataError(
                f"{path} belongs to another configuration: {'; '.join(differ)}. "
                "Resume with the settings it was started with, or start a new run in another folder."
            )
