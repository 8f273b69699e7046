from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.models import Classifier, build_model
from sfumato.teacher import Ema, unwrapped


def small(**options: object) -> Classifier:
    return build_model("small", **{"num_classes": 3, "in_channels": 1, "image_size": 8, **options})


def train_a_step(student: nn.Module) -> None:
    """Weights, running statistics and the counters of batches all move."""
    student.train()
    student(torch.randn(4, 1, 8, 8)).logits.square().sum().backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.sub_(0.01 * parameter.grad)
            parameter.grad = None


@pytest.mark.parametrize("ramp", [True, False])
@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_it_equals_a_loop_in_float64(ramp: bool, buffers: str) -> None:
    torch.manual_seed(0)
    student = small()
    ema = Ema(student, momentum=0.8, ramp=ramp, buffers=buffers)
    expected = {name: value.double() for name, value in student.state_dict().items()}
    learned = {name for name, _ in student.named_parameters()}
    for step in range(40):
        train_a_step(student)
        ema.update(student, step)
        m = min(0.8, (1 + step) / (10 + step)) if ramp else 0.8
        for name, value in student.state_dict().items():
            averaged = name in learned or (buffers == "average" and value.is_floating_point())
            expected[name] = m * expected[name] + (1 - m) * value.double() if averaged else value.double()
    assert len(expected) == len(ema.module.state_dict())
    for name, value in ema.module.state_dict().items():
        assert torch.allclose(value.double(), expected[name], rtol=1e-5, atol=1e-6), name
    assert ema.module.state_dict()["backbone.layers.0.1.num_batches_tracked"] == 40


def test_the_ramp_follows_the_student_at_first() -> None:
    ema = Ema(small(), momentum=0.99)
    assert [ema.momentum_at(step) for step in (0, 8, 890, 10_000)] == [0.1, 0.5, 0.99, 0.99]
    assert Ema(small(), momentum=0.99, ramp=False).momentum_at(0) == 0.99


def test_it_is_a_copy_in_evaluation_mode_without_gradient() -> None:
    student = small().train()
    student(torch.randn(2, 1, 8, 8)).logits.sum().backward()
    ema = Ema(student)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in ema.parameters())
    ema.train()
    nn.ModuleList([student, ema]).train()
    assert student.training
    assert not any(module.training for module in ema.modules())
    mine = {parameter.data_ptr() for parameter in ema.parameters()}
    assert mine.isdisjoint(parameter.data_ptr() for parameter in student.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    x = torch.randn(2, 1, 8, 8)
    assert ema(x).logits.equal(deepcopy(student).eval()(x).logits)


def test_storage_is_never_swapped_and_the_student_left_alone() -> None:
    student = small()
    ema = Ema(student)
    train_a_step(student)
    storages = [value.data_ptr() for value in [*ema.state_dict().values(), *student.state_dict().values()]]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ema.update(student, 3)
    assert [value.data_ptr() for value in [*ema.state_dict().values(), *student.state_dict().values()]] == storages
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())


def test_the_state_dict_is_its_whole_memory() -> None:
    torch.manual_seed(0)
    student = small()
    ema = Ema(student, momentum=0.9)
    train_a_step(student)
    ema.update(student, 0)
    other = Ema(small(), momentum=0.9)
    other.load_state_dict(ema.state_dict())
    train_a_step(student)
    for one in (ema, other):
        one.update(student, 1)
    assert all(value.equal(other.state_dict()[name]) for name, value in ema.state_dict().items())


def test_memory_format_survives() -> None:
    student = small().to(memory_format=torch.channels_last)
    ema = Ema(student)
    ema.update(student, 0)
    assert ema.module.get_parameter("backbone.layers.1.0.weight").is_contiguous(memory_format=torch.channels_last)
    later = Ema(small())
    later.update(student, 0)  # formats differ: the values still agree
    weight = later.module.get_parameter("backbone.layers.1.0.weight")
    assert weight.isfinite().all()


def test_a_frozen_backbone_stays_exactly_as_it_is() -> None:
    student = small(frozen=True)
    ema = Ema(student, momentum=0.7, ramp=False)
    for step in range(20):
        ema.update(student, step)
    assert all(value.equal(student.state_dict()[name]) for name, value in ema.module.state_dict().items())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = self.one
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def test_shared_weights_move_once() -> None:
    student = Tied()
    ema = Ema(student, momentum=0.5, ramp=False)
    start = student.one.weight.detach().clone()
    with torch.no_grad():
        student.one.weight.add_(1)
    student.count += 5
    ema.update(student, 0)
    assert torch.allclose(ema.module.one.weight, start + 0.5)
    assert ema.module.one is ema.module.two
    assert ema.module.count == 5


def test_it_sees_through_wrappers(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        student = small()
        wrapped = nn.parallel.DistributedDataParallel(student)
        assert unwrapped(wrapped) is student
        ema = Ema(wrapped, momentum=0, ramp=False)
        assert set(ema.module.state_dict()) == set(student.state_dict())
        train_a_step(wrapped)
        ema.update(wrapped, 0)
        assert all(value.equal(student.state_dict()[name]) for name, value in ema.module.state_dict().items())
    finally:
        torch.distributed.destroy_process_group()


def test_it_sees_through_compile() -> None:
    student = small()
    assert unwrapped(torch.compile(student)) is student


def test_wrong_values() -> None:
    with pytest.raises(UsageError, match=r"ema=1.0: the momentum of the average must be at least 0 and below 1"):
        Ema(small(), momentum=1.0)
    with pytest.raises(UsageError, match=r"unknown buffers 'coppy'. Did you mean 'copy'\?"):
        Ema(small(), buffers="coppy")
