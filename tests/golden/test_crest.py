"""CReST's split against the authors' function, and the same by rank."""

import numpy as np
import pytest
import torch

from sfumato.functional.selection import progressive_power, sampling_rates, surest_of_each_class

CASES = ("crest_00", "crest_01")


@pytest.fixture(params=CASES)
def case(shared, request) -> dict:
    with np.load(shared / "golden" / f"{request.param}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored.files}


@pytest.mark.parametrize(("rates", "key"), [("official", "rate_official_by_class_id"), ("rank", "rate_by_rank")])
def test_rates(case, rates, key):
    found = sampling_rates(case["class_counts"], float(case["alpha"]), rates)
    torch.testing.assert_close(found, case[key], rtol=1e-12, atol=0)


def test_rates_of_counts_are_those_of_ranks_but_for_whole_images(case):
    """The counts of the case are a geometric tail, rounded."""
    found = sampling_rates(case["class_counts"], float(case["alpha"]))
    torch.testing.assert_close(found, case["rate_by_rank"], rtol=0, atol=3e-3)
    assert not case["rates_agree"]
    assert abs(found - case["rate_official_by_class_id"]).max() > 0.1


def test_the_official_pick(case):
    p = torch.softmax(case["logits"], dim=1)
    torch.testing.assert_close(p.max(dim=1).values, case["score"])
    places = surest_of_each_class(p, case["rate_official_by_class_id"])
    assert torch.equal(places, case["picked_index"].sort().values)
    label = p.argmax(dim=1)
    assert torch.equal(label, case["pseudo_label"])
    assert torch.equal(label[case["picked_index"]], case["picked_label"])
    assert torch.equal(torch.bincount(label, minlength=p.shape[1]), case["predicted_counts"])
    assert torch.equal(torch.bincount(label[places], minlength=p.shape[1]), case["picked_counts"])


def test_the_pick_by_rank(case):
    """Of each class the share of its rate, the surest ones, one class after another."""
    p = torch.softmax(case["logits"], dim=1)
    wanted = set()
    for c, rate in enumerate(case["rate_by_rank"].tolist()):
        members = [i for i in range(len(p)) if int(case["pseudo_label"][i]) == c]
        members.sort(key=lambda i: -float(case["score"][i]))
        wanted |= set(members[: int(rate * len(members))])
    assert set(surest_of_each_class(p, case["rate_by_rank"]).tolist()) == wanted


def test_progressive_powers(case):
    powers = case["progressive_t"].tolist()
    found = [progressive_power(g, len(powers), powers[-1]) for g in range(1, len(powers) + 1)]
    assert found == pytest.approx(powers, abs=1e-12)
