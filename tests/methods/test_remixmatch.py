"""ReMixMatch against a loop over rows, and with batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.functional.rotate import quarters
from sfumato.methods import Facts, build
from sfumato.types import Output, Progress
from tests.methods.problems import CLASSIFICATION, Echo, Tiny, image_batch, logits_batch, on_images
from tests.methods.test_mixmatch import shares_and_partners

C = 5
END = Progress(9, 10)


def attached(net, classes=3, **options):
    method = build("remixmatch", Facts(classes), options)
    torch.manual_seed(0)
    method.attach(net)
    return method


def guess_by_hand(p, labeled):
    """Of a first batch: the frequencies of its labels over its mean prediction."""
    goal = F.one_hot(labeled.y[labeled.valid > 0], C).double().mean(0)
    aligned = p * (goal + 1e-6) / (p.mean(0) + 1e-6)
    aligned = aligned / aligned.sum(1, keepdim=True)
    return aligned**2 / (aligned**2).sum(1, keepdim=True)


@pytest.mark.parametrize("view", ["strong", "weak"])
def test_against_a_loop(view):
    method = attached(Echo(), C, lambda_rotation=0.0, **({} if view == "strong" else {"labeled_view": view}))
    batch = logits_batch(CLASSIFICATION, method.views, void=0.0)
    losses = method.loss(Nets(Echo()), batch, END)
    labeled, u = batch.labeled, batch.unlabeled
    q = guess_by_hand(u.weak.softmax(1).double(), labeled).float()
    torch.testing.assert_close(losses.pseudo.target, q, rtol=1e-4, atol=1e-5)
    assert (labeled.strong is None) == (view == "weak")
    rows = list(zip(labeled.x if view == "weak" else labeled.strong, F.one_hot(labeled.y, C).float(), strict=True))
    for view in (*u.strong, u.weak):
        rows += list(zip(view, q, strict=True))
    shares, partners = shares_and_partners(batch, views=3)
    charges = []
    for (x, t), share, partner in zip(rows, shares, partners, strict=True):
        other_x, other_t = rows[partner]
        z, target = share * x + (1 - share) * other_x, share * t + (1 - share) * other_t
        charges.append(-(target * z.log_softmax(0)).sum())
    charges = torch.stack(charges)
    torch.testing.assert_close(losses.supervised, charges[:8].mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.unsupervised, 1.5 * charges[8:].mean(), rtol=1e-4, atol=1e-5)
    premix = 0.5 * -(q * u.strong[0].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses.extras["premix"], premix, rtol=1e-4, atol=1e-5)
    assert "rotation" not in losses.extras


def test_the_head_tells_how_the_first_strong_view_is_turned():
    net = Tiny(3, dense=False)
    method = attached(net)
    batch = image_batch(CLASSIFICATION, method.views)
    seen = []
    net.register_forward_hook(lambda net, images, out: seen.append((images[0], out.features)))
    losses = method.loss(Nets(net), batch, END)
    (images, features), by = seen[-1], quarters(batch.unlabeled.draw("rotation", 1)[:, 0])
    assert len(set(by.tolist())) == 4
    for image, plain, k in zip(images, batch.unlabeled.strong[0], by.tolist(), strict=True):
        assert torch.equal(image, plain.rot90(k, (1, 2)))
    want = 0.5 * F.cross_entropy(method.rotation.head(features), by)
    torch.testing.assert_close(losses.extras["rotation"], want)


def test_guesses_follow_the_labels():
    """A network that prefers the first class; labels of which half are of the last."""
    method = attached(Echo(), C, window=4)
    for seed in range(6):
        batch = logits_batch(CLASSIFICATION, method.views, seed=seed, void=0.0)
        batch = on_images(batch, lambda x: x + torch.tensor([3.0, 0, 0, 0, -1]))
        batch.labeled.y[:] = torch.tensor([4, 0, 4, 1, 4, 2, 4, 3])
        target = method.loss(Nets(Echo()), batch, END).pseudo.target
    plain = batch.unlabeled.weak.softmax(1).mean(0)
    guess = target.mean(0)
    assert plain[0] > 0.4 > 0.25 > plain[4]
    assert guess[4] > 0.3
    assert guess[4] == guess.max()


class Normed(nn.Module):
    """Images to classes by one batch norm, that remembers what went through."""

    num_features = 2

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), torch.is_grad_enabled()))
        features = self.norm(x).mean(dim=(2, 3))
        return Output(self.head(features), features)


def test_only_the_mixed_rows_move_the_running_statistics():
    net = Normed()
    method = attached(net)
    batch = image_batch(CLASSIFICATION, method.views)
    method.loss(Nets(net), batch, END).total.backward()
    assert net.seen == [(18, False), (6 + 3 * 18, True), (18, True), (18, True)]
    assert net.norm.num_batches_tracked == 1


def test_the_rotation_loss_is_not_ramped():
    net = Tiny(3, dense=False)
    batch = image_batch(CLASSIFICATION, attached(net).views)
    start, early, end = (attached(net).loss(Nets(net), batch, Progress(k, 641)) for k in (0, 5, 640))
    assert start.unsupervised == start.extras["premix"] == 0
    torch.testing.assert_close(2 * early.unsupervised, end.unsupervised)
    torch.testing.assert_close(2 * early.extras["premix"], end.extras["premix"])
    assert start.extras["rotation"] == end.extras["rotation"] > 0


def test_images_that_are_not_square_are_refused_unless_nothing_turns_them():
    net = Tiny(3, dense=False)
    batch = on_images(image_batch(CLASSIFICATION, attached(net).views), lambda x: x[..., :3])
    with pytest.raises(UsageError, match=r"Images of 4 x 3 pixels cannot be turned by a quarter"):
        attached(net).loss(Nets(net), batch, END)
    assert attached(net, lambda_rotation=0.0).loss(Nets(net), batch, END).total.isfinite()


def test_wrong_options_say_what_is_expected():
    with pytest.raises(UsageError, match=r"remixmatch is for one class per image only.*For masks take unimatch"):
        build("remixmatch", Facts(C, dense=True))
    with pytest.raises(UsageError, match=r"strong_views=0\): expected at least 1 view"):
        build("remixmatch", Facts(C), {"strong_views": 0})
    with pytest.raises(UsageError, match=r"labeled_view='weka'.*Did you mean 'weak'"):
        build("remixmatch", Facts(C), {"labeled_view": "weka"})
    with pytest.raises(UsageError, match=r"remixmatch\(alpha=-0.5\): expected a number above 0"):
        build("remixmatch", Facts(C), {"alpha": -0.5})
