import pytest
import torch

from sfumato.methods import Facts, build
from tests.given import step


@pytest.mark.parametrize("name", ["flexmatch_00", "flexmatch_01"])
def test_sequence(golden, name):
    want = golden(name)
    steps, _, classes = want["prob"].shape
    cutoff, samples = float(want["p_cutoff"]), int(want["num_unlabelled"])
    options = {"threshold": cutoff, "count_unused": bool(want["thresh_warmup"])}
    method = build("flexmatch", Facts(classes, samples), options).double()
    undecided = 0
    for t in range(steps):
        p = torch.from_numpy(want["prob"][t]).double()
        index = torch.from_numpy(want["idx"][t])
        losses = step(method, p.log(), torch.zeros_like(p), index=index)
        top, label = p.max(dim=1)
        status = method.weigh.status[label]
        near = (top - cutoff * status / (2 - status)).abs() < 1e-6
        undecided += int(near.sum())
        assert torch.equal(losses.pseudo.weight[~near], torch.from_numpy(want["mask"][t]).double()[~near])
        memory = method.weigh.memory
        after = memory.value(count_unused=bool(want["thresh_warmup"]))
        torch.testing.assert_close(after, torch.from_numpy(want["classwise_after"][t]), rtol=0, atol=1e-6)
        selected = memory.label[:samples].long()
        selected[selected == classes] = -1
        assert torch.equal(selected, torch.from_numpy(want["selected_after"][t]))
    assert undecided < 5
