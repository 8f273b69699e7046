import pytest
import torch

from sfumato.rules import DistributionAlignment
from tests.given import learn

KINDS = {"uniform": "uniform", "model": "model", "gt": "labeled", "queue": "model", "progressive": "labeled"}


@pytest.mark.parametrize("number", range(5))
def test_sequence(golden, number):
    want = golden(f"dist_align_{number:02}")
    steps, _, classes = want["prob_ulb"].shape
    kind = str(want["kind"])
    prior = torch.from_numpy(want["gt_target"]) if KINDS[kind] == "labeled" else None
    rule = DistributionAlignment(
        classes,
        target=KINDS[kind],
        prior=prior,
        power=float(want["progressive_t"]) if kind == "progressive" else 1.0,
        momentum=float(want["momentum"]),
        window=int(want["queue_length"]) if kind == "queue" else None,
        init="peer",
    ).double()

    def check(got, wanted):
        wanted = torch.as_tensor(wanted, dtype=torch.float64)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)

    for t in range(steps):
        p, labeled = (torch.from_numpy(want[key][t]).double() for key in ("prob_ulb", "prob_lb"))
        check(learn(rule, p, labeled=labeled.log()), want["aligned"][t])
        if kind == "queue":
            check(rule.model.rows, want["p_model"][t])
            check(rule.labeled.rows, want["p_target"][t])
        else:
            check(rule.model.value, want["p_model"][t])
            check(prior.double() if kind == "progressive" else rule.goal, want["p_target"][t])


def test_every_kind_is_there(golden):
    assert {str(golden(f"dist_align_{number:02}")["kind"]) for number in range(5)} == set(KINDS)
