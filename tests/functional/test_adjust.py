from __future__ import annotations

import math

import pytest
import torch

from sfumato.functional.adjust import adjusted, prior_offset, tilted
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


def test_half_precision_and_certainty():
    offset = prior_offset(torch.tensor([0.999, 0.001, 0.0]))
    assert offset.isfinite().all()
    assert adjusted(torch.zeros(2, 3, dtype=torch.bfloat16), offset).dtype == torch.float32
    sure = torch.tensor([[1.0, 0.0, 0.0]])
    assert tilted(sure, offset).isfinite().all()
    assert tilted(sure, -offset).isfinite().all()
