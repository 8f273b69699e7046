import pytest
import torch

from sfumato.functional.margins import hard_half, margin_of, margins
from sfumato.functional.probability import log_probability
from tests.functional.oracle import CLASSES, SPACES, logits_of


def others(row, c):
    return max(z for j, z in enumerate(row) if j != c)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("space", SPACES)
def test_against_loops(classes, space):
    z = logits_of(4, classes, *space)
    rows = z.movedim(1, -1).reshape(-1, classes)
    want = torch.tensor([[row[c] - others(row, c) for c in range(classes)] for row in rows.tolist()])
    got = margins(z)
    assert got.shape == z.shape
    torch.testing.assert_close(got.movedim(1, -1).reshape(-1, classes), want.double())
    assert ((got > 0).sum(dim=1) == 1).all()
    labels = torch.randint(classes, (4, *space), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(margin_of(z, labels), got.gather(1, labels.unsqueeze(1)).squeeze(1))
    torch.testing.assert_close(margins(log_probability(z)), got)


def test_the_runner_up_is_taken_however_low():
    z = torch.tensor([[3.0, -4.0, -5.0]])
    assert margins(z).tolist() == [[7.0, -7.0, -8.0]]
    assert margin_of(z, torch.tensor([0])).item() == 7.0


def test_equal_winners_have_a_margin_of_zero():
    z = torch.tensor([[2.0, 2.0, 1.0]])
    assert margins(z).tolist() == [[0.0, 0.0, -1.0]]
    assert margin_of(z, torch.tensor([1])).item() == 0.0


def test_half_precision_is_widened():
    assert margins(torch.zeros(1, 2, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_the_lower_half_is_hard(size):
    score = torch.randn(size, generator=torch.Generator().manual_seed(size))
    hard = hard_half(score, torch.ones(size))
    assert hard.sum() == size // 2
    assert size == 1 or score[hard].max() < score[~hard].min()


def test_equal_scores_are_halved_by_place():
    assert hard_half(torch.zeros(5), torch.ones(5)).tolist() == [True, True, False, False, False]


def test_ignored_samples_are_not_counted():
    score, valid = torch.tensor([-9.0, 1.0, 2.0, -9.0, 0.0]), torch.tensor([0.0, 1, 1, 0, 1])
    assert hard_half(score, valid).tolist() == [False, False, False, False, True]
    assert not hard_half(score, torch.zeros(5)).any()
