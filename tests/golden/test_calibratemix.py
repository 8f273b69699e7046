import pytest
import torch

from sfumato.functional.margins import hard_half, margin_of, margins
from sfumato.functional.mix import (
    cosine,
    least_similar,
    mixed,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
    picked,
    pool_size,
)
from sfumato.running.margin_memory import MarginMemory

names = pytest.mark.parametrize("name", ["calibratemix_00", "calibratemix_01"])


@pytest.fixture
def want(golden, name):
    return {key: torch.from_numpy(value) for key, value in golden(name).items()}


def close(got, expected, tolerance=1e-4):
    torch.testing.assert_close(got, expected.to(got.dtype), rtol=0, atol=tolerance)


@names
def test_memories_and_split(want):
    samples, unlabeled = len(want["labels_all"]), len(want["apm_matrix"])
    aum = MarginMemory(samples)
    apm = MarginMemory(unlabeled, want["z_ulb"].shape[2], decay="eq5", delta=float(want["delta"]))
    for t in range(len(want["idx_lb"])):
        index, y, z, w = (want[key][t] for key in ("idx_lb", "y_lb", "z_lb", "z_ulb"))
        assert len(index.unique()) == len(index)
        aum.observe(index, margin_of(z, y))
        apm.observe(want["idx_ulb"][t], margins(w))
        label = w.argmax(dim=1)
        assert torch.equal(label, want["pl"][t])
        chosen = apm.at(want["idx_ulb"][t]).gather(1, label.unsqueeze(1)).squeeze(1)
        close(aum.at(index), want["aum"][t])
        close(chosen, want["apm_sel"][t])
        for score, easy in ((aum.at(index), "easy_l"), (chosen, "easy_u")):
            assert torch.equal(~hard_half(score, torch.ones_like(score)), want[easy][t])
    everyone = torch.arange(samples)
    close(aum.visits[:-1], want["aum_count"])
    close(aum.at(everyone) * want["aum_count"], want["aum_sum"], 1e-3)
    close(apm.at(torch.arange(unlabeled)), want["apm_matrix"])
    assert torch.equal(apm.visits[:-1].float(), want["apm_count"][:, 0])


@names
def test_partners(want):
    easy, hard = want["x_lb"][want["easy_l"][-1]], want["x_ulb"][~want["easy_u"][-1]]
    similarity = cosine(easy, hard)
    close(similarity, want["cosine_easy_l_hard_u"])
    k = int(want["top_k"])
    allowed = torch.ones_like(similarity, dtype=torch.bool)
    order = least_similar(similarity, allowed, k)
    assert torch.equal(order.sort(dim=1).values, want["farthest_sorted"])
    size = pool_size(allowed, count=k)
    assert (size == k).all()
    reachable = torch.stack([picked(order, size, torch.full((len(order),), (i + 0.5) / k)) for i in range(k)], dim=1)
    assert torch.equal(reachable, order)
    assert (order == want["picked"].unsqueeze(1)).any(dim=1).all()

    share = torch.full((len(easy),), float(want["lam"]))
    close(mixed(easy, hard[want["picked"]], share), want["mixed"])
    assert torch.equal(want["pl"][-1][~want["easy_u"][-1]][want["picked"]], want["label_b"])
    assert torch.equal(want["y_lb"][-1][want["easy_l"][-1]], want["label_a"])


@names
def test_losses(want):
    share = torch.full_like(want["label_a"], float(want["lam"]), dtype=torch.float32)
    for loss, value, gradient in (
        (mixed_cross_entropy, "ce_loss", "ce_grad"),
        (mixed_binary_cross_entropy, "bce_loss", "bce_grad"),
    ):
        logits = want["mixed_logits"].clone().requires_grad_()
        got = loss(logits, want["label_a"], want["label_b"], share).mean()
        got.backward()
        close(got.detach(), want[value])
        close(logits.grad, want[gradient])
