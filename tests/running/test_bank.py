import torch

from sfumato.functional.prototypes import unit
from sfumato.running.bank import LabeledBank

DRAW = torch.Generator().manual_seed(0)
H = torch.randn(4, 3, generator=DRAW)
ONES = torch.ones(4)


def test_each_row_has_length_one():
    """The peer normalizes across the samples of the batch: its rows do not."""
    bank = LabeledBank(6, dim=3)
    for k in range(3):
        bank.observe(H.roll(k, 0) * (1 + k), torch.tensor([0, 1, 2, 0]), torch.tensor([5, 0, 3, 2]), ONES)
    torch.testing.assert_close(bank.rows.norm(dim=1), torch.tensor([1.0, 0, 1, 1, 0, 1]))
    assert bank.filled.tolist() == [True, False, True, True, False, True, False]


def test_a_first_visit_is_kept_as_it_is_and_further_ones_move_it():
    bank, index, label = LabeledBank(4, dim=3, momentum=0.7), torch.arange(4), torch.tensor([2, 1, 0, 2])
    bank.observe(H, label, index, ONES)
    torch.testing.assert_close(bank.rows, unit(H))
    bank.observe(H.flip(0), label, index, ONES)
    torch.testing.assert_close(bank.rows, unit(0.7 * unit(H) + 0.3 * unit(H.flip(0))))
    assert bank.label[:-1].tolist() == [2, 1, 0, 2]


def test_visits_of_one_sample_in_a_batch_are_their_mean_in_any_order():
    """40 labels in batches of 64 cannot do without; the peer keeps whichever is written last."""
    index, label = torch.tensor([1, 0, 1, 1]), torch.tensor([2, 0, 2, 2])
    banks = [LabeledBank(2, dim=3) for _ in range(2)]
    order = torch.tensor([2, 3, 0, 1])
    for _ in range(2):
        banks[0].observe(H, label, index, ONES)
        banks[1].observe(H[order], label[order], index[order], ONES)
    torch.testing.assert_close(banks[0].rows, banks[1].rows)
    once = LabeledBank(2, dim=3)
    once.observe(H, label, index, ONES)
    torch.testing.assert_close(once.rows[1], unit(unit(H[[0, 2, 3]]).mean(0, keepdim=True))[0])


def test_samples_without_a_label_are_not_kept():
    bank = LabeledBank(4, dim=3)
    bank.observe(H, torch.tensor([255, 1, 255, 0]), torch.arange(4), torch.tensor([0.0, 1, 0, 1]))
    assert bank.filled.tolist() == [False, True, False, True, False]
    assert bank.label.tolist() == [0, 1, 0, 0, 0]
