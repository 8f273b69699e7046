"""The loop. The only place that steps, saves, evaluates and logs; read it from top to bottom."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sfumato import checkpoint, distributed
from sfumato.batches import BatchMaker, TrainData
from sfumato.collapse import STARVED_AFTER, Collapse, diagnose, starved
from sfumato.console import Reporter
from sfumato.errors import CollapseError
from sfumato.forward import Nets
from sfumato.interrupt import Interrupted, StopRequest
from sfumato.label_history import LabelHistory
from sfumato.methods.base import Method
from sfumato.metric_log import MetricLog
from sfumato.models import Net
from sfumato.optim import make_optimizer, rate, set_rate
from sfumato.teacher import Ema, unwrapped
from sfumato.telemetry import Telemetry
from sfumato.train_config import TrainConfig
from sfumato.training_state import Memory, TrainingState
from sfumato.types import Progress

__all__ = ["Interrupted", "Result", "TrainConfig", "train"]


@dataclass
class Result:
    """What training leaves behind."""

    nets: Nets
    method: Method
    device: torch.device
    history: list[dict[str, Any]]  # as metrics.jsonl
    val: dict[str, float] | None  # at the last evaluation
    best_step: int | None
    best_state: dict[str, Tensor] | None  # the evaluation network's weights at the best validation accuracy
    collapse: dict[str, Any] | None  # {"step", "reason"} if the last evaluation found pseudo-labels collapsed
    warnings: list[str]
    seconds: float
    cpu_seconds: float
    labels: LabelHistory | None  # of the labels trained on, where there are not too many

    @cached_property
    def model(self) -> nn.Module:
        """The network to evaluate and to keep: the averaged weights where there are any, as the method deploys them."""
        return self.method.deployed(self.nets.evaluation)

    @property
    def student(self) -> nn.Module | None:
        """The weights themselves, deployed alike; None where no average of them stands in their place."""
        return None if self.nets.teacher is None else self.method.deployed(unwrapped(self.nets.student), student=True)


def train(
    method: Method,
    model: Net,
    data: TrainData,
    config: TrainConfig,
    *,
    seed: int = 0,
    folder: Path | None = None,
    identity: Mapping[str, object] | None = None,
    resume: bool = False,
    quiet: bool = False,
    title: str | None = None,
    copies: int = 0,
) -> Result:
    """Train `model` by `method`; under torchrun over all ranks, with the same global batch.

    Args:
        folder: of the run, for checkpoints and metrics; None keeps nothing on the disk.
        identity: what the run was configured as. A checkpoint of another identity is refused.
        resume: continue from the newest whole checkpoint of `folder`; the end is that of an uninterrupted run, bit for
            bit on a CPU.
        quiet: show warnings only.
        title: what progress is headed with; the name of the method by default.
        copies: so many copies of the averaged weights, evenly spread over the steps, are kept in the folder `copies` of
            `folder`, the last one at the end.

    Raises:
        CollapseError: the loss was not finite, or pseudo-labels collapsed and `on_collapse` is "stop".
        DataError: the checkpoint belongs to another configuration, or cannot be written.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    config = config.counted(labeled=len(data.splits.labeled), unlabeled=len(data.splits.unlabeled))
    accelerator = _accelerator(config.precision)
    state = _prepare(method, model, data, config, accelerator, seed, identity)
    nets, memory, telemetry = state.nets, state.memory, state.telemetry
    checkpoints = folder / "checkpoints" if folder is not None else None
    start, skipped = state.restore(checkpoints) if resume and checkpoints is not None else (0, [])
    log = MetricLog(folder if distributed.rank() == 0 else None, after=start, tensorboard=config.tensorboard)
    batches = BatchMaker(
        data, method.views, config.batch_size, config.unlabeled_ratio, seed, accelerator.device,
        channels_last=config.channels_last, accumulate=config.accumulate,
    )  # fmt: skip
    watch, ranks = _Stopwatch(memory), distributed.active()
    nets.student.train()

    title = title or type(method).__name__
    kept = {max(1, config.steps * (number + 1) // copies) for number in range(copies)}
    reporter = Reporter(title, config.steps, start=start, quiet=quiet)
    with closing(log), closing(batches), reporter, StopRequest() as stop:
        for message in skipped:
            reporter.warn(message)
        for step in range(start, config.steps):
            done, progress = step + 1, Progress(step, config.steps)
            # Dropout and stochastic depth are functions of the step too, and not alike on two ranks.
            torch.manual_seed(_seed(seed, step, distributed.rank()))
            set_rate(state.optimizer, rate(step, config.steps, config))
            # Labels on the disk are as good at the first step as at the last.
            warm_start = 0 if method.views.stored else round(config.unlabeled_start * config.steps)
            for batch, truth in batches.at(step, config.steps, labels_only_until=warm_start):
                with accelerator.autocast():
                    losses = method.loss(nets, batch, progress)
                accelerator.backward(losses.total / config.accumulate)
                telemetry.observe(losses, truth, step)
                watch.images += len(batch.labeled.x) + (len(batch.unlabeled.weak) if batch.unlabeled else 0)
            distributed.average_over_ranks_(state.gradients_beside)  # those of the student are
            if config.clip is not None:
                accelerator.clip_grad_norm_([*nets.student.parameters(), *method.parameters()], config.clip)
            state.optimizer.step()
            state.optimizer.zero_grad()
            distributed.average_over_ranks_(state.statistics)  # of batch norm, each rank's own until here
            if nets.teacher is not None:
                nets.teacher.update(nets.student, step)
            reporter.step(done)

            last, logging = done == config.steps, done % config.log_every == 0
            evaluating = last or done % config.eval_every == 0
            # All ranks stop after the same step. Asking each other waits for the device, so only when logging does too.
            stopping = distributed.any_rank(stop.asked, accelerator.device) if logging else stop.asked and not ranks
            if logging or evaluating or stopping or done % config.save_every == 0:
                _stop_if_broken(telemetry, batches, checkpoints)
            if logging or evaluating:
                record = telemetry.read() | watch.read()
                histogram = telemetry.histogram
                telemetry.reset()
                log.write(done, record)
                reporter.record(done, record)
                _warn_if_idle(record, progress, memory, reporter)
            if evaluating:
                evaluated = method.deployed(nets.evaluation)
                found = data.score(evaluated, data.splits.val, accelerator.device)
                if state.labels is not None:
                    state.labels.observe(data.predict_labeled(evaluated, accelerator.device))
                taught = found if data.held is None else data.score(evaluated, data.held, accelerator.device)
                method.calibrate(taught.held_out)  # of no sample too: what is replayed goes on
                if found.metrics:
                    memory.consider(done, found.metrics, evaluated, by=data.criterion)
                    scores = {f"val/{key}": value for key, value in found.metrics.items()}
                    log.write(done, scores)
                    reporter.record(done, scores)
                if "pl/coverage" in record and progress.fraction >= STARVED_AFTER:
                    collapse = diagnose(
                        found.held_out.logits, found.held_out.y, histogram.cpu(), data.classes,
                        coverage=record["pl/coverage"], trained=data.label_counts(),
                    )  # fmt: skip
                    _warn_of_collapse(collapse, done, memory, reporter, stop=config.on_collapse == "stop")
            if done in kept:
                state.keep_copy(folder, done)  # before the checkpoint, after which this step is not done again
            if last or stopping or done % config.save_every == 0:
                watch.stop()
                state.save(checkpoints, done, keep=config.keep)
            if stopping and not (last and folder is None):  # after the last step too: others may be to follow
                raise Interrupted(_how_to_continue(folder, done, config.steps))
    watch.stop()
    return Result(
        nets, method, accelerator.device, log.history, memory.val, memory.best_step, memory.best_state or None,
        memory.collapse, memory.warnings, memory.seconds, memory.cpu_seconds, state.labels,
    )  # fmt: skip


def _accelerator(precision: str) -> Accelerator:
    # The state of the last accelerator outlives it and would refuse another precision in the same process.
    AcceleratorState._reset_state()
    mixed = "no" if precision == "fp32" else precision
    accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
    distributed.leave_at_exit()
    return accelerator


def _prepare(
    method: Method,
    model: Net,
    data: TrainData,
    config: TrainConfig,
    accelerator: Accelerator,
    seed: int,
    identity: Mapping[str, object] | None,
) -> TrainingState:
    """Everything on its device, wrapped for ranks and precision."""
    device = accelerator.device
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    torch.manual_seed(_seed(seed, "attach"))
    method.attach(model)
    method.to(device).train()
    distributed.copy_from_first_([*method.parameters(), *method.buffers()])
    method.ohem = config.ohem
    optimizer = make_optimizer(model, config, method)
    student, optimizer = accelerator.prepare(model, optimizer)
    # The loop enters autocast itself. Wrapped into the network it would also reach predictions, and the kept weights.
    accelerator.unwrap_model(student, keep_fp32_wrapper=False)
    # After the wrapping, which gives every rank the first one's weights.
    teacher = Ema(student, config.ema, ramp=config.ema_ramp) if config.ema else None
    telemetry = Telemetry(data.classes).to(device)
    watched = data.watched_labels()
    labels = None if watched is None else LabelHistory(watched, data.num_classes)
    return TrainingState(
        Nets(student, teacher, config.layout), method, telemetry, optimizer, accelerator, Memory(),
        dict(identity or {}), labels,
    )  # fmt: skip


def _seed(*parts: object) -> int:
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def _stop_if_broken(telemetry: Telemetry, batches: BatchMaker, checkpoints: Path | None) -> None:
    step = telemetry.broken_step()
    if step is None:
        return
    drawn = batches.drawn(step)
    names = [batches.data.names[row] for row in drawn.labeled[:8]]
    kept = checkpoint.latest(checkpoints).path if checkpoints is not None else None
    raise CollapseError(
        f"The loss was not finite at step {step}. Its labelled batch begins with {', '.join(names)}. "
        + (f"The last good checkpoint is {kept}. " if kept else "No checkpoint was saved before. ")
        + "Lower the learning rate (lr), clip gradients (clip=1.0), or train in fp32."
    )


def _warn_if_idle(record: dict[str, float], progress: Progress, memory: Memory, reporter: Reporter) -> None:
    message = starved(record.get("pl/coverage", 1.0), progress.fraction)
    if message is not None and message not in memory.warnings:
        memory.warnings.append(message)
        reporter.warn(message)


def _warn_of_collapse(found: Collapse | None, step: int, memory: Memory, reporter: Reporter, *, stop: bool) -> None:
    """Say so when pseudo-labels collapse; a later evaluation that finds nothing takes it back."""
    begins = memory.collapse is None
    memory.collapse = None if found is None else {"step": step, "reason": found.reason}
    if found is None:
        return
    message = f"step {step}: {found.reason}"
    if stop:
        raise CollapseError(f"Stopped at {message}")
    if begins:
        memory.warnings.append(message)
        reporter.warn(message)


def _how_to_continue(folder: Path | None, done: int, steps: int) -> str:
    if folder is None:
        return f"Interrupted after step {done} of {steps}; nothing was saved, since the run has no folder."
    return f"Interrupted after step {done} of {steps}; saved. Continue with: sfumato train --resume {folder}"


class _Stopwatch:
    """Wall and CPU seconds of training, carried over interruptions, and images per second of each interval."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.wall, self.cpu = time.monotonic(), time.process_time()
        self.mark, self.images = self.wall, 0  # images of this rank since the mark

    def read(self) -> dict[str, float]:
        now = time.monotonic()
        speed = self.images * distributed.world_size() / max(1e-9, now - self.mark)
        self.mark, self.images = now, 0
        self.stop()
        return {"perf/images_per_s": speed, "perf/cpu_s": self.memory.cpu_seconds}

    def stop(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.memory.seconds += wall - self.wall
        self.memory.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = wall, cpu
