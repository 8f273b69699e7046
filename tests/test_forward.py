from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.forward import Nets, Views
from sfumato.models import Classifier, FeatureDropout, Segmenter, build_model, build_segmenter, dropped_again
from sfumato.teacher import Ema
from sfumato.types import Batch, Labeled, Output, Unlabeled, ViewSpec, undrawn
from sfumato.views.draws import draw_for

M, N, C = 3, 5, 4


def small(norm: str = "group", **options: object) -> Classifier:
    torch.manual_seed(1)
    return build_model("small", **{"num_classes": C, "in_channels": 1, "image_size": 8, "norm": norm, **options})


def batch(strong: int = 2) -> Batch:
    torch.manual_seed(2)

    def images(count: int) -> Tensor:
        return torch.randn(count, 1, 8, 8)

    labeled = Labeled(images(M), torch.arange(M) % C, torch.ones(M), torch.arange(M), images(M))
    draw = draw_for(0, 3, torch.arange(N))
    unlabeled = Unlabeled(images(N), tuple(images(N) for _ in range(strong)), torch.ones(N), torch.arange(N), draw=draw)
    return Batch(labeled, unlabeled)


class Counting(nn.Module):
    """Writes down every forward: how many images, with gradient or not, training or not."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[tuple[int, bool, bool]] = []

    @property
    def tap_channels(self) -> tuple[int, ...]:
        return self.inner.tap_channels

    def forward(self, x: Tensor, perturb: FeatureDropout | None = None) -> Output:
        self.seen.append((len(x), torch.is_grad_enabled(), self.training))
        return self.inner(x, perturb)


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
        ("split", replace(FULL, feature_dropout=0.5), [(2 * M + 3 * N, True, True)], []),
        ("concat", replace(FULL, feature_dropout=0.5), [(2 * M + 3 * N, True, True)], []),
        (
            "split",
            replace(FULL, teacher="ema", feature_dropout=0.5),
            [(2 * M + 3 * N, True, True)],
            [(N, False, False)],
        ),
        ("split", replace(FULL, complementary=True), [(N, False, True), (2 * M + 2 * N, True, True)], []),
        ("concat", replace(FULL, complementary=True), [(2 * M + 3 * N, True, True)], []),
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
    assert (views.perturbed is None) == (not spec.feature_dropout)
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


# --- features with channels dropped


def by_hand(net: Classifier, images: Tensor, factor: Tensor | float = 1.0) -> Tensor:
    return net.head(net.backbone(images) * factor)


def kept(given: Batch, rate: float) -> Tensor:
    """What each channel of the weak view's features is multiplied by."""
    return (given.unlabeled.draw("feature dropout", 64) >= rate) / (1 - rate)


@pytest.mark.parametrize("layout", ["split", "concat"])
@pytest.mark.parametrize("source", ["student", "ema", "asked for first"])
@pytest.mark.parametrize("labeled_strong", [True, False])
def test_the_perturbed_output_is_that_of_dropped_features(layout: str, source: str, labeled_strong: bool) -> None:
    net, given = small().train(), batch()
    spec = ViewSpec(
        strong=2,
        labeled_strong=labeled_strong,
        feature_dropout=0.3,
        teacher="ema" if source == "ema" else "student",
    )
    nets = Nets(net, Ema(net), layout)
    views = nets.forward(given, spec, nets.weak(given, spec) if source == "asked for first" else None)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(views.perturbed.logits, by_hand(net, given.unlabeled.weak, kept(given, 0.3)), **close)
    torch.testing.assert_close(views.perturbed.features, net.backbone(given.unlabeled.weak) * kept(given, 0.3), **close)
    plain = nets.forward(given, replace(spec, feature_dropout=0.0))
    assert plain.perturbed is None
    for one, other in zip(outputs(views), outputs(plain), strict=True):
        torch.testing.assert_close(one.logits, other.logits, **close)
        torch.testing.assert_close(one.features, other.features, **close)


@pytest.mark.parametrize("layout", ["split", "concat"])
@pytest.mark.parametrize("teacher", ["student", "ema"])
def test_gradient_flows_through_the_perturbed_output(layout: str, teacher: str) -> None:
    net, given = small().train(), batch()
    given.unlabeled.weak.requires_grad_()
    spec = ViewSpec(strong=2, feature_dropout=0.5, teacher=teacher)
    views = Nets(net, Ema(net), layout).forward(given, spec)
    views.perturbed.logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert (given.unlabeled.weak.grad.flatten(1).abs().sum(1) > 0).all()
    dropped = kept(given, 0.5) == 0
    assert ((views.perturbed.features == 0) | ~dropped).all()


def test_almost_nothing_dropped_is_the_plain_output() -> None:
    net, given = small().train(), batch()
    views = Nets(net).forward(given, ViewSpec(strong=2, feature_dropout=1e-9))
    torch.testing.assert_close(views.perturbed.logits, views.weak.logits, atol=1e-6, rtol=0)
    again = dropped_again(net.tap_channels, torch.arange(N), torch.rand(N, 64), rate=0.0)
    out = net(given.unlabeled.weak, again)
    assert torch.equal(out.logits[:N], out.logits[N:])


@pytest.mark.parametrize("layout", ["split", "concat"])
def test_strong_views_see_complementary_features(layout: str) -> None:
    net, given = small().train(), batch()
    twice = replace(given, unlabeled=replace(given.unlabeled, strong=(given.unlabeled.strong[0],) * 2))
    spec = ViewSpec(strong=2, complementary=True, labeled_strong=True)
    views = Nets(net, None, layout).forward(twice, spec)
    whole = net.backbone(given.unlabeled.strong[0])
    first, second = (one.features for one in views.strong)
    torch.testing.assert_close(first + second, 2 * whole, atol=1e-5, rtol=0)
    draw, order = given.unlabeled.draw("complementary dropout", 64), given.unlabeled.draw("stays whole", 1)[:, 0]
    stays = torch.zeros(N, dtype=torch.bool)
    stays[order.argsort()[: N // 2]] = True
    torch.testing.assert_close(first[stays], whole[stays], atol=1e-5, rtol=0)
    torch.testing.assert_close(first[~stays], (whole * 2 * (draw >= 0.5))[~stays], atol=1e-5, rtol=0)
    for one, images in ((views.labeled, given.labeled.x), (views.labeled_strong, given.labeled.strong)):
        torch.testing.assert_close(one.logits, by_hand(net, images), atol=1e-5, rtol=0)
    torch.testing.assert_close(views.weak.logits, by_hand(net, given.unlabeled.weak), atol=1e-5, rtol=0)


def test_a_segmenter_is_perturbed_in_the_same_forward() -> None:
    torch.manual_seed(0)
    net: Segmenter = build_segmenter("small_seg", num_classes=C, in_channels=1).train()
    given, spec = batch(), ViewSpec(strong=2, feature_dropout=0.5)
    images = Batch(
        replace(given.labeled, x=torch.randn(M, 1, 16, 24)),
        replace(
            given.unlabeled,
            weak=torch.randn(N, 1, 16, 24),
            strong=tuple(torch.randn(N, 1, 16, 24) for _ in range(2)),
        ),
    )
    views = Nets(net).forward(images, spec)
    assert views.perturbed.logits.shape == (N, C, 16, 24)
    assert views.perturbed.logits.requires_grad
    assert not torch.equal(views.perturbed.logits, views.weak.logits)
    assert set(norms(net)) == {1}  # the decoder has normalized all of them together
    views.perturbed.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_perturbed_under_distributed_data_parallel(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        net, given = small("batch").train(), batch()
        nets = Nets(nn.parallel.DistributedDataParallel(net))
        for spec in (
            ViewSpec(strong=2, feature_dropout=0.5),
            ViewSpec(strong=2, complementary=True),
            ViewSpec(strong=2),
        ):
            views = nets.forward(given, spec)
            extra = 0.0 if views.perturbed is None else views.perturbed.logits.square().sum()
            (consistency(views, given.labeled.y) + extra).backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
    finally:
        torch.distributed.destroy_process_group()


def of_two_ranks() -> tuple[Tensor, Tensor]:
    """The strong features of both ranks, each having a half of six images."""
    net, given = small().train(), batch()
    world, rank = distributed.world_size(), distributed.rank()
    slots = torch.arange(6).chunk(world)[rank]
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))[slots]
    unlabeled = replace(given.unlabeled, weak=images, strong=(images,) * 2, draw=draw_for(0, 3, slots))
    views = Nets(net).forward(replace(given, unlabeled=unlabeled), ViewSpec(strong=2, complementary=True))
    return tuple(distributed.gather(one.features) for one in views.strong)


def test_the_images_that_stay_whole_are_half_of_those_of_all_ranks(two_ranks) -> None:
    alone = of_two_ranks()
    for rank in two_ranks.call(of_two_ranks):
        for got, want in zip(rank, alone, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_what_cannot_be_perturbed_is_explained() -> None:
    given, nets = batch(), Nets(small())
    with pytest.raises(
        UsageError, match=r"drops channels of the features, which LogitsOnly cannot do. Use a network of"
    ):
        Nets(LogitsOnly()).forward(given, ViewSpec(strong=2, feature_dropout=0.5))
    with pytest.raises(UsageError, match=r"which LogitsOnly cannot do"):
        Nets(LogitsOnly()).forward(given, ViewSpec(strong=2, complementary=True))
    bare = replace(given, unlabeled=replace(given.unlabeled, draw=undrawn))
    for spec, text in (
        (ViewSpec(strong=2, feature_dropout=0.5, complementary=True), "Only one is possible"),
        (ViewSpec(strong=2, feature_dropout=1.0), r"feature_dropout=1.0: expected a share of channels below 1"),
        (ViewSpec(strong=0, weak=False, feature_dropout=0.5), "unlabeled views, of which it declares none"),
        (ViewSpec(strong=1, complementary=True), "Complementary features need 2 strong views; the method declares 1"),
        (ViewSpec(strong=2, pasting=True), "pastes boxes into the last strong view, but the batch says of none"),
    ):
        one = replace(given, unlabeled=replace(given.unlabeled, strong=given.unlabeled.strong[: spec.strong]))
        with pytest.raises(UsageError, match=text):
            nets.forward(one, spec)
    with pytest.raises(UsageError, match=r"needs random numbers \(feature dropout\), but the batch holds none"):
        nets.forward(bare, ViewSpec(strong=2, feature_dropout=0.5))


def test_without_dropout_nothing_is_dropped_and_the_rest_is_as_in_training():
    class DropPath(nn.Module):
        """Such as timm's."""

        def forward(self, x):
            return x * 0 if self.training else x

    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), DropPath())
    net[1].eval()  # frozen by somebody: stays so
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    nets = Nets(net)
    torch.testing.assert_close(nets.further(x, dropout=False), nn.BatchNorm1d(3)(x))
    assert net[0].num_batches_tracked == 1
    assert [module.training for module in net] == [True, False, True]
    assert (nets.further(x) == 0).all()
