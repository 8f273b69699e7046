import math

import pytest
import torch

from sfumato.functional import one_pass
from sfumato.functional.one_pass import blocks, fuzzy_label, hard_label, largest
from sfumato.functional.probability import confidence, normalized_entropy, probability
from tests.functional.oracle import CLASSES, SPACES, logits_of


@pytest.fixture(params=[8, 64, 2**17])
def block(request, monkeypatch):
    """Blocks of less than an image, of several images, and of everything."""
    monkeypatch.setattr(one_pass, "_BLOCK", request.param)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", [*SPACES, (5,), (3, 2, 2)])
@pytest.mark.usefixtures("block")
def test_against_the_chain(classes, space):
    logits = logits_of(5, classes, *space)
    p = probability(logits)
    top, label = hard_label(logits)
    torch.testing.assert_close(top, confidence(p)[0])
    assert torch.equal(label, p.argmax(dim=1))
    k = min(3, classes)
    share, labels = p.topk(k, dim=1)
    fuzzy = fuzzy_label(logits, 3)
    assert torch.equal(fuzzy.target.labels, labels)
    torch.testing.assert_close(fuzzy.target.share, share / share.sum(dim=1, keepdim=True))
    torch.testing.assert_close(fuzzy.confidence, top)
    torch.testing.assert_close(fuzzy.entropy, normalized_entropy(p), rtol=1e-9, atol=1e-12)
    values, places = largest(p, k)
    assert torch.equal(values, share)
    assert torch.equal(places, labels)


def test_layout_in_memory_does_not_matter():
    logits = logits_of(3, 6, 5, 4).float()
    last = logits.contiguous(memory_format=torch.channels_last)
    for one, other in zip(hard_label(logits), hard_label(last), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(fuzzy_label(logits, 2).target.labels, fuzzy_label(last, 2).target.labels)


def test_of_equal_ones_the_first():
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    assert hard_label(logits)[1].tolist() == [[0, 2]]
    assert fuzzy_label(logits, 3).target.labels.tolist() == [[[0, 2], [1, 3], [3, 0]]]
    assert largest(logits, 3)[1].tolist() == [[[0, 2], [1, 3], [3, 0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes(dtype):
    logits = torch.tensor([[1500.0, 0.0, -math.inf], [-math.inf, -math.inf, 2.0], [0.0, 0.0, 0.0]], dtype=dtype)
    top, label = hard_label(logits)
    torch.testing.assert_close(top, torch.tensor([1.0, 1.0, 1 / 3], dtype=dtype))
    assert label.tolist() == [0, 2, 0]
    fuzzy = fuzzy_label(logits, 2)
    torch.testing.assert_close(fuzzy.entropy, torch.tensor([0.0, 0.0, 1.0], dtype=dtype))
    torch.testing.assert_close(fuzzy.target.share[:, 0], torch.tensor([1.0, 1.0, 0.5], dtype=dtype))
    for kind in (torch.isnan(hard_label(logits * math.nan)[0]), hard_label(logits * math.nan)[1] < 3):
        assert kind.all()  # what is broken shows in the confidence; the label is a class, so that nothing else breaks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted(dtype):
    logits = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    for low, full in zip(hard_label(logits), hard_label(logits.float()), strict=True):
        assert torch.equal(low, full)
    assert fuzzy_label(logits, 2).target.share.dtype == torch.float32


@pytest.mark.usefixtures("block")
def test_blocks_cover_everything_once():
    for shape in ((3, 5, 7), (4, 1, 1), (1, 1000, 3)):
        seen = torch.zeros(shape[0], shape[2])
        for part in blocks(shape, torch.device("cpu")):
            seen[part] += 1
        assert torch.equal(seen, torch.ones_like(seen))
    assert list(blocks((3, 5, 7), torch.device("meta"))) == [(slice(0, 3), slice(0, 7))]
