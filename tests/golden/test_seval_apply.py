import pytest
import torch

from sfumato.addons.seval import seval
from sfumato.methods import Facts, build
from tests.given import step

both = pytest.mark.parametrize("name", ["seval_apply_00", "seval_apply_01"])


def given(want):
    """FixMatch with the offsets and thresholds of the file, as if one evaluation had found them."""
    method = build("fixmatch", Facts(len(want["pi"])))
    seval(method, len(want["pi"]))
    method.refine.curriculum.offsets.observe(torch.from_numpy(want["pi"]).log())
    method.refine.curriculum.thresholds.observe(torch.from_numpy(want["tau"]))
    return method


@both
def test_step(golden, name):
    want = golden(name)
    method = given(want)
    weak, strong = torch.from_numpy(want["logits_weak"]), torch.from_numpy(want["logits_strong"])
    p = method.refine(torch.softmax(weak, dim=1))
    torch.testing.assert_close(p, torch.from_numpy(want["prob"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(p.amax(dim=1), torch.from_numpy(want["confidence"]), rtol=0, atol=1e-5)
    losses = step(method, weak, strong)
    assert torch.equal(losses.pseudo.target, torch.from_numpy(want["pseudo_label"]))
    assert torch.equal(losses.pseudo.weight, torch.from_numpy(want["mask"]))
    assert float(losses.unsupervised) == pytest.approx(float(want["loss"]), abs=1e-5)


@both
def test_strong_logits_are_charged_as_they_are(golden, name):
    """Refining them too would teach the network to undo the offsets."""
    want = golden(name)
    strong = torch.from_numpy(want["logits_strong"])
    weak = torch.from_numpy(want["logits_weak"])
    refined = step(given(want), weak, strong - torch.from_numpy(want["pi"]).log())
    assert float(refined.unsupervised) != pytest.approx(float(want["loss"]), abs=1e-3)
