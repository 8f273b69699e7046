"""The labels that networks give to images of a table: each image by itself, with its mirror image or without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.pair_data import PairData
from sfumato.types import Output
from sfumato.views import DenseAugment
from tests.train import pixels, tiny

CPU = torch.device("cpu")


class LeftIsDark(nn.Module):
    """Class by brightness, and darker towards the left: of a mirrored image it says something else."""

    def __init__(self, shade: float) -> None:
        super().__init__()
        self.shade = nn.Parameter(torch.tensor(shade))
        self.norm = nn.BatchNorm2d(3)  # would mix the images of a batch in training mode

    def forward(self, x: Tensor) -> Output:
        x = self.norm(x)
        bright = x.mean(dim=1) + self.shade * torch.linspace(-1, 1, x.shape[-1])
        return Output(torch.stack([-2 * bright, -((2 * bright) ** 2), 2 * bright], dim=1))


def by_hand(given: PairData, net: nn.Module, row: int, *, flip: bool) -> Tensor:
    x = given.augment.evaluation(given.table.images.image(row)[None])
    p = net(x).logits.softmax(dim=1)
    if flip:
        p = p + net(x.flip(-1)).logits.softmax(dim=1).flip(-1)
    return p.argmax(dim=1)[0]


@pytest.mark.parametrize("flip", [True, False])
def test_masks_are_those_of_each_image_alone(flip: bool) -> None:
    given, nets = pixels.data(), [LeftIsDark(0.3), LeftIsDark(2.0)]
    rows = np.array([9, 0, 3, 6, 1, 2])
    found = list(given.predictions(nets, rows, CPU, flip=flip))
    assert np.concatenate([some for some, _ in found]).tolist() == rows.tolist()
    assert nets[0].training
    for net in nets:
        net.eval()
    changed = 0
    with torch.no_grad():
        for some, labels in found:
            assert len(labels) == 2
            for place, row in enumerate(some.tolist()):
                for net, mine in zip(nets, labels, strict=True):
                    assert mine.dtype == torch.uint8
                    assert torch.equal(mine[place].long(), by_hand(given, net, row, flip=flip))
                changed += int((by_hand(given, nets[0], row, flip=not flip) != labels[0][place]).any())
    assert changed == len(rows)


def test_where_training_does_not_mirror_neither_do_labels() -> None:
    given, net = pixels.data(), LeftIsDark(1.0)
    views = given.augment
    preset = replace(views.preset, flip=0.0)
    still = replace(given, augment=DenseAugment(preset, seed=0, crop=views.crop, mean=views.mean, std=views.std))
    plain, asked = (
        [labels[0] for _, labels in still.predictions([net], np.arange(6), CPU, flip=flip)] for flip in (False, True)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, asked, strict=True))


def test_labels_are_those_of_each_image_alone() -> None:
    given, nets = replace(tiny.data(), eval_batch=5), [tiny.network(seed) for seed in (0, 1)]
    rows = given.splits.unlabeled[:13]
    found = list(given.predictions(nets, rows, CPU, flip=True))  # digits are not mirrored
    assert [len(some) for some, _ in found] == [5, 5, 3]
    for number, net in enumerate(nets):
        logits, _ = given.predict(net, rows, CPU)
        labels = torch.cat([labels[number] for _, labels in found])
        assert torch.equal(labels, logits.argmax(dim=1))
