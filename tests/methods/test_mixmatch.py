"""MixMatch against a loop over rows, and with batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.functional.mixmatch import larger_share, permutation
from sfumato.methods import Facts, build
from sfumato.types import Output, Progress
from tests.methods.problems import CLASSIFICATION, Echo, Tiny, image_batch, logits_batch

C = 5
END = Progress(9, 10)


def shares_and_partners(batch, alpha=0.75, views=2):
    """As the step draws them, in the order labeled, first view, second view, ..."""
    u = batch.unlabeled.draw("mixup", 3 * views)
    draws = torch.cat([batch.labeled.draw("mixup", 3), *(u[:, 3 * k : 3 * k + 3] for k in range(views))])
    return larger_share(draws[:, 2], alpha).tolist(), permutation(draws[:, 0], draws[:, 1]).tolist()


@pytest.mark.parametrize("views", [1, 2, 3])
def test_against_a_loop(views):
    method = build("mixmatch", Facts(C), {"weak_views": views, "lambda_u": 4.0})
    batch = logits_batch(CLASSIFICATION, method.views, void=0.3)
    losses = method.loss(Nets(Echo()), batch, END)

    labeled, u = batch.labeled, batch.unlabeled
    seen = [u.weak, *u.strong]
    q = sum(x.softmax(1) for x in seen) / views
    q = q**2 / (q**2).sum(1, keepdim=True)
    torch.testing.assert_close(losses.pseudo.target, q)
    rows = [
        (x, F.one_hot(y, C).float() if v else q[0], v)
        for x, y, v in zip(labeled.x, labeled.y, labeled.valid, strict=True)
    ]
    for view in seen:
        rows += list(zip(view, q, u.valid, strict=True))
    shares, partners = shares_and_partners(batch, views=views)
    charges = {"labeled": [], "unlabeled": []}
    for place, (share, partner) in enumerate(zip(shares, partners, strict=True)):
        (x, t, v), (other_x, other_t, other_v) = rows[place], rows[partner]
        z, target = share * x + (1 - share) * other_x, share * t + (1 - share) * other_t
        if v and other_v:
            if place < len(labeled.x):
                charges["labeled"].append(-(target * z.log_softmax(0)).sum())
            else:
                charges["unlabeled"].append((z.softmax(0) - target).square().mean())
    torch.testing.assert_close(losses.supervised, torch.stack(charges["labeled"]).mean())
    torch.testing.assert_close(losses.unsupervised, 4 * torch.stack(charges["unlabeled"]).mean())


def test_every_row_has_a_share_of_its_own():
    """A peer draws one for the whole batch."""
    method = build("mixmatch", Facts(C))
    shares, partners = shares_and_partners(logits_batch(CLASSIFICATION, method.views))
    assert len(set(shares)) > 50
    labeled, n = range(8), len(partners)
    assert any(partners[k] not in labeled for k in labeled)
    assert any(partners[k] in labeled for k in range(8, n))


class Normed(nn.Module):
    """Images to classes by one batch norm, that remembers what went through."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(2), nn.Linear(2, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), torch.is_grad_enabled()))
        features = self.norm(x).mean(dim=(2, 3))
        return Output(self.head(features), features)


def test_all_mixed_rows_go_through_together_and_the_guess_leaves_no_trace():
    method, net = build("mixmatch", Facts(3)), Normed()
    batch = image_batch(CLASSIFICATION, method.views)
    method.loss(Nets(net), batch, END).total.backward()
    assert net.seen == [(36, False), (6 + 36, True)]
    assert net.norm.num_batches_tracked == 1


def test_the_weight_rises_over_the_first_64th():
    method = build("mixmatch", Facts(3))
    batch = image_batch(CLASSIFICATION, method.views)
    net = Tiny(3, dense=False)
    sizes = [method.loss(Nets(net), batch, Progress(k, 641)).unsupervised.item() for k in (0, 5, 10, 640)]
    assert sizes == pytest.approx([0.0, sizes[-1] / 2, sizes[-1], sizes[-1]])


def test_wrong_options_say_what_is_expected():
    with pytest.raises(UsageError, match=r"mixmatch is for one class per image only.*weak views.*take cutmix_seg"):
        build("mixmatch", Facts(C, dense=True))
    with pytest.raises(UsageError, match=r"weak_views=0\): expected at least 1 view; the paper has 2"):
        build("mixmatch", Facts(C), {"weak_views": 0})
    with pytest.raises(UsageError, match=r"alpha=0.0\): expected a number above 0"):
        build("mixmatch", Facts(C), {"alpha": 0.0})
    with pytest.raises(UsageError, match=r"mixmatch\(temperature=-1.0\): expected a number above 0"):
        build("mixmatch", Facts(C), {"temperature": -1.0})
