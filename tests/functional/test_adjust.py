from __future__ import annotations

import math

import pytest
import torch

from sfumato.functional.adjust import adjusted, prior_offset, tilted, tilted_target
from sfumato.types import Sparse
from tests.functional.oracle import CLASSES, SPACES, logits_of, softmax


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_against_a_loop(classes, space):
    z = logits_of(4, classes, *space)
    prior = torch.softmax(logits_of(classes, seed=1), dim=0)
    for tau in (0.0, 0.4, 1.0):
        offset = prior_offset(prior, tau)
        got = tilted(torch.softmax(z, dim=1), offset).movedim(1, -1).reshape(-1, classes)
        rows = z.movedim(1, -1).reshape(-1, classes)
        for row, answer in zip(rows.tolist(), got.tolist(), strict=True):
            want = softmax([x + tau * math.log(q) for x, q in zip(row, prior.tolist(), strict=True)])
            assert answer == pytest.approx(want)
        torch.testing.assert_close(torch.softmax(adjusted(z, offset), dim=1), tilted(torch.softmax(z, dim=1), offset))


def test_a_prior_goes_in_and_out_again():
    z, prior = logits_of(5, 7), torch.softmax(logits_of(7, seed=1), dim=0)
    offset = prior_offset(prior)
    torch.testing.assert_close(adjusted(adjusted(z, offset), -offset), z)
    p = torch.softmax(z, dim=1)
    torch.testing.assert_close(tilted(tilted(p, offset), -offset), p)


@pytest.mark.parametrize("space", SPACES)
def test_targets_of_every_form(space):
    p, offset = torch.softmax(logits_of(4, 5, *space), dim=1), prior_offset(torch.softmax(logits_of(5, seed=1), dim=0))
    assert torch.equal(tilted_target(p, offset), tilted(p, offset))
    label = p.argmax(dim=1)
    assert tilted_target(label, offset) is label
    hot = torch.zeros_like(p).scatter_(1, label.unsqueeze(1), 1.0)
    torch.testing.assert_close(tilted_target(hot, 5 * offset), hot, rtol=0, atol=1e-30)
    share, labels = p.topk(3, dim=1)
    few = Sparse(labels, share / share.sum(dim=1, keepdim=True))
    dense = torch.zeros_like(p).scatter_(1, few.labels, few.share)
    moved = tilted_target(few, offset)
    got = torch.zeros_like(p).scatter_(1, moved.labels, moved.share)
    torch.testing.assert_close(got, tilted(dense, offset), rtol=1e-5, atol=1e-7)
    assert tilted_target(p.bfloat16(), offset).dtype == torch.float32


def test_half_precision_and_certainty():
    offset = prior_offset(torch.tensor([0.999, 0.001, 0.0]))
    assert offset.isfinite().all()
    assert adjusted(torch.zeros(2, 3, dtype=torch.bfloat16), offset).dtype == torch.float32
    sure = torch.tensor([[1.0, 0.0, 0.0]])
    assert tilted(sure, offset).isfinite().all()
    assert tilted(sure, -offset).isfinite().all()
