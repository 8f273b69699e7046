"""U2PL against loops over pixels, in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.methods.u2pl import _grid, _uniform
from sfumato.rules import percentile, pixel_contrast
from sfumato.teacher import Ema
from sfumato.types import Batch, Labeled, Output, Progress, Pseudo, Unlabeled, ViewSpec
from tests.methods.problems import Drawn

M, N, J = 5, 12, 8
HALF = Progress(4, 9)
ALPHA = 0.2  # there, of 0.4 at the start


class Given(nn.Module):
    """Logits are the images, features a mixture of them: of maps on half the rows and a third of the columns."""

    num_features = 7

    def __init__(self, classes, *, coarse):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.mixture = nn.Parameter(torch.randn((7, classes), generator=draw, dtype=torch.float64))
        self.coarse = coarse

    def forward(self, x, perturb=None):
        features = torch.einsum("dc,nc...->nd...", self.mixture, x)
        return Output(x * self.gain, features[..., 1::2, 1::3] if self.coarse else features)


def batch_of(classes, space, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def images(n):
        sharp = torch.rand((n, 1, *space), generator=draw, dtype=torch.float64) * 5
        return torch.randn((n, classes, *space), generator=draw, dtype=torch.float64) * sharp

    partner = torch.arange(N).roll(1)
    box = torch.rand(space, generator=draw) < 0.4 if space else torch.tensor(False)

    def mixed(x):
        return torch.where(box, x[partner], x)

    def warp(pseudo):
        return Pseudo(mixed(pseudo.target), mixed(pseudo.weight), mixed(pseudo.valid))

    valid, known = ((torch.rand((n, *space), generator=draw) < 0.8).double() for n in (N, M))
    y = torch.randint(classes, (M, *space), generator=draw).masked_fill(known == 0, 255)
    return Batch(
        Labeled(images(M), y, known, torch.tensor([7, 3, 9, 0, 4])),
        Unlabeled(
            images(N), (images(N),), valid, torch.arange(N), warps=(warp,), draw=Drawn(seed, torch.arange(N))
        ),
    )  # fmt: skip


def ready(classes, space, **options):
    """A method with its head, whose average is another one, and networks whose teacher is another one."""
    method = build(
        "u2pl", Facts(classes, dense=bool(space)), {"dim": 5, "num_negatives": J, "unreliable": 2 * ALPHA, **options}
    )
    student = Given(classes, coarse=bool(space))
    nets = Nets(student, Ema(student, 0.9))
    nets.teacher.module.gain.data *= 1.3
    nets.teacher.module.mixture.data += 0.2
    torch.manual_seed(3)
    method.attach(student)
    for parameter in method.contrast.representation.averaged.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    method.contrast.representation.step.fill_(HALF.step)  # this step's average is made already
    return method.double(), nets


class Slow:
    """The paper by loops. A pixel of an image is a place of the embedding."""

    def __init__(self, method, nets, batch, *, negatives, anchors, low):
        self.method, self.batch, self.low = method, batch, low
        self.classes = batch.labeled.x.shape[1]
        teacher, student, u = nets.teacher.module, nets.student, batch.unlabeled
        self.weak = teacher(u.weak)
        self.p = self.weak.logits.softmax(1)
        self.e = torch.distributions.Categorical(probs=self.p.movedim(1, -1)).entropy()
        entropies = self.e[u.valid > 0].detach().numpy()
        self.gamma, floor = np.percentile(entropies, 100 * (1 - ALPHA)), np.percentile(entropies, 100 * ALPHA)
        self.kept = (self.e < self.gamma).double()
        top, self.label = self.p.max(1)
        sure = self.kept * (top > 0.3) * ((self.e < floor) if anchors == "released" else 1)
        self.pseudo = Pseudo(self.label, self.kept, u.valid)
        self.sure = Pseudo(self.label, sure.double(), u.valid)
        self.strong = student(u.strong[0])
        self.labeled, self.labeled_taught = student(batch.labeled.x), teacher(batch.labeled.x)
        self.mixed, self.released = teacher(u.strong[0]), negatives == "released"

    def unsupervised(self, normalize):
        warped = self.batch.unlabeled.warps[0](self.pseudo)
        log_q = self.strong.logits.log_softmax(1).movedim(1, -1).reshape(-1, self.classes)
        total, valid, kept = 0.0, 0, 0
        for row, y, w, v in zip(
            log_q, *(x.flatten() for x in (warped.target, warped.weight, warped.valid)), strict=True
        ):
            valid += int(v)
            kept += int(v * w)
            total = total - v * w * row[y]
        divisor = {"boosted": kept**2 / valid, "selected": kept, "valid": valid, "all": warped.valid.numel()}
        return total / divisor[normalize]

    @staticmethod
    def places(x, space):
        """The value of each image at the nearest pixel of each place, one after the other."""
        if not space:
            return list(x)
        height, width = x.shape[-2:]
        return [
            image[..., (2 * i + 1) * height // (2 * space[0]), (2 * k + 1) * width // (2 * space[1])]
            for image in x
            for i in range(space[0])
            for k in range(space[1])
        ]

    def contrast(self):
        head, space = self.method.contrast.representation, self.strong.features.shape[2:]
        marked, u = self.batch.labeled, self.batch.unlabeled

        def at(x):
            return self.places(x, space)

        def rows(*views):
            return [f for view in views for f in view.features.movedim(1, -1).reshape(-1, 7)]

        y, known = at(marked.y), at(marked.valid)
        p_l = at(self.labeled_taught.logits.softmax(1))
        likely = [bool(k) and p[c].item() > 0.3 for c, k, p in zip([c % 255 for c in y], known, p_l, strict=True)]
        strong, weak = u.warps[0](self.sure), self.sure
        anchors, taught = [[] for _ in range(self.classes)], [[] for _ in range(self.classes)]
        student = [head.head(row) for row in rows(self.labeled, self.strong)]
        teacher = [head.averaged(row) for row in rows(self.labeled_taught, self.weak)]
        for into, features, source in ((anchors, student, strong), (taught, teacher, weak)):
            label = [*y, *at(source.target)]
            used = [*likely, *(bool(w * v) for w, v in zip(at(source.weight), at(source.valid), strict=True))]
            for m, (c, there) in enumerate(zip(label, used, strict=True)):
                if there:
                    into[int(c)].append(features[m])

        memory = self.negatives(at, rows, y, known, p_l, teacher)
        losses = []
        for c in range(self.classes):
            if not anchors[c]:
                continue
            if not memory[c] or not taught[c]:
                losses.append(torch.zeros((), dtype=torch.float64))
                continue
            positive = torch.stack(taught[c]).mean(0)
            charges = []
            for a in anchors[c]:
                picks = [memory[c][int((j + 0.5) / J * len(memory[c]))] for j in range(J)]
                scores = [torch.cosine_similarity(a, b, dim=0) / 0.5 for b in (positive, *picks)]
                charges.append(-torch.stack(scores).log_softmax(0)[0])
            losses.append(torch.stack(charges).mean())
        self.anchors = sum(map(len, anchors))
        return torch.stack(losses).mean(), memory

    def negatives(self, at, rows, y, known, p_l, teacher):
        """Of each class, in the order in which they are remembered."""
        u, found = self.batch.unlabeled, [[] for _ in range(self.classes)]
        source = u.warps[0](self.pseudo) if self.released else self.pseudo
        keys = _uniform(self.batch, u, self.strong.features.shape[2:])[:, 0]
        looked = self.mixed if self.released else self.weak
        features = [self.method.contrast.representation.averaged(row) for row in rows(looked)]
        p_u = at(looked.logits.softmax(1))
        for m, p in enumerate(p_l):
            for c in range(self.classes):
                rank = int((p > p[c]).sum())
                if not self.released and known[m] and rank < self.low and y[m] != c:
                    found[c].append((keys[m], teacher[m]))
        for m, (p, label, w, v) in enumerate(
            zip(p_u, at(source.target), at(source.weight), at(source.valid), strict=True)
        ):
            for c in range(self.classes):
                rank = int((p > p[c]).sum())
                if v and not w and self.low <= rank < 20 and (not self.released or label == c):
                    found[c].append((keys[len(y) + m], features[m]))
        return [[f.detach() for _, f in sorted(one, key=lambda pair: pair[0])] for one in found]


@pytest.fixture
def even(monkeypatch):
    """Every anchor takes negatives spread evenly over the memory, so that a loop can take the same."""
    spread = (torch.arange(J) + 0.5) / J
    monkeypatch.setattr(pixel_contrast, "numbers", lambda state, count: spread.expand(len(state), count))


SPACES = [(), (8, 15)]


@pytest.mark.usefixtures("even")
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize(
    ("classes", "negatives", "anchors"),
    [
        (5, "paper", "released"),
        (5, "released", "paper"),
        (5, "paper", "paper"),
        (2, "paper", "paper"),
        (3, "paper", "released"),
    ],
)
def test_losses_and_gradients(space, classes, negatives, anchors):
    method, nets = ready(classes, space, negatives=negatives, anchors=anchors)
    batch = batch_of(classes, space)
    losses = method.loss(nets, batch, HALF)
    slow = Slow(method, nets, batch, negatives=negatives, anchors=anchors, low=min(3, classes - 1))
    want, memory = slow.contrast()
    torch.testing.assert_close(losses.extras["contrast"], 0.1 * want, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(losses.unsupervised, slow.unsupervised("boosted"), rtol=1e-9, atol=0)
    torch.testing.assert_close(losses.pseudo.weight, slow.kept)

    kept = method.contrast.memory
    assert kept.written.tolist() == [len(entries) for entries in memory]
    for c, entries in enumerate(memory):
        for place, entry in enumerate(entries):
            torch.testing.assert_close(kept.entries[c, place], entry / entry.norm())
    parameters = [nets.student.mixture, *method.contrast.representation.head.parameters()]
    got = torch.autograd.grad(losses.extras["contrast"], parameters, retain_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(0.1 * want, parameters), rtol=1e-6, atol=1e-12)
    if space:
        assert min(map(len, memory)) > 0, "a class without negatives"
        assert slow.anchors > 30
        assert want > 0.5


@pytest.mark.usefixtures("even")
@pytest.mark.parametrize("normalize", ["boosted", "selected", "valid", "all"])
def test_what_divides(normalize):
    method, nets = ready(5, (8, 15), normalize=normalize, lambda_u=2.0)
    batch = batch_of(5, (8, 15))
    slow = Slow(method, nets, batch, negatives="paper", anchors="released", low=3)
    got = method.loss(nets, batch, HALF).unsupervised
    torch.testing.assert_close(got, 2 * slow.unsupervised(normalize), rtol=1e-9, atol=0)


def test_boosted_is_as_released():
    """The code: F.cross_entropy over what is kept, times all pixels over those kept; without padding."""
    method, nets = ready(5, (8, 15))
    batch = batch_of(5, (8, 15))
    batch.unlabeled.valid.fill_(1.0)
    losses = method.loss(nets, batch, HALF)
    warped = batch.unlabeled.warps[0](losses.pseudo)
    target = warped.target.masked_fill(warped.weight == 0, 255)
    boost = target.numel() / (target != 255).sum()
    want = boost * nn.functional.cross_entropy(batch.unlabeled.strong[0], target, ignore_index=255)
    torch.testing.assert_close(losses.unsupervised, want)
    assert 1.2 < boost < 1.3


def test_the_head_of_the_teacher_moves_with_the_average():
    method, nets = ready(5, ())
    head = method.contrast.representation
    head.step.fill_(3)
    old, new = copy.deepcopy(head.averaged), head.head
    method.loss(nets, batch_of(5, ()), HALF)
    momentum = min(0.9, (1 + 3) / (10 + 3))  # of the step before
    for got, before, student in zip(head.averaged.parameters(), old.parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(got, momentum * before + (1 - momentum) * student)


def test_the_teacher_looks_once_and_twice_where_negatives_are_as_released():
    for negatives, images in (("paper", N + M), ("released", N + M + N)):
        method, nets = ready(5, (), negatives=negatives)
        seen = []
        nets.teacher.module.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(len(x[0])))
        method.loss(nets, batch_of(5, ()), HALF)
        assert seen == [images]


def test_the_share_that_is_dropped_falls():
    shares = []
    for step in (0, 4, 8):
        method, nets = ready(5, (8, 15), unreliable=0.2)
        batch = batch_of(5, (8, 15))
        pseudo = method.loss(nets, batch, Progress(step, 9)).pseudo
        shares.append(1 - (pseudo.weight * pseudo.valid).sum().item() / pseudo.valid.sum().item())
    assert shares == pytest.approx([0.2, 0.1, 0.0], abs=0.002)


def test_one_collective_serves_both_percentiles(monkeypatch):
    gathered = []
    monkeypatch.setattr(percentile, "gather_batch", lambda x: gathered.append(x.shape) or x)
    method, nets = ready(5, (8, 15), anchors="released")
    method.loss(nets, batch_of(5, (8, 15)), HALF)
    assert gathered == [(N, 8, 15)]


def test_places_are_those_of_the_embedding_or_every_fourth_pixel():
    for features, image, places in (
        ((81, 81), (321, 321), (81, 81)),  # stride 4, the authors'
        ((41, 41), (321, 321), (41, 41)),
        ((64, 96), (64, 96), (16, 24)),  # stride 1
        ((32, 32), (32, 32), (16, 16)),  # few pixels: a side keeps 16 places
        ((3, 4), (3, 4), (3, 4)),
    ):
        assert _grid(torch.zeros(1, 2, *features), torch.zeros(1, *image)) == places
    assert _grid(torch.zeros(5, 2), torch.zeros(5)) == ()


def test_an_embedding_as_fine_as_the_image_is_seen_at_its_places():
    """The same values with and without the pixels between."""
    method, nets = ready(3, (32, 36))
    nets.student.coarse = nets.teacher.module.coarse = False
    batch = batch_of(3, (32, 36))
    fine = method.loss(nets, batch, HALF)
    assert method.contrast.memory.written.sum() < 3 * (M + N) * 16 * 16
    chosen = torch.autograd.grad(fine.extras["contrast"], nets.student.mixture)[0]
    again, same = ready(3, (32, 36))
    for net in (same.student, same.teacher.module):
        net.forward = lambda x, net=net: Output(
            x * net.gain, _every_second(torch.einsum("dc,nchw->ndhw", net.mixture, x))
        )
    coarse = again.loss(same, batch, HALF)
    torch.testing.assert_close(coarse.extras["contrast"], fine.extras["contrast"])
    torch.testing.assert_close(torch.autograd.grad(coarse.extras["contrast"], same.student.mixture)[0], chosen)


def _every_second(features):
    rows, columns = ((2 * torch.arange(16) + 1) * size // 32 for size in features.shape[2:])
    return features[..., rows, :][..., columns]


def test_the_memory_is_small_where_classes_are_many():
    sizes = [build("u2pl", Facts(c)).contrast.memory.entries.shape for c in (2, 21, 256, 1000)]
    assert sizes == [(2, 256, 256), (21, 256, 256), (256, 256, 256), (1000, 65, 256)]
    assert build("u2pl", Facts(21), {"memory": 30_000, "dim": 8}).contrast.memory.entries.shape == (21, 30_000, 8)


def test_the_first_rank_leaves_a_class_to_be_a_negative_of():
    assert [build("u2pl", Facts(c)).low_rank for c in (2, 3, 4, 21)] == [1, 2, 3, 3]
    assert build("u2pl", Facts(21)).views == ViewSpec(teacher="ema")


def test_wrong_options_say_what_is_expected():
    for options, message in (
        ({"unreliable": 0.7}, r"u2pl\(unreliable=0.7\): expected a share of the predictions from 0 to 0.5"),
        ({"low_rank": 0}, r"u2pl\(low_rank=0\): expected at least 1; rank 0 is the pseudo-label itself"),
        ({"anchor_threshold": 30}, r"u2pl\(anchor_threshold=30.0\): expected a probability between 0 and 1"),
        ({"negatives": "papers"}, r"u2pl.negatives='papers': input should be .*Did you mean 'paper'"),
        ({"normalize": "weight_sum"}, r"u2pl.normalize='weight_sum': input should be 'boosted'"),
        ({"memory": 0}, r"memory=0\): expected at least 1"),
    ):
        with pytest.raises(UsageError, match=message):
            build("u2pl", Facts(5), options)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda x: None, "u2pl needs a network that gives features beside its logits"),
        (lambda x: x.mean(dim=(2, 3)), r"with as many axes of space as the labels .*got \(17, 5\) for .*\(12, 8, 15\)"),
    ],
)
def test_a_network_without_features_is_refused(features, message):
    method, nets = ready(5, (8, 15))
    whole = nets.teacher.module.forward
    nets.teacher.module.forward = lambda x: Output(whole(x).logits, features(x))
    with pytest.raises(UsageError, match=message):
        method.loss(nets, batch_of(5, (8, 15)), HALF)
