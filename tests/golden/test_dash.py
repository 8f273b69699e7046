import math

import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.functional.weigh import own_cost
from sfumato.rules import LossThreshold
from sfumato.types import Progress
from tests.given import learn

EPOCHS = 100  # of the whole training, each stage being 10


@pytest.mark.parametrize("name", ["dash_00", "dash_01"])
def test_masks_and_limits(golden, name):
    """What labels cost is given in the file; it is reached by logits that cost as much."""
    want = golden(name)
    classes, epoch = want["logits"].shape[2], int(want["iters_per_epoch"])
    options = {
        key: float(want[named]) for key, named in (("gamma", "gamma"), ("floor", "rho_min"), ("temperature", "T"))
    }
    rule = LossThreshold(factor=float(want["C_factor"]), warmup=0.0, stage=10 / EPOCHS, **options).double()
    labeled = torch.zeros(1, classes, dtype=torch.float64)
    labeled[0, 0] = math.log((classes - 1) / math.expm1(float(want["rho_init"])))

    for t, step in enumerate(want["it"].tolist()):
        p = probability(torch.from_numpy(want["logits"][t]).double())
        weight = learn(
            rule, p, labeled=labeled, y=torch.zeros(1, dtype=torch.int64), progress=Progress(step, EPOCHS * epoch)
        )
        rho = torch.tensor(float(want["rho"][t]), dtype=torch.float64)
        torch.testing.assert_close(rule.rho, rho, rtol=0, atol=1e-5)
        assert bool(rule.hard) == bool(want["hard"][t])
        loss = torch.from_numpy(want["loss"][t]).double()
        torch.testing.assert_close(own_cost(p, rule.temperature), loss, rtol=1e-5, atol=1e-5)
        tied = (loss - rho).abs() < 1e-5
        assert torch.equal(weight[~tied], torch.from_numpy(want["mask"][t]).double()[~tied])
