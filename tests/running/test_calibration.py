"""Streaming calibration equals the functions on everything at once, for any chunks, ranks or interruption."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sfumato.functional import calibration
from sfumato.running.calibration import ClassBins, ProperScores, TopLabelBins

CHUNKS = [[200], [1] * 200, [3, 0, 150, 47], [199, 1]]


def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    p = (3 * torch.randn(200, 4, 3, generator=draw)).softmax(dim=1)
    p[:5] = torch.eye(4)[0].reshape(4, 1)  # exact ones
    labels = torch.randint(-1, 4, (200, 3), generator=draw)
    return p, labels, (torch.rand(200, 3, generator=draw) > 0.2).float()


def streams() -> list[torch.nn.Module]:
    return [TopLabelBins(15), TopLabelBins(10, split_one=True), ClassBins(4, 15), ProperScores()]


def expected() -> list[torch.Tensor]:
    entries = sample()
    return [
        calibration.ece(*entries),
        calibration.ece(*entries, bins=10, split_one=True),
        calibration.classwise_ece(*entries),
        torch.stack([calibration.nll(*entries), calibration.brier(*entries)]),
    ]


@pytest.mark.parametrize("chunks", CHUNKS, ids=["whole", "singly", "uneven with an empty one", "last alone"])
def test_any_chunking_gives_the_value_of_the_whole(chunks):
    for stream, value in zip(streams(), expected(), strict=True):
        for part in zip(*(tensor.split(chunks) for tensor in sample()), strict=True):
            stream.observe(*part)
        torch.testing.assert_close(stream.value, value, rtol=0, atol=1e-12)


def test_entries_observed_are_as_good_as_probabilities():
    p, y = calibration.valid_entries(*sample())
    bins, split, scores = TopLabelBins(15), TopLabelBins(10, split_one=True), ProperScores()
    for start in range(0, len(y), 100):
        part, labels = p[start : start + 100], y[start : start + 100]
        for stream in (bins, split):
            stream.observe_entries(part.amax(dim=1), part.argmax(dim=1) == labels)
        scores.observe_entries(calibration.nll_each(part, labels), calibration.brier_each(part, labels))
    whole = expected()
    for stream, value in ((bins, whole[0]), (split, whole[1]), (scores, whole[3])):
        torch.testing.assert_close(stream.value, value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_norms_and_table(norm):
    stream, split = TopLabelBins(15), TopLabelBins(15, split_one=True)
    for module in (stream, split):
        module.observe(*sample())
    torch.testing.assert_close(stream.error(norm), calibration.ece(*sample(), norm=norm), rtol=0, atol=1e-12)
    for table in (stream.table, split.table):
        reference = calibration.reliability(*sample())
        torch.testing.assert_close(table.accuracy, reference.accuracy, equal_nan=True)
        torch.testing.assert_close(table.confidence, reference.confidence, equal_nan=True)


def test_class_errors_are_those_of_the_function():
    stream = ClassBins(4)
    stream.observe(*sample())
    torch.testing.assert_close(stream.each, calibration.classwise_ece_each(*sample()), rtol=0, atol=1e-12)


def test_state_dict_is_all_the_memory_and_reading_changes_nothing():
    first = [tensor[:80] for tensor in sample()]
    rest = [tensor[80:] for tensor in sample()]
    for stream, resumed, value in zip(streams(), streams(), expected(), strict=True):
        stream.observe(*first)
        before = {key: tensor.clone() for key, tensor in stream.state_dict().items()}
        _ = stream.value
        assert all(torch.equal(before[key], tensor) for key, tensor in stream.state_dict().items())
        resumed.load_state_dict(before)
        resumed.observe(*rest)
        torch.testing.assert_close(resumed.value, value, rtol=0, atol=1e-12)


def test_memory_is_that_of_the_bins():
    assert [sum(b.numel() for b in stream.buffers()) for stream in streams()] == [45, 33, 180, 3]


def test_nothing_observed_is_nan():
    assert all(math.isnan(float(v)) for stream in streams() for v in stream.value.reshape(-1))


def _rank(rank: int, folder: str, shares: list[int]) -> None:
    store = dist.FileStore(str(Path(folder) / "store"), len(shares))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=len(shares), timeout=timedelta(seconds=60))
    mine = streams()
    for stream in mine:
        stream.observe(*(tensor.split(shares)[rank] for tensor in sample()))
        local = next(stream.buffers()).clone()
        value = stream.value
        torch.testing.assert_close(stream.value, value, rtol=0, atol=0)  # reading twice adds nothing
        assert torch.equal(local, next(stream.buffers()))
    torch.save([stream.value for stream in mine], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shares", [[100, 100], [183, 17]])
def test_two_ranks_give_the_values_of_one(tmp_path, shares):
    mp.spawn(_rank, args=(str(tmp_path), shares), nprocs=2)
    for rank in range(2):
        for merged, alone in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected(), strict=True):
            torch.testing.assert_close(merged, alone, rtol=0, atol=1e-12)
