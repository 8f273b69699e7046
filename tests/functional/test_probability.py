import math

import pytest
import torch

from sfumato.functional.probability import (
    class_counts,
    class_sums,
    confidence,
    entropy,
    log_probability,
    normalized_entropy,
    one_hot,
    probability,
    safe_log,
)
from tests.functional.oracle import CLASSES, SPACES, logits_of


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_against_loops(classes, space):
    logits = logits_of(3, classes, *space)
    p, labels = probability(logits), torch.randint(classes, (3, *space))
    valid = (torch.rand(3, *space) < 0.7).double()
    sums, counts = [0.0] * classes, [0.0] * classes
    for n, *s in torch.cartesian_prod(*(torch.arange(k) for k in (3, *space))).reshape(-1, 1 + len(space)).tolist():
        row = [float(logits[(n, c, *s)]) for c in range(classes)]
        top = max(row)
        total = sum(math.exp(z - top) for z in row)
        q = [math.exp(z - top) / total for z in row]
        h = -sum(v * math.log(v) for v in q if v > 0)
        here = (n, *s)
        assert float(entropy(p)[here]) == pytest.approx(h, rel=1e-9)
        assert float(normalized_entropy(p)[here]) == pytest.approx(h / math.log(classes), rel=1e-9)
        assert float(confidence(p)[0][here]) == pytest.approx(max(q), rel=1e-12)
        assert int(confidence(p)[1][here]) == row.index(top)
        for c in range(classes):
            assert float(p[(n, c, *s)]) == pytest.approx(q[c], rel=1e-12, abs=1e-300)
            assert float(log_probability(logits)[(n, c, *s)]) == pytest.approx(row[c] - top - math.log(total), rel=1e-9)
            assert float(one_hot(labels, classes)[(n, c, *s)]) == float(labels[here] == c)
            sums[c] += q[c] * float(valid[here])
        counts[int(labels[here])] += float(valid[here])
        if classes == 1000 and n == 1:
            break
    if classes < 1000:
        assert class_sums(p, valid).tolist() == pytest.approx(sums)
        assert class_counts(labels, classes, valid).tolist() == counts


def test_certainty_and_ignorance():
    sure = one_hot(torch.tensor([2]), 5)
    assert entropy(sure).item() == 0
    assert normalized_entropy(torch.full((1, 5), 0.2)).item() == pytest.approx(1)
    assert safe_log(torch.zeros(3)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted(dtype):
    logits = torch.randn(4, 6).to(dtype)
    for function in (probability, log_probability):
        assert function(logits).dtype == torch.float32
        assert torch.equal(function(logits), function(logits.float()))
