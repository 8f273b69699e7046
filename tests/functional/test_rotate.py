import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.rotate import quarters, turned


def test_each_image_by_its_own_number_of_quarters():
    draw = torch.Generator().manual_seed(0)
    x, by = torch.randn(8, 3, 5, 5, generator=draw), torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    got = turned(x, by)
    for n in range(8):
        assert torch.equal(got[n], x[n].rot90(int(by[n]), (1, 2)))
    back = turned(got, (4 - by) % 4)
    assert torch.equal(back, x)


def test_rows_of_a_table_are_moved_by_quarters_of_their_length():
    x = torch.arange(8.0).expand(4, 8)
    assert turned(x, torch.arange(4))[:, 0].tolist() == [0, 2, 4, 6]
    odd = turned(torch.arange(5.0).expand(4, 5), torch.arange(4))
    assert len({tuple(row) for row in odd.tolist()}) == 4


def test_only_square_images_can_be_turned():
    with pytest.raises(
        UsageError, match="Images of 4 x 6 pixels cannot be turned by a quarter: that takes square ones"
    ):
        turned(torch.zeros(1, 3, 4, 6), torch.tensor([0]))


def test_the_four_are_drawn_alike_often():
    assert quarters(torch.tensor([0.0, 0.24, 0.25, 0.74, 0.75, 1 - 2**-24])).tolist() == [0, 0, 1, 2, 3, 3]
