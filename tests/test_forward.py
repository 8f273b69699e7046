from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.forward import Nets, Views
from sfumato.models import Classifier, build_model
from sfumato.teacher import Ema
from sfumato.types import Batch, Labeled, Output, Unlabeled, ViewSpec

M, N, C = 3, 5, 4


def small(norm: str = "group", **options: object) -> Classifier:
    torch.manual_seed(1)
    return build_model("small", **{"num_classes": C, "in_channels": 1, "image_size": 8, "norm": norm, **options})


def batch(strong: int = 2) -> Batch:
    torch.manual_seed(2)

    def images(count: int) -> Tensor:
        return torch.randn(count, 1, 8, 8)

    labeled = Labeled(images(M), torch.arange(M) % C, torch.ones(M), torch.arange(M), images(M))
    unlabeled = Unlabeled(images(N), tuple(images(N) for _ in range(strong)), torch.ones(N), torch.arange(N))
    return Batch(labeled, unlabeled)


class Counting(nn.Module):
    """Writes down every forward: how many images, with gradient or not, training or not."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, x: Tensor) -> Output:
        self.seen.append((len(x), torch.is_grad_enabled(), self.training))
        return self.inner(x)


def outputs(views: Views) -> list[Output]:
    return [one for one in (views.labeled, views.labeled_strong, views.weak, *views.strong) if one is not None]


FULL = ViewSpec(strong=2, labeled_strong=True)


@pytest.mark.parametrize(
    ("layout", "spec", "student", "teacher"),
    [
        ("split", FULL, [(N, False, True), (2 * M + 2 * N, True, True)], []),
        ("split", replace(FULL, weak_gradient=True), [(2 * M + 3 * N, True, True)], []),
        ("split", replace(FULL, teacher="ema"), [(2 * M + 2 * N, True, True)], [(N, False, False)]),
        ("split", replace(FULL, labeled_strong=False), [(N, False, True), (M + 2 * N, True, True)], []),
        ("split", replace(FULL, weak=False), [(2 * M, True, True)], []),
        ("concat", FULL, [(2 * M + 3 * N, True, True)], []),
        ("concat", replace(FULL, teacher="ema"), [(2 * M + 2 * N, True, True)], [(N, False, False)]),
        ("concat", replace(FULL, weak=False, labeled_strong=False), [(M, True, True)], []),
    ],
)
def test_number_and_order_of_forwards(
    layout: str, spec: ViewSpec, student: list[tuple[int, bool, bool]], teacher: list[tuple[int, bool, bool]]
) -> None:
    net = Counting(small()).train()
    nets = Nets(net, Ema(net), layout)
    views = nets.forward(batch(), spec)
    assert net.seen == student
    assert nets.teacher.module.seen == teacher
    assert (views.labeled_strong is None) == (not spec.labeled_strong)
    assert (views.weak is None) == (not spec.weak)
    assert len(views.strong) == (2 if spec.weak else 0)
    assert len(views.labeled.logits) == M


@pytest.mark.parametrize("strong", [0, 1, 3])
def test_each_view_gets_its_own_output(strong: int) -> None:
    """Without a batch norm every layout gives what one forward per view would."""
    net = small().train()
    given = batch(strong)
    views = [given.labeled.x, given.labeled.strong, given.unlabeled.weak, *given.unlabeled.strong]
    expected = [net(x) for x in views]
    for layout in ("split", "concat"):
        for weak_gradient in (False, True):
            spec = ViewSpec(strong=strong, labeled_strong=True, weak_gradient=weak_gradient)
            found = outputs(Nets(net, None, layout).forward(given, spec))
            assert len(found) == len(expected) == 3 + strong
            for one, other in zip(found, expected, strict=True):
                assert torch.allclose(one.logits, other.logits, atol=1e-5)
                assert torch.allclose(one.features, other.features, atol=1e-5)


def consistency(views: Views, y: Tensor) -> Tensor:
    target = views.weak.logits.detach().argmax(1)
    strong = sum(nn.functional.cross_entropy(one.logits, target) for one in views.strong)
    return nn.functional.cross_entropy(views.labeled.logits, y) + strong


def test_split_and_concat_have_the_same_gradient_without_a_batch_norm() -> None:
    gradients = []
    for layout in ("split", "concat"):
        net = small().train()
        given = batch()
        consistency(Nets(net, None, layout).forward(given, ViewSpec(strong=2)), given.labeled.y).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("layout", ["split", "concat"])
@pytest.mark.parametrize("teacher", ["student", "ema"])
def test_gradient_flows_to_the_student_and_never_to_the_teacher(layout: str, teacher: str) -> None:
    net = small("batch").train()
    nets = Nets(net, Ema(net), layout)
    given = batch()
    views = nets.forward(given, ViewSpec(strong=2, teacher=teacher))
    consistency(views, given.labeled.y).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in nets.teacher.parameters())
    assert views.weak.logits.requires_grad == (layout == "concat" and teacher == "student")


def test_the_weak_view_carries_gradient_when_declared() -> None:
    net = small().train()
    views = Nets(net).forward(batch(), ViewSpec(strong=2, weak_gradient=True))
    views.weak.logits.sum().backward()
    assert net.head.weight.grad.abs().sum() > 0


def norms(net: nn.Module) -> list[int]:
    return [int(one.num_batches_tracked) for one in net.modules() if isinstance(one, nn.BatchNorm2d)]


def test_batch_norm_policy() -> None:
    """Split: weak views move the running statistics too, first; a teacher takes in nothing; concat: one update."""
    given = batch()
    spec = ViewSpec(strong=2)
    net = small("batch").train()
    by_hand = deepcopy(net)
    Nets(net).forward(given, spec)
    with torch.no_grad():
        by_hand(given.unlabeled.weak)
    by_hand(torch.cat([given.labeled.x, *given.unlabeled.strong]))
    assert set(norms(net)) == {2}
    assert all(value.equal(by_hand.state_dict()[name]) for name, value in net.state_dict().items())

    nets = Nets(small("batch").train(), layout="concat")
    nets.forward(given, spec)
    assert set(norms(nets.student)) == {1}

    student = small("batch").train()
    nets = Nets(student, Ema(student))
    before = {name: value.clone() for name, value in nets.teacher.state_dict().items()}
    nets.forward(given, replace(spec, teacher="ema"))
    assert set(norms(student)) == {1}
    assert all(value.equal(before[name]) for name, value in nets.teacher.state_dict().items())


@pytest.mark.parametrize("layout", ["split", "concat"])
def test_without_unlabeled_images_only_the_labeled_are_seen(layout: str) -> None:
    net = Counting(small()).train()
    views = Nets(net, Ema(net), layout).forward(replace(batch(), unlabeled=None), replace(FULL, teacher="ema"))
    assert net.seen == [(2 * M, True, True)]
    assert views.weak is None
    assert views.strong == ()
    assert views.labeled_strong.logits.shape == (M, C)


@pytest.mark.parametrize("layout", ["split", "concat"])
def test_channels_last_survives(layout: str) -> None:
    seen: list[bool] = []
    net = build_model("small", num_classes=C, image_size=8).to(memory_format=torch.channels_last)
    net.backbone.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    given = batch()
    last = [torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last) for _ in range(3)]
    given = Batch(replace(given.labeled, x=last[0]), replace(given.unlabeled, weak=last[1], strong=(last[2],)))
    Nets(net, None, layout).forward(given, ViewSpec())
    assert seen == [True] * (2 if layout == "split" else 1)


def test_autocast_output_is_left_as_it_is() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        views = Nets(small()).forward(batch(), FULL)
    assert {one.logits.dtype for one in outputs(views)} == {torch.bfloat16}


class LogitsOnly(nn.Module):
    def forward(self, x: Tensor) -> Output:
        return Output(x.flatten(1)[:, :C])


def test_a_model_without_features() -> None:
    views = Nets(LogitsOnly()).forward(batch(), FULL)
    assert {one.features for one in outputs(views)} == {None}


def test_under_distributed_data_parallel(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        net = small("batch").train()
        nets = Nets(nn.parallel.DistributedDataParallel(net))
        given = batch()
        for _ in range(2):  # an unreduced gradient would be an error in the second step
            consistency(nets.forward(given, ViewSpec(strong=2)), given.labeled.y).backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        assert nets.evaluation is net
    finally:
        torch.distributed.destroy_process_group()


def test_the_network_to_evaluate() -> None:
    net = small()
    assert Nets(net).evaluation is net
    ema = Ema(net)
    assert Nets(net, ema).evaluation is ema.module


def test_what_does_not_fit_is_explained() -> None:
    given, net = batch(), small()
    with pytest.raises(UsageError, match=r"average of the weights, and there is none. Set ema above 0"):
        Nets(net).forward(given, ViewSpec(strong=2, teacher="ema"))
    with pytest.raises(UsageError, match=r"gradient through the weak view and for a teacher"):
        Nets(net, Ema(net)).forward(given, ViewSpec(strong=2, teacher="ema", weak_gradient=True))
    with pytest.raises(UsageError, match=r"declares a strong view of the labeled images, but the batch holds none"):
        Nets(net).forward(Batch(replace(given.labeled, strong=None), given.unlabeled), FULL)
    with pytest.raises(UsageError, match=r"declares 1 strong view\(s\) of the unlabeled images, the batch holds 2"):
        Nets(net).forward(given, ViewSpec(strong=1))
    with pytest.raises(UsageError, match=r"Unknown layout 'conact'. Did you mean 'concat'\?"):
        Nets(net, None, "conact")


@pytest.mark.parametrize("layout", ["split", "concat"])
@pytest.mark.parametrize("teacher", ["student", "ema"])
def test_the_weak_view_may_go_first(layout: str, teacher: str) -> None:
    """Then it goes through once, by the same network and in the same mode as in the layout "split"."""
    net = Counting(small()).train()
    nets = Nets(net, Ema(net), layout)
    spec, given = ViewSpec(strong=2, teacher=teacher), batch()
    weak = nets.weak(given, spec)
    views = nets.forward(given, spec, weak)
    first = [(N, False, teacher == "student")]
    seen = [*first, (M + 2 * N, True, True)] if teacher == "student" else [(M + 2 * N, True, True)]
    assert net.seen == seen
    assert nets.teacher.module.seen == (first if teacher == "ema" else [])
    assert views.weak is weak
    assert not weak.logits.requires_grad
    plain = Nets(net, nets.teacher).forward(given, spec)
    for one, other in zip(outputs(views), outputs(plain), strict=True):
        assert torch.allclose(one.logits, other.logits, atol=1e-5)


def test_a_weak_view_that_cannot_go_first_is_explained() -> None:
    given, nets = batch(), Nets(small())
    for spec, one in (
        (ViewSpec(strong=2, weak_gradient=True), given),
        (ViewSpec(strong=2), Batch(given.labeled)),
        (ViewSpec(strong=0, weak=False), given),
    ):
        with pytest.raises(UsageError, match=r"The weak view goes first only where there is one, without gradient"):
            nets.weak(one, spec)
    with pytest.raises(UsageError, match=r"declares patches of the last strong view, but the batch"):
        nets.forward(given, ViewSpec(strong=2, patches=True))
