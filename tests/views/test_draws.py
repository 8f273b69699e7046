from hashlib import blake2b

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from sfumato.views import uniform
from sfumato.views.draws import draw_for

SLOTS = torch.arange(20_000)


def correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(np.corrcoef(left.numpy().ravel(), right.numpy().ravel())[0, 1])


def test_the_numbers_are_pinned():
    # A changed hash changes every run ever made: that must be a decision.
    drawn = uniform(0, 0, "weak", torch.tensor([0, 1]), 2)
    assert (drawn * 2**24).long().tolist() == [[5522433, 16191363], [785374, 2318172]]


def reference(key: int, slot: int, place: int) -> int:
    """SplitMix64 in Python's own integers, which never overflow."""

    def mix(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        return bits ^ (bits >> 31)

    golden = 0x9E3779B97F4A7C15
    state = mix((slot * golden + key) % 2**64)
    return mix((state + (place + 1) * golden) % 2**64) >> 40


def test_signed_arithmetic_of_tensors_equals_unsigned_integers():
    key = int.from_bytes(blake2b(b"7/3/strong", digest_size=8).digest(), "little")
    drawn = (uniform(7, 3, "strong", torch.arange(50), 6) * 2**24).long()
    assert drawn.tolist() == [[reference(key, slot, place) for place in range(6)] for slot in range(50)]


def test_uniform_in_distribution():
    drawn = uniform(1, 2, "weak", SLOTS, 5)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (20_000, 5)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    for column in drawn.double().T:
        assert abs(float(column.mean()) - 1 / 2) < 4 / (12 * len(SLOTS)) ** 0.5
        assert abs(float(column.var()) - 1 / 12) < 0.003
        assert chisquare(torch.histc(column, 64, 0, 1).numpy()).pvalue > 1e-4
        assert kstest(column.numpy(), "uniform").pvalue > 1e-4


def test_low_bits_are_uniform_too():
    bits = (uniform(1, 2, "weak", SLOTS, 4) * 2**24).long() % 16
    assert chisquare(torch.bincount(bits.ravel(), minlength=16).numpy()).pvalue > 1e-4


def test_neighbours_are_unrelated():
    here = uniform(1, 2, "weak", SLOTS, 3)
    limit = 4 / here.numel() ** 0.5
    assert abs(correlation(here[:-1], here[1:])) < limit  # next slot
    assert abs(correlation(here[:, :-1], here[:, 1:])) < limit * 1.3  # next number of the sample
    for seed, step, purpose in ((2, 2, "weak"), (1, 3, "weak"), (1, 2, "strong"), (2, 1, "weak")):
        there = uniform(seed, step, purpose, SLOTS, 3)
        assert abs(correlation(here, there)) < limit, (seed, step, purpose)
        assert (here == there).float().mean() < 1e-4


def test_pairs_of_consecutive_steps_fill_the_square():
    first, second = (uniform(0, step, "weak", SLOTS, 1).squeeze(1) for step in (10, 11))
    cells = (first * 16).long() * 16 + (second * 16).long()
    assert chisquare(torch.bincount(cells, minlength=256).numpy()).pvalue > 1e-4


def test_a_number_depends_on_its_own_slot_alone():
    whole = uniform(3, 4, "strong", torch.arange(8), 7)
    assert torch.equal(whole[4:], uniform(3, 4, "strong", torch.arange(4, 8), 7))
    assert torch.equal(whole[[5, 2]], uniform(3, 4, "strong", torch.tensor([5, 2]), 7))
    assert torch.equal(whole[:, :3], uniform(3, 4, "strong", torch.arange(8), 3))


def test_what_a_method_draws_is_its_own():
    draw = draw_for(3, 4, torch.arange(8))
    assert torch.equal(draw("strong", 5)[2:6], draw_for(3, 4, torch.arange(2, 6))("strong", 5))
    assert torch.equal(draw("strong", 5)[:, :2], draw("strong", 2))
    for other in (
        uniform(3, 4, "strong", torch.arange(8), 5),
        draw("weak", 5),
        draw_for(3, 5, torch.arange(8))("strong", 5),
    ):
        assert not torch.isin(other, draw("strong", 5)).any()


def test_large_slots_and_steps():
    drawn = uniform(2**63, 2**40, "x", torch.tensor([2**62, 2**62 + 1]), 2)
    assert drawn.unique().numel() == 4


def test_no_generator_is_touched():
    before = torch.get_rng_state()
    uniform(0, 0, "weak", SLOTS, 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_every_device_draws_the_same():
    assert torch.equal(uniform(0, 1, "weak", SLOTS, 9), uniform(0, 1, "weak", SLOTS.cuda(), 9).cpu())
