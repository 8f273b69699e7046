from __future__ import annotations

import numpy as np
import torch

from sfumato.methods import Facts, build
from sfumato.train import train
from sfumato.types import HeldOut, Progress
from tests.given import step
from tests.methods.cases import state
from tests.train.tiny import CONFIG, data, network


def test_the_loss_by_hand():
    """Two samples, of which one costs more than the limit of its labels."""
    method = build("dash", Facts(2), {"warmup": 0.0, "temperature": 0.5})
    weak, strong = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log(), torch.tensor([[0.7, 0.3], [0.2, 0.8]]).log()
    labeled = torch.tensor([[0.6, 0.4]]).log()
    losses = step(method, weak, strong, labeled=labeled, y=torch.tensor([0]), progress=Progress(0, 1000))
    sharp = torch.tensor([0.81, 0.01]) / 0.82
    assert losses.pseudo.weight.tolist() == [1.0, 0.0]  # 0.13 and 0.69, where labels cost 0.51
    torch.testing.assert_close(losses.pseudo.target[0], sharp)
    torch.testing.assert_close(losses.unsupervised, -(sharp * strong[0]).sum() / 2)


def test_no_evaluation_data_reaches_the_limit():
    """Other validation and test images and labels leave every number as it was: the peers measure rho on a test set."""

    def trained(*, spoil):
        given = data()
        if spoil:
            given.table.labels[given.splits.val] = 9 - given.table.labels[given.splits.val]
            given.splits.val[:] = np.roll(given.splits.val, 7)
        method = build("dash", Facts(10), {"warmup": 0.5})
        result = train(method, network(), given, CONFIG, quiet=True)
        return state(method), result

    (plain, first), (spoilt, second) = trained(spoil=False), trained(spoil=True)
    assert first.val != second.val
    assert plain["weigh.rho"] > 0
    assert all(torch.equal(plain[key], spoilt[key]) for key in plain)


def test_calibrating_changes_nothing():
    method = build("dash", Facts(3))
    before = state(method)
    method.calibrate(HeldOut(torch.randn(5, 3) * 9, torch.tensor([0, 1, 2, 0, 1]), torch.ones(5)))
    assert all(torch.equal(before[key], value) for key, value in state(method).items())


def test_the_warm_up_charges_labels_alone():
    method = build("dash", Facts(3), {"warmup": 0.5})
    weak = torch.randn(4, 3) * 9
    assert step(method, weak, weak, progress=Progress(4, 10)).unsupervised == 0
    assert method.weigh.labeled.batches == 1
    assert step(method, weak, -weak, progress=Progress(5, 10)).unsupervised > 0
