"""Laws of what a method teaches, and through which view."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sfumato import distributed
from sfumato.types import Losses, Progress, Sparse
from tests.methods.cases import (
    CLASSES,
    STEPS,
    Case,
    assert_finite,
    mixes_labels,
    nets_of,
    pseudo_of,
    steps,
    trained,
    values,
)
from tests.methods.problems import (
    Tiny,
    image_batch,
    on_images,
)


def losses_are_finite_and_teach_the_student(case: Case) -> None:
    for layout in ("split", "concat"):
        nets = nets_of(Tiny(3, dense=case.task.dense), layout=layout)
        method, reached = case.method(3, beside=nets.student), set()
        for step, contrast in ((0, 1), (STEPS // 2, 1), (STEPS - 1, 30), (STEPS - 1, 1)):  # 30: to be sure of some
            batch = on_images(image_batch(case.task, method.views), lambda x, c=contrast: c * x)
            losses = method.loss(nets, batch, Progress(step, STEPS))
            assert_finite(method, nets, losses)
            # of any rank: one may have nothing to teach a part of the method from its share of the batch
            reached |= {name for name, one in trained(method, nets).items() if _reached(one)}
            for value in values(losses).values():
                assert value.shape == (), "a loss is a scalar"
        torch.testing.assert_close(losses.total.detach(), torch.stack([*values(losses).values()]).sum())
        for name, parameter in trained(method, nets).items():
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert name in reached, f"no gradient reaches {name}"
        assert all(p.grad is None for p in nets.teacher.parameters()), "the teacher got a gradient"


def _reached(parameter: Tensor) -> bool:
    size = torch.zeros(()) if parameter.grad is None else parameter.grad.abs().sum()
    return bool(distributed.sum_over_ranks(size) > 0)


def the_unlabeled_term_teaches_through_the_right_view(case: Case) -> None:
    for layout in ("split", "concat"):
        method = case.method()
        (batch,) = case.batches(1, method)
        batch = on_images(batch, lambda x: x.clone().requires_grad_())
        losses = method.loss(nets_of(layout=layout), batch, Progress(STEPS // 2, STEPS))
        if not method.views.weak:
            assert losses.unsupervised.item() == 0
            (unused,) = torch.autograd.grad(losses.total, [batch.unlabeled.weak], allow_unused=True)
            assert unused is None, "labels only, and gradient flows to unlabeled images"
            continue
        views = {"weak": batch.unlabeled.weak, **{f"strong {k}": x for k, x in enumerate(batch.unlabeled.strong)}}
        grads = torch.autograd.grad(_unlabeled_part(losses), list(views.values()), allow_unused=True)
        for (view, _), grad in zip(views.items(), grads, strict=True):
            size = 0.0 if grad is None else grad.abs().sum().item()
            if view == "weak" and not (method.views.weak_gradient or method.views.feature_dropout):
                assert size == 0, f"layout {layout}: gradient flows through the weak view"
            else:
                assert size > 0, f"layout {layout}: no gradient flows through the {view} view"


def _unlabeled_part(losses: Losses) -> Tensor:
    return losses.unsupervised + sum(losses.extras.values())


def the_pseudo_label_is_well_formed(case: Case) -> str | None:
    method = case.method()
    (batch,) = case.batches(1, method)
    (losses,) = steps(method, [batch])
    if losses.pseudo is None:
        assert not method.views.weak, "a method with unlabelled data hands its pseudo-label to telemetry"
        return "labels only"
    pseudo, n, space = losses.pseudo, len(batch.unlabeled.index), case.task.space
    assert not any(value.requires_grad for value in pseudo_of(losses).values())
    assert pseudo.weight.shape == pseudo.valid.shape == (n, *space)
    assert (pseudo.weight >= 0).all()
    assert torch.equal(pseudo.valid, batch.unlabeled.valid)
    target = pseudo.target
    labels = target.labels if isinstance(target, Sparse) else None
    if isinstance(target, Sparse):
        assert labels.shape == target.share.shape
        assert labels.shape[::2] == (n, *space[:1])
        assert (labels.sort(dim=1).values.diff(dim=1) > 0).all(), "a class stands twice in one target"
        assert (target.share.diff(dim=1) <= 0).all(), "the first class is not the most probable"
        target = target.share
    if not target.is_floating_point():
        labels = target
        assert labels.shape == (n, *space)
    else:
        if labels is None:
            assert target.shape == (n, CLASSES, *space)
        torch.testing.assert_close(target.sum(dim=1), torch.ones(n, *space))
    assert labels is None or labels.max() < CLASSES
    return None


def the_loss_falls_on_a_toy_problem(case: Case) -> None:
    """After some steps of labels alone, as in the loop: pseudo-labels of a network that knows nothing teach nothing."""
    nets = nets_of(Tiny(3, dense=case.task.dense))
    method = case.method(3, beside=nets.student, even=True)  # as the classes of these images are
    parameters = [*trained(method, nets).values()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.8)
    trail, mixed = [], mixes_labels(case)
    for step in range(20):
        batch = image_batch(case.task, method.views, seed=step)
        batch = replace(batch, unlabeled=None) if step < 5 else batch
        losses = method.loss(nets, batch, Progress(step, 20))
        optimizer.zero_grad()
        losses.total.backward()
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(distributed.mean_over_ranks(parameter.grad))
        optimizer.step()
        nets.teacher.update(nets.student, step)
        if mixed:  # mixed labels are never learned whole
            losses = method.loss(nets, replace(batch, unlabeled=None), Progress(step, 20))
        trail.append(distributed.mean_over_ranks(losses.supervised.detach()).item())
    first, last = sum(trail[:5]), sum(trail[-5:])
    assert last < 0.75 * first, f"supervised loss of {first / 5:.3f} became {last / 5:.3f}"
